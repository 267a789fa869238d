"""The vault's audit: who was given which credential, at no cost to whoever asks for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest

from schemas.access import Caller
from schemas.ids import WorkspaceId
from token_vault import audit
from token_vault.audit import AccessLog, forget_old, page
from wire.database import Pool, open_pool
from wire.telemetry import AUDIT_LOST

CALLER = Caller(WorkspaceId("ws_a"), "test", "key_1")


@dataclass(frozen=True)
class Given:
    workspace_id: str = "ws_a"
    mode: str = "test"
    connection_id: str = "conn_1"
    version: int = 3


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    found = await open_pool(database, max_size=2)
    async with found.connection() as on:
        await on.execute("DELETE FROM token_uses")
    yield found
    await found.close()


async def rows(pool: Pool, caller: Caller = CALLER, **more) -> list[tuple]:
    found = await page(pool, caller, "conn_1", more.get("before"), more.get("limit", 50))
    return [(r["purpose"], r["execution_id"], r["step_id"], r["uses"]) for r in found]


async def test_uses_are_told_by_step_and_counted(pool: Pool) -> None:
    log = AccessLog(pool)
    for _ in range(3):
        log.used(Given(), "step", "ex_1", "notify")
    log.used(Given(), "step", "ex_2", "notify")
    log.used(Given(), "proxy")
    log.used(Given(connection_id="conn_2"), "proxy")
    assert await rows(pool) == [], "written later, not while a step waits"
    await log.close()
    found = await page(pool, CALLER, "conn_1", None, 50)
    assert sorted(await rows(pool)) == [
        ("proxy", "", "", 1),
        ("step", "ex_1", "notify", 3),
        ("step", "ex_2", "notify", 1),
    ]
    assert {row["credential_version"] for row in found} == {3}
    assert all(row["first_at"] <= row["last_at"] for row in found)
    assert len(await rows(pool, limit=2)) == 2
    assert len(await rows(pool, before=found[1]["id"])) == 1


async def test_uses_are_seen_by_their_workspace_and_mode_only(pool: Pool) -> None:
    log = AccessLog(pool)
    log.used(Given(), "proxy")
    await log.close()
    assert await rows(pool, Caller(WorkspaceId("ws_b"), "test", "key_1")) == []
    assert await rows(pool, Caller(WorkspaceId("ws_a"), "live", "key_1")) == []


async def test_uses_are_written_within_the_promised_time(pool: Pool, database: str) -> None:
    log = AccessLog(pool, flush_s=0.05)
    log.used(Given(), "proxy")
    until = time.monotonic() + 5
    while not await rows(pool) and time.monotonic() < until:
        await _breathe()
    assert await rows(pool) == [("proxy", "", "", 1)]
    log.used(Given(), "proxy")
    await log.close()
    assert len(await rows(pool)) == 2


async def test_uses_wait_while_the_database_is_away(
    pool: Pool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "RETRY_S", 0.05)
    log = AccessLog(pool, flush_s=0.01)
    with psycopg.connect(database, autocommit=True) as on:
        on.execute("ALTER TABLE token_uses RENAME TO away")
        log.used(Given(), "proxy")
        for _ in range(20):
            await _breathe()
        assert log._uses, "kept"
        on.execute("ALTER TABLE away RENAME TO token_uses")
    log.used(Given(), "proxy")
    await log.close()
    assert [row[3] for row in await rows(pool)] == [2]


async def test_uses_beyond_the_bound_are_counted_as_lost(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "KEPT_MAX", 2)
    before = AUDIT_LOST._value.get()
    log = AccessLog(pool)
    for number in range(5):
        log.used(Given(), "step", f"ex_{number}", "a")
    await log.close()
    assert AUDIT_LOST._value.get() - before == 3
    assert len(await rows(pool)) == 2


async def test_old_uses_are_forgotten(pool: Pool) -> None:
    log = AccessLog(pool)
    log.used(Given(), "proxy")
    log.used(Given(), "revoke")
    await log.close()
    async with pool.connection() as on:
        await on.execute(
            "UPDATE token_uses SET last_at = now() - interval '91 days' WHERE purpose = 'proxy'"
        )
    assert await forget_old(pool) == 1
    assert [row[0] for row in await rows(pool)] == ["revoke"]


async def test_noting_a_use_costs_a_step_nearly_nothing(pool: Pool) -> None:
    log = AccessLog(pool)
    given = Given()
    best = min(_timed(log, given) for _ in range(5))
    await log.close()
    assert best < 20e-6, f"{best * 1e6:.1f} µs"


def _timed(log: AccessLog, given: Given) -> float:
    begun = time.perf_counter()
    for number in range(1000):
        log.used(given, "step", f"ex_{number}", "a")
    return (time.perf_counter() - begun) / 1000


async def _breathe() -> None:
    await asyncio.sleep(0.02)
