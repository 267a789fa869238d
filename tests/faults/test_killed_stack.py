"""Everything is killed with -9 in the middle of the work and started again: nothing is lost.

The vendors (the sandbox) run outside of the stack and live on, so what they received tells how many
effects were repeated. Prints its counts; `NHOOD_FAULTS_N` sets the number of executions.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from nhood.embedded.server import free_port
from tests.product import ROOT, Product, Workspace, wait_for

N = int(os.environ.get("NHOOD_FAULTS_N", "1000"))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    env = {**os.environ, "NHOOD_SANDBOX_PORT": str(port), "NHOOD_STATE_DIR": str(tmp_path / "sb")}
    with (tmp_path / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nhood", "serve", "sandbox"], env=env, stderr=log, cwd=ROOT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(url), "the sandbox")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_sandbox/counts").is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def product(tmp_path: Path, sandbox: str) -> Iterator[Product]:
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    found = Product(tmp_path / "state", {"NHOOD_SANDBOX_URL": sandbox})
    try:
        found.up()
        yield found
    finally:
        found.down()


def _ended(product: Product, workspace: str) -> Counter:
    with psycopg.connect(product.state.env["DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT status, count(*) FROM executions WHERE workspace_id = %s GROUP BY status",
            (workspace,),
        ).fetchall()
    return Counter(dict(rows))


def _some(ended: Counter) -> Counter | None:
    return ended if ended["succeeded"] >= N // 10 else None


def _received(sandbox: str, action: str) -> Counter:
    """How often each execution's effect reached the vendor."""
    answer = httpx.get(f"{sandbox}/_sandbox/received", params={"limit": 5000}, timeout=30)
    field = "text" if action == "send_message" else "LastName"
    entries = [entry for entry in answer.json()["items"] if entry["action"] == action]
    return Counter(str(entry["body"][field]) for entry in entries)


@pytest.mark.timeout(300)
def test_stack_killed_in_the_middle_of_its_work_loses_nothing(product, sandbox, capsys, request):
    workspace = Workspace.make(product)
    request.addfinalizer(workspace.client.close)
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")

    def post(number: int) -> str:
        person = {"name": f"n{number}", "first_name": "A", "last_name": f"n{number}",
                  "company": "C", "email": "a@example.com"}  # fmt: skip
        return workspace.post("/new-customer", {"customer": person})["event_id"]

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(post, range(N)))
    before = wait_for(lambda: _some(_ended(product, workspace.id)), "a tenth of them to end", 120)
    killed = product.kill_everything()
    assert killed >= 8
    product.up()
    wait_for(lambda: _ended(product, workspace.id)["succeeded"] >= N, "every execution", 180, 0.5)
    after = _ended(product, workspace.id)
    messages, leads = _received(sandbox, "send_message"), _received(sandbox, "create_lead")
    repeated = sum(count - 1 for count in (*messages.values(), *leads.values()))
    with capsys.disabled():
        print(
            f"\nkilled {killed} processes with -9 when {before['succeeded']} of {N} executions had "
            f"ended; after the restart: {dict(after)}; effects {len(messages) + len(leads)}, "
            f"repeated {repeated}"
        )
    assert len(set(accepted)) == N
    assert after == {"succeeded": N}
    assert len(messages) == N
    assert len(leads) == N
