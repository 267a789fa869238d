"""Events a second and executions a month, on a real Redis and a real database."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from ingest.pace import Pace
from schemas.errors import RateLimited
from schemas.settings import Secret
from tests.integration.vault_parts import new_workspace
from wire.clock import mint
from wire.database import open_pool
from wire.usage import Usage

NOW = datetime(2026, 2, 20, 12, tzinfo=UTC)


@pytest.fixture
async def pace(stack):
    made: list[Pace] = []

    def build(**how) -> Pace:
        made.append(Pace(Secret(stack.valkey), **how))
        return made[-1]

    yield build
    for one in made:
        await one.close()


async def taken(pace: Pace, workspace: str, most: int = 1_000, events: int = 1) -> int:
    for count in range(most):
        try:
            await pace.require(workspace, events)
        except RateLimited:
            return count
    return most


async def test_burst_then_refusal_that_says_when(pace):
    one, workspace = pace(rate=0.5, burst=50), mint("ws")
    assert await taken(one, workspace) == 50
    with pytest.raises(RateLimited) as raised:
        await one.require(workspace, 10)
    assert raised.value.code == "event_rate_exceeded"
    assert 18 <= raised.value.retry_after_s <= 20
    assert raised.value.headers["RateLimit"].startswith('"events";r=0;t=')
    assert await taken(one, mint("ws")) == 50  # another workspace's burst is its own


async def test_gateways_share_one_limit(pace):
    one, other, workspace = (
        pace(rate=0.01, burst=200),
        pace(rate=0.01, burst=200),
        mint("ws"),
    )
    counts = await asyncio.gather(taken(one, workspace), taken(other, workspace))
    assert sum(counts) == 200


async def test_tokens_come_back_with_time(pace):
    one, workspace = pace(rate=2_000, burst=40), mint("ws")
    await taken(one, workspace, 40)
    async with asyncio.timeout(10):
        total = 0
        while total < 400:
            total += await taken(one, workspace, 400)
            await asyncio.sleep(0.005)


async def test_batch_is_taken_whole_or_not_at_all(pace):
    one, workspace = pace(rate=0.01, burst=1_500), mint("ws")
    await one.require(workspace, 1_000)
    with pytest.raises(RateLimited):
        await one.require(workspace, 1_000)
    await one.require(workspace, 500)
    with pytest.raises(RateLimited):
        await one.require(workspace)


async def test_redis_that_is_away_refuses_nobody_and_the_limit_holds_here():
    one = Pace(Secret("redis://127.0.0.1:1/0"), rate=0.01, burst=100)
    assert await taken(one, mint("ws")) == 100
    await one.close()


async def test_without_redis_each_process_counts_for_itself():
    clock = [0.0]
    one, workspace = Pace(Secret(""), lambda: clock[0]), mint("ws")
    assert await taken(one, workspace, 10_000) == 6_000
    clock[0] += 1
    assert await taken(one, workspace) == 100
    clock[0] += 3_600
    assert await taken(one, workspace, 10_000) == 6_000


@pytest.fixture
async def pool(database):
    opened = await open_pool(database, max_size=4)
    yield opened
    await opened.close()


async def begin(pool, workspace: str, count: int, at: datetime, mode: str = "live") -> None:
    async with pool.connection() as on:
        for _ in range(count):
            await on.execute(
                "INSERT INTO executions (id, workspace_id, workflow_id, version, mode, status,"
                " started_at) VALUES (%s, %s, 'wf', 1, %s, 'running', %s)",
                (mint("ex"), workspace, mode, at),
            )


async def asked(usage: Usage, workspace: str) -> None:
    """Ask until no look is under way."""
    try:
        await usage.require(workspace)
    finally:
        while task := usage._asking.get(workspace):
            await task
            await asyncio.sleep(0)


async def test_month_that_is_used_up_refuses_until_the_next(pool):
    clock = [NOW]
    workspace = await new_workspace(pool, max_executions_per_month=5)
    await begin(pool, workspace, 9, datetime(2026, 1, 31, 23, 59, tzinfo=UTC))
    await begin(pool, workspace, 2, datetime(2026, 2, 1, tzinfo=UTC))
    await begin(pool, workspace, 2, NOW - timedelta(seconds=5), "test")
    usage = Usage(pool, lambda: clock[0])
    await asked(usage, workspace)
    await begin(pool, workspace, 1, NOW)
    clock[0] += timedelta(seconds=2)
    await asked(usage, workspace)  # by the last answer, and looks again
    with pytest.raises(RateLimited) as raised:
        await usage.require(workspace)
    assert raised.value.code == "execution_quota_reached"
    assert raised.value.retry_after_s == pytest.approx(8.5 * 86_400, abs=3)
    assert "5" in raised.value.headers["RateLimit-Policy"]
    clock[0] = datetime(2026, 3, 1, tzinfo=UTC)
    await usage.require(workspace)


async def test_each_execution_is_counted_once_however_often_one_looks(pool):
    clock = [NOW]
    workspace = await new_workspace(pool, max_executions_per_month=1_000)
    usage = Usage(pool, lambda: clock[0])
    for _ in range(12):
        await begin(pool, workspace, 3, clock[0])
        await asked(usage, workspace)
        clock[0] += timedelta(seconds=20)
    await asked(usage, workspace)
    await asked(usage, workspace)
    assert usage._known[workspace].used == 36


async def test_plans_own_bound_holds_where_none_was_chosen(pool):
    workspace = await new_workspace(pool)
    usage = Usage(pool, lambda: NOW)
    await asked(usage, workspace)
    assert usage._known[workspace].bound == 10_000
    async with pool.connection() as on:
        await on.execute(
            "UPDATE workspaces SET plan = 'professional', settings = %s WHERE id = %s",
            (Jsonb({"max_executions_per_month": None}), workspace),
        )
    usage = Usage(pool, lambda: NOW)
    await asked(usage, workspace)
    assert usage._known[workspace].bound == 1_000_000


async def test_database_that_is_away_refuses_nobody(pool, monkeypatch):
    workspace = await new_workspace(pool)
    monkeypatch.setattr("wire.database.ACQUIRE_TIMEOUT_S", 0.1)
    gone = await open_pool(pool.conninfo, max_size=1)
    await gone.close()
    usage = Usage(gone, lambda: NOW)
    await usage.require(workspace)
