"""The ledger that `tests/sim` uses answers as the one in PostgreSQL does."""

import random

import pytest

from executors.runtime.ledger import Ledger
from schemas.settings import Secret
from tests.sim.ledger import MemoryLedger

WS = "ws_00000000000000000000000000"


@pytest.mark.parametrize("seed", range(5))
async def test_both_ledgers_give_the_same_answers(database: str, seed: int) -> None:
    dice = random.Random(seed)
    real, memory = Ledger(Secret(database)), MemoryLedger()
    await real.start()
    try:
        for number in range(150):
            key = f"{seed}-{dice.randrange(8)}"
            match dice.randrange(4):
                case 0 | 1:
                    again = dice.randrange(2) == 0
                    wanted = await real.begin(WS, key, again=again)
                    assert await memory.begin(WS, key, again=again) == wanted, number
                case 2:
                    for ledger in (real, memory):
                        await ledger.finish(key, b"%d" % number)
                case 3:
                    for ledger in (real, memory):
                        await ledger.wait(key)
    finally:
        await real.close()
