"""The fault matrix: everything that can break is broken under load, and nothing is lost.

Each row of the table is one test. `make soak` runs them long; `NHOOD_FAULTS_SEED` repeats a run.
`NHOOD_FAULTS_TABLE` names a file that the table is written to.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nhood.embedded.server import free_port
from tests.faults.field import HEAD, LONG, SEED, Field, Row
from tests.faults.scenarios import SCENARIOS
from tests.folders import folder_for_servers
from tests.product import ROOT, Product, wait_for

TABLE = os.environ.get("NHOOD_FAULTS_TABLE")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("vendors"), free_port()
    env = {**os.environ, "NHOOD_SANDBOX_PORT": str(port), "NHOOD_STATE_DIR": str(folder)}
    with (folder / "sandbox.log").open("wb") as log:
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


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    found: list[Row] = []
    yield found
    if TABLE and found:
        how = "make soak" if LONG else "NHOOD_FAULTS_ALL=1 pytest tests/faults/test_matrix.py"
        lines = "\n".join(row.line() for row in found)
        Path(TABLE).write_text(
            f"# Faults\n\nWritten by `{how}` (seed {SEED}); what each column means stands in"
            f" `tests/faults/field.py`.\n\n{HEAD}\n{lines}\n"
        )


@pytest.fixture(scope="module")
def field(sandbox: str) -> Iterator[Field]:
    with folder_for_servers("faults") as folder:
        product = Product(folder, {"NHOOD_SANDBOX_URL": sandbox})
        try:
            product.up()
            found = Field(product, sandbox)
            yield found
            found.close()
        finally:
            product.down()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost(
    field: Field, rows: list[Row], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = field.run(name, SCENARIOS[name])
    rows.append(row)
    with capsys.disabled():
        print(f"\n{row.line()}  seed {SEED}")
    assert row.accepted > 0
    assert sum(row.ended.values()) == row.accepted
    assert row.without_outcome == 0
    assert row.lost == 0
    assert row.repeated_keyed == 0
    assert set(row.ended) == {"succeeded"}
