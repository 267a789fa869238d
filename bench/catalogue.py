"""What the catalogue costs: `python -m bench.catalogue` loads it in fresh processes and renders.

read anew    every provider.yaml is parsed and checked (the first start after a change)
from cache   what was found right before is read as JSON, actions compiled when asked for
"""

import json
import subprocess
import sys
import tempfile
from statistics import median

RUNS = 5
_LOAD = """
import json, time, psutil, schemas.provider_file, schemas.tiers
from schemas.provider import load_catalogue
memory = psutil.Process().memory_info
before = memory().rss
began = time.perf_counter()
catalogue = load_catalogue()
took = time.perf_counter() - began
loaded = memory().rss - before
actions = [action for spec in catalogue for action in spec.actions.values()]
print(json.dumps({"ms": took * 1e3, "mb": loaded / 1e6, "mb_all": (memory().rss - before) / 1e6,
                  "providers": len(catalogue), "actions": len(actions)}))
"""
_RENDER = """
import json, time
from executors.core.action import call
from nhood.providers.account import variables_of
from schemas.provider import load_catalogue
work = [(spec, action, dict(action.example.params), variables_of(spec, {}))
        for spec in load_catalogue() for action in spec.actions.values()]
def render():
    for spec, action, params, account in work:
        next(call(spec, action, params, account, "key"))
render()
began = time.perf_counter()
for _ in range(5):
    render()
print(json.dumps({"us": (time.perf_counter() - began) / 5 / len(work) * 1e6}))
"""


def main() -> None:
    """Measure and tell."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run(_LOAD, folder) for _ in range(RUNS + 1)]
        rendered = [_run(_RENDER, folder)["us"] for _ in range(RUNS)]
    first, again = runs[0], runs[1:]
    print(f"{first['providers']:.0f} providers, {first['actions']:.0f} actions")
    print(f"read anew   {first['ms']:7.0f} ms")
    times = sorted(run["ms"] for run in again)
    print(f"from cache  {median(times):7.0f} ms (least {times[0]:.0f}, most {times[-1]:.0f})")
    print(f"memory      {median(run['mb'] for run in again):7.1f} MB loaded")
    print(
        f"            {median(run['mb_all'] for run in again):7.1f} MB with every action compiled"
    )
    print(f"rendering   {median(rendered):7.1f} us an action, the checks of its params included")


def _run(program: str, cache: str) -> dict[str, float]:
    env = {"XDG_CACHE_HOME": cache, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
