"""Races and crashes around refreshing: one refresh reaches the vendor, and no state is ever wrong.

Processes are real, the vendor is the sandbox and counts what came to it. Prints its counts.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DependencyDown, NotFound
from schemas.provider import Catalogue
from schemas.settings import Settings
from tests.integration.refresh_parts import (
    READS,
    bring_due,
    changes_of,
    credential_of,
    expire,
    leased,
    pass_time,
    refreshes,
    works,
)
from tests.integration.sandbox_parts import CATALOGUE
from tests.integration.vault_parts import Site, open_site
from tests.product import ROOT
from token_vault.refresher import NeedsReauth
from token_vault.store import Connection
from token_vault.vault import Vault
from wire.clock import now

PROCESSES = 8
STEPS = 200
POINTS = ("before_call", "after_answer", "before_commit", "after_commit")


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as opened:
        yield opened


async def process(settings: Settings, *words: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.vault_process", *map(str, words)),
        env={**os.environ, **settings.to_env()},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def begin(child: asyncio.subprocess.Process) -> None:
    """Wait until a process that carries out steps is ready."""
    assert child.stdout is not None
    async with asyncio.timeout(120):
        while (line := await child.stdout.readline()) != b"ready\n":
            assert line, "the process ended before it was ready"


async def end_token(site: Site, slug: str) -> None:
    """Let the vendor end all access tokens now."""
    body = {"provider": slug}
    await site.sandbox.client.post(f"{site.sandbox.url}/_sandbox/expire", json=body)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("noticed_by", ["clock", "refusal"])
async def test_8_processes_with_200_steps_refresh_an_expired_token_once(
    site: Site, noticed_by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await site.connect("zendesk")
    children = [
        await process(site.settings, "steps", site.workspace, "zendesk", READS["zendesk"], STEPS)
        for _ in range(PROCESSES)
    ]
    for child in children:
        await begin(child)
    await end_token(site, "zendesk")
    if noticed_by == "clock":
        await expire(site, made, -1)
        await bring_due(site, made)
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
    async with asyncio.timeout(200):
        told = [await child.communicate() for child in children]
    outcomes: Counter[str] = sum(
        (Counter(json.loads(out.splitlines()[-1])) for out, _ in told), Counter()
    )
    reached = await refreshes(site, "zendesk")
    row = await site.row(made)
    with capsys.disabled():
        print(
            f"\n{PROCESSES} processes x {STEPS} steps, token ended, noticed by {noticed_by}:"
            f" {dict(outcomes)}; refreshes at the vendor: {reached};"
            f" version {row.credential_version}"
        )
    assert reached == 1
    assert outcomes == {"succeeded": PROCESSES * STEPS}
    assert (row.state, row.credential_version, row.lease_until) == ("active", 2, None)


async def let_lease_end(site: Site, made: Connection) -> None:
    """Let the time of a dead process's lease be over."""
    await site.sql(
        "UPDATE connections SET lease_until = now() - interval '1 s' WHERE id = %s", made.id
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("slug", ["zendesk", "salesforce"])
@pytest.mark.parametrize("point", POINTS)
async def test_refresher_killed_at_each_point_leaves_a_connection_that_works_or_says_why_not(
    site: Site, slug: str, point: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await site.connect(slug)
    old = await credential_of(site, slug)
    child = await process(site.settings, "die", site.workspace, slug, point)
    async with asyncio.timeout(60):
        assert await child.wait() == -9
    after_kill = await site.row(made)
    await let_lease_end(site, made)
    await end_token(site, slug)
    site.vault.tokens.forget(made.id)
    with contextlib.suppress(NeedsReauth):
        new = await site.vault.tokens.refreshed(old)
        if not await works(site, slug, new):  # stored by the dead one, ended by the vendor since
            new = await site.vault.tokens.refreshed(new)
        assert await works(site, slug, new)
    row = await site.row(made)
    reason = (row.last_error or {}).get("code", "")
    asked = await refreshes(site, slug)
    with capsys.disabled():
        print(
            f"\nkilled -9 {point} ({slug}): {after_kill.state} version"
            f" {after_kill.credential_version}, then {row.state} {reason} version"
            f" {row.credential_version}; refreshes at the vendor: {asked}"
        )
    # Zendesk as the sandbox plays it takes each refresh token once and kills the grant on a second
    # use; Salesforce's refresh tokens can be used again and again.
    is_lost = slug == "zendesk" and point in ("after_answer", "before_commit")
    assert (row.state, reason) == (("needs_reauth", "answer_lost") if is_lost else ("active", ""))
    assert row.lease_until is None
    if is_lost:
        await site.connect(slug)
        assert await works(site, slug, await credential_of(site, slug))
    changes = await changes_of(site, made)
    for (_, after, _), (before, _, _) in pairwise(changes):
        assert after == before  # no change of state is left out


async def test_connection_deleted_while_processes_refresh_it_stays_deleted(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await site.connect("zendesk")
    vaults = [site.vault, *[await site.another() for _ in range(3)]]
    old = [await credential_of(site, "zendesk", vault.tokens) for vault in vaults]
    await site.sandbox.fault("zendesk", "oauth.token", {"delay_ms": 400})
    asked = [
        asyncio.create_task(vault.tokens.refreshed(credential))
        for vault, credential in zip(vaults, old, strict=True)
    ]
    await leased(site, made)
    await site.vault.disconnect(site.workspace, "test", made.id)
    ended = await asyncio.gather(*asked, return_exceptions=True)
    with capsys.disabled():
        kinds = Counter(type(one).__name__ for one in ended)
        print(f"\ndeleted while 4 refresh: {dict(kinds)}; {await refreshes(site, 'zendesk')} asked")
    assert all(isinstance(one, NotFound) for one in ended)
    assert await site.vault.store.get(site.workspace, made.id) is None
    # What the vendor gave meanwhile was given back: nothing of this grant opens anything.
    grants = site.sandbox.app.world.grants._grants.values()
    assert all(grant.revoked for grant in grants if grant.slug == "zendesk")
    assert (await changes_of(site, made))[-1][1:] == ("revoked", "deleted")


def skewed(vault: Vault, seconds: float) -> Vault:
    """Let a process's clock be wrong."""

    def clock() -> Any:
        return now() + timedelta(seconds=seconds)

    vault.tokens._clock = clock
    vault.tokens.refresher._clock = clock
    return vault


def living(seconds: int) -> Catalogue:
    """Give the catalogue with tokens of Jira that live so long."""
    jira = CATALOGUE.get("jira")
    short = replace(jira, auth=replace(jira.auth, access_token_seconds=seconds))
    return Catalogue({**CATALOGUE.providers, "jira": short})


@pytest.mark.parametrize(("life_s", "at_most"), [(3_600, 1), (120, 3)])
async def test_clocks_that_are_five_minutes_off_do_no_harm(
    database: str, tmp_path: Path, life_s: int, at_most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    skews = (-300, 0, 300)
    async with open_site(database, tmp_path, living(life_s)) as site:
        made = await site.connect("jira")
        vaults = [skewed(await site.another(), seconds) for seconds in skews]
        # Four minutes of its life are left: over by one of the clocks.
        await expire(site, made, 240)
        await end_token(site, "jira")
        for _ in range(5):
            for vault in vaults:
                vault.tokens.forget(made.id)
                credential = await credential_of(site, "jira", vault.tokens)
                if not await works(site, "jira", credential):
                    credential = await vault.tokens.refreshed(credential)
                assert await works(site, "jira", credential)
        asked = await refreshes(site, "jira")
        state = (await site.row(made)).state
    with capsys.disabled():
        print(f"\nclocks {skews} s off, tokens of {life_s} s: {asked} refreshes in 15 uses")
    assert 1 <= asked <= at_most
    assert state == "active"


BAD_ANSWERS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what the vendor answers: the state after it, and after the next, good answer
    "an error with 200": ({"status": 200, "body": {"error": "oops"}}, "degraded", "active"),
    "invalid_grant with 200": (
        {"status": 200, "body": {"error": "invalid_grant"}},
        "needs_reauth",
        "needs_reauth",
    ),
    "HTML with 200": ({"status": 200, "body": "<html>Maintenance</html>"}, "degraded", "active"),
    "JSON cut off, undone": ({"status": 200, "body": '{"access_token": "x'}, "degraded", "active"),
    "10 MB": ({"status": 200, "body_bytes": 10_500_000}, "degraded", "active"),
    # It did rotate, so the pair that it answered is lost.
    "JSON cut off, done": ({"truncate": True}, "degraded", "needs_reauth"),
    "reset after doing it": ({"reset": "after"}, "degraded", "needs_reauth"),
    "reset before doing it": ({"reset": "before"}, "degraded", "active"),
}


@pytest.mark.parametrize("answer", list(BAD_ANSWERS))
async def test_bad_answer_costs_no_token_that_still_works(
    site: Site, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fault, first, then = BAD_ANSWERS[answer]
    made = await site.connect("zendesk")
    old = await credential_of(site, "zendesk")
    await site.sandbox.fault("zendesk", "oauth.token", fault)
    with pytest.raises((DependencyDown, NeedsReauth)):
        await site.vault.tokens.refreshed(old)
    row = await site.row(made)
    assert (row.state, row.credential_version, row.lease_until) == (first, 1, None)
    if first == "degraded" and then == "active":
        assert await works(site, "zendesk", await credential_of(site, "zendesk"))
    if first == "degraded":
        await pass_time(site, made)
        with contextlib.suppress(NeedsReauth):
            assert await works(site, "zendesk", await site.vault.tokens.refreshed(old))
    row = await site.row(made)
    reason = (row.last_error or {}).get("code", "")
    with capsys.disabled():
        print(f"\n{answer}: {first}, then {row.state} {reason}")
    assert row.state == then
    if fault == {"truncate": True} or fault.get("reset") == "after":
        assert reason == "answer_lost"
