"""What the ledger answers to a command, in each state of its effect."""

import secrets

import pytest

from executors.runtime.ledger import Begun, Done, Fresh, Ledger, Waiting
from schemas.settings import Secret


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
