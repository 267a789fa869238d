"""What the ledger answers to a command, in each state of its effect."""

import asyncio
import secrets
from datetime import date, timedelta

import psycopg
import pytest

from executors.runtime.ledger import Begun, Done, Fresh, Ledger, Waiting
from schemas.settings import Secret
from wire.rotation import rotate


@pytest.fixture
async def ledger(database: str):
    found = Ledger(Secret(database))
    await found.start()
    yield found
    await found.close()


async def test_effect_that_waits_is_begun_again_by_its_timer_alone(ledger):
    key = secrets.token_hex(20)
    assert await ledger.begin("ws", key) == Fresh()
    assert await ledger.begin("ws", key) == Begun()
    await ledger.wait(key)
    assert await ledger.begin("ws", key) == Waiting()
    assert await ledger.begin("ws", key, again=True) == Fresh()
    assert await ledger.begin("ws", key, again=True) == Begun()
    await ledger.finish(key, b"result")
    await ledger.wait(key)
    assert await ledger.begin("ws", key, again=True) == Done(b"result")


DAY = date(2030, 1, 1)


async def turned(database: str, *days: int, keep: int = 14) -> list[list[str]]:
    """Rotate on each of these days; the partitions after each."""
    found = []
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as on:
        for day in days:
            async with on.transaction():
                found.append(await rotate(on, "effects", keep, DAY + timedelta(day)))
    return found


async def slots(database: str, key: str) -> list[date]:
    async with await psycopg.AsyncConnection.connect(database) as on:
        cursor = await on.execute("SELECT slot FROM effects WHERE effect_key = %s", (key,))
        return [row[0] for row in await cursor.fetchall()]


async def test_effect_of_an_older_partition_is_known_and_never_begun_twice(ledger, database):
    started, done = secrets.token_hex(20), secrets.token_hex(20)
    await turned(database, 0)
    for key in (started, done):
        assert await ledger.begin("ws", key) == Fresh()
    await ledger.finish(done, b"result")
    await turned(database, 8)
    assert await ledger.begin("ws", started) == Begun()
    assert await ledger.begin("ws", done) == Done(b"result")
    await ledger.finish(started, b"late")
    assert await ledger.begin("ws", started) == Done(b"late")
    assert await slots(database, started) == await slots(database, done) == [DAY]
    fresh = secrets.token_hex(20)
    assert await ledger.begin("ws", fresh) == Fresh()
    assert await slots(database, fresh) == [DAY + timedelta(8)]


async def test_partitions_are_dropped_once_all_in_them_is_old_enough(database):
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as on:
        await on.execute("DROP TABLE IF EXISTS effects_20300101, effects_20300109")
    first, again, second, third, fourth = await turned(database, 100, 103, 107, 114, 122)
    assert first == again
    assert [len(second) - len(first), second[-1]] == [1, "effects_20300418"]
    assert third[-3:] == ["effects_20300411", "effects_20300418", "effects_20300425"]
    # On day 122 the second is 15 days old: what is in the first is over, in the second not.
    assert fourth == ["effects_20300418", "effects_20300425", "effects_20300503"]


async def test_many_processes_that_rotate_at_once_do_it_once(database):
    results = await asyncio.gather(*(turned(database, 200) for _ in range(5)))
    assert [found[-1] for (found,) in results] == ["effects_20300720"] * 5


async def test_effects_begun_while_partitions_change_are_begun_once(database):
    """Two executors are given the same effects all the time; one of them may call, not both."""
    ledgers = [Ledger(Secret(database)) for _ in range(2)]
    for each in ledgers:
        await each.start()
    fresh: dict[str, int] = {}

    async def begin(ledger: Ledger, key: str) -> None:
        if await ledger.begin("ws", key) == Fresh():
            fresh[key] = fresh.get(key, 0) + 1

    keys = [f"{secrets.token_hex(18)}{number:04d}" for number in range(600)]
    pairs = [begin(each, key) for key in keys for each in ledgers]
    await asyncio.gather(turned(database, 300, 310, 320), *pairs)
    for each in ledgers:
        await each.close()
    assert fresh == dict.fromkeys(keys, 1)
