"""`nhood keys` as the operator types it: rotated, killed in the middle, gone on with."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.settings import Secret
from tests.integration.test_key_rotation import store_token
from tests.integration.vault_parts import Site, open_site
from token_vault.core.grants import Held
from token_vault.rotation import destroy
from token_vault.states import Terms
from token_vault.store import Account, Owner
from wire.clock import now

USERS = 400


@dataclass
class Desk:
    """A vault in this process, and the command in others."""

    site: Site
    env: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "nhood", "keys", *words]

    def nhood(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.env, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*words),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Whoever runs the tests in the background of a shell has Ctrl-C ignored; not this one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture
async def desk(database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_site(database, tmp_path) as site:
        env = {
            **os.environ,
            "DATABASE_URL": database,
            "NHOOD_STATE_DIR": str(tmp_path),
            "NHOOD_MASTER_KEY_FILE": str(tmp_path / "master.key"),
        }
        yield Desk(site, env)
        await site.sql("DELETE FROM workspaces")
        await site.sql("DELETE FROM key_rotations")


async def many(site: Site, count: int) -> dict[str, str]:
    """Connect many accounts without asking any vendor: connection id -> access token."""
    made = {}
    for number in range(count):
        owner = Owner(site.workspace, "test", "slack", f"u{number:04}")
        held = Held(Secret(f"xoxb-{number}"), None, now(), None)
        account = Account("oauth2", None, None, {}, (), None)
        row = await site.vault.keeper.store(owner, account, held, Terms())
        made[row.id] = f"xoxb-{number}"
    return made


async def test_status_and_rotation_of_all_layers(desk: Desk) -> None:
    tokens = await many(desk.site, 3)
    shown = json.loads((await asyncio.to_thread(desk.nhood, "status", "--json")).stdout)
    assert shown["workspace_keys"]["current"] == 1
    assert shown["user_keys"]["current"] == 3
    assert shown["roots"] == {shown["root"]: 1}
    old = shown["root"]

    done = await asyncio.to_thread(desk.nhood, "rotate", "--settle", "0")
    assert done.returncode == 0, done.stderr
    assert "root: 1 sealed anew by file:" in done.stdout
    assert "workspace: 3 sealed anew." in done.stdout
    assert "user: 6 sealed anew." in done.stdout, "3 keys and 3 credentials"

    text = (await asyncio.to_thread(desk.nhood, "status")).stdout
    assert "nothing needs it" in text
    assert "3 in force" in text
    assert "3 retired" in text
    assert "Last rotation of user" in text
    dropped = await asyncio.to_thread(desk.nhood, "drop-root", old)
    assert f"Dropped {old}." in dropped.stdout
    assert await opened(desk.site) == tokens


async def opened(site: Site) -> dict[str, str]:
    fresh = await site.another()
    found = await fresh.store.page(site.workspace, "test", {}, "", 200)
    last = found
    while last:
        last = await fresh.store.page(site.workspace, "test", {}, last[-1].id, 200)
        found += last
    return {row.id: (await fresh.sealer.open_credential(row)).access_token.reveal()
            for row in found}  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
async def test_rotation_killed_in_the_middle_under_load_loses_nothing(
    desk: Desk, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed three times while tokens are refreshed all the time, then let through."""
    site = desk.site
    tokens = await many(site, USERS)
    busy = [await site.vault.store.get(site.workspace, id_) for id_ in list(tokens)[::40]]
    over = asyncio.Event()

    async def refresh() -> int:
        count = 0
        while not over.is_set():
            for row in busy:
                assert row is not None
                count += 1
                tokens[row.id] = f"xoxb-{row.user_id}-{count}"
                await store_token(site.vault, row, tokens[row.id])
        return count

    refreshing = asyncio.create_task(refresh())
    done_at_kills = []
    try:
        for _ in range(3):
            process = desk.start("rotate", "--layer", "user", "--settle", "30")
            begun = done_at_kills[-1] if done_at_kills else 0
            done_at_kills.append(await further(site, begun + 40, process))
            process.send_signal(number)
            out, err = await asyncio.to_thread(process.communicate, timeout=180)
            if number is signal.SIGINT:
                assert process.returncode == 130, err
                assert b"Say it again to go on." in out
        last = await asyncio.to_thread(desk.nhood, "rotate", "--layer", "user", "--settle", "12")
    finally:
        over.set()
        refreshes = await refreshing
    assert last.returncode == 0, last.stderr
    assert "went on with it" in last.stdout
    # Their first keys are retired and can go: nothing is sealed with them.
    assert await destroy(site.pool, after_s=0) == USERS
    assert await opened(site) == tokens
    ((keys,),) = await site.sql("SELECT count(*) FROM vault_keys WHERE kind = 'user'")
    assert keys == USERS, "one new key for each, however often it was killed"
    with capsys.disabled():
        print(
            f"\n{number.name} after {done_at_kills} of {2 * USERS}; {refreshes} refreshes"
            " meanwhile, none lost"
        )


async def further(site: Site, done: int, process: subprocess.Popen[bytes]) -> int:
    """Wait until the rotation has done so much."""
    async with asyncio.timeout(60):
        while True:
            rows = await site.sql("SELECT done FROM key_rotations WHERE finished_at IS NULL")
            if rows and rows[0][0] >= done:
                return rows[0][0]
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            await asyncio.sleep(0.005)


async def test_what_does_not_open_is_told_by_the_exit_code(desk: Desk) -> None:
    (connection,) = await many(desk.site, 1)
    await desk.site.sql(
        "UPDATE connections SET credential = set_byte(credential, length(credential) - 1,"
        " get_byte(credential, length(credential) - 1) # 1) WHERE id = %s",
        connection,
    )
    done = await asyncio.to_thread(desk.nhood, "rotate", "--layer", "user", "--settle", "0")
    assert done.returncode == 1
    assert "1 do not open" in done.stdout
    assert connection in done.stderr, "the log names it"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("rotate", "--layer", "cellar"), "is no layer"),
        (("rotate", "--workspace", "ws_1", "--settle", "0"), "no workspace"),
        (("rotate", "--layer", "root", "--workspace", "ws_1"), "no single workspace"),
        (("drop-root", "file:0"), "no root key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    desk: Desk, words: tuple[str, ...], sentence: str
) -> None:
    done = desk.nhood(*words)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_root_key_is_one_sentence(desk: Desk, tmp_path: Path) -> None:
    asyncio.run(_one_key(desk))
    (tmp_path / "master.key").write_text("A" * 43 + "=")
    done = desk.nhood("status")
    assert done.returncode == 1
    assert "Bring back the right key" in done.stderr


async def _one_key(desk: Desk) -> None:
    async with open_site(desk.env["DATABASE_URL"], Path(desk.env["NHOOD_STATE_DIR"])) as site:
        await many(site, 1)
