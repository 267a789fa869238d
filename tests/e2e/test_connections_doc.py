"""Every command of docs/connections.md works as it is written."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson

from tests.product import Workspace

DOC = Path(__file__).parents[2] / "docs" / "connections.md"
CURL = 'curl() { command curl -sS --fail-with-body "$@"; echo; }\n'
# Answers of these are taken up as a reader would; the names are the page's own.
TAKEN = {"conn_": "CONN", "cs_": "SESSION"}


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", DOC.read_text(), re.MULTILINE | re.DOTALL)


def answers(text: str) -> Iterator[dict]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield orjson.loads(line)


def consent(url: str, known: dict[str, str]) -> None:
    """Allow it on the consent page; our callback is followed, the reader's own is read."""
    back = httpx.get(f"{url}&sandbox_auto=allow&sandbox_account=Acme", timeout=30)
    location = back.headers["location"]
    told = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    if location.startswith(known["URL"]):
        landed = httpx.get(location, timeout=30)
        known["CONN"] = parse_qs(urlsplit(landed.headers["location"]).query)["connection_id"][0]
        return
    known["CODE"], known["STATE"] = told["code"], told["state"]


def run(block: str, known: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", CURL + block],
        env={**os.environ, **known},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, block + done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_page_works_as_written(workspace: Workspace) -> None:
    url = str(workspace.client.base_url).rstrip("/")
    known = {"URL": url, "WS": workspace.id, "KEY": workspace.key, "LIVE": workspace.live}
    commands = blocks()
    assert len(commands) >= 10
    for block in commands:
        for answer in answers(run(block, known)):
            name = next((n for p, n in TAKEN.items() if str(answer.get("id")).startswith(p)), None)
            if name is not None:
                known[name] = answer["id"]
            elif "state" in answer and answer.get("url"):
                consent(answer["url"], known)
    left = workspace.call("GET", f"{workspace.path}/connections").json()["items"]
    assert [item["user_id"] for item in left] == ["customer_42", "customer_42"]
