"""The control API's rate limit on a real Redis-protocol server."""

import asyncio
import time

from control.api.rate import Window
from schemas.settings import Secret
from wire.clock import mint


async def test_window_refuses_what_is_over_its_limit_and_says_when(stack):
    window = Window(Secret(stack.valkey), most=5, window_s=60)
    workspace = mint("ws")
    found = await asyncio.gather(*(window.count(workspace) for _ in range(12)))
    await window.close()
    assert sum(verdict.allowed for verdict in found if verdict) == 5
    refused = [verdict for verdict in found if verdict and not verdict.allowed]
    assert len(refused) == 7
    assert all(1 <= verdict.seconds <= 60 for verdict in refused)


async def test_two_gateways_share_one_window(stack):
    one = Window(Secret(stack.valkey), most=3, window_s=60)
    other = Window(Secret(stack.valkey), most=3, window_s=60)
    workspace = mint("ws")
    left = [(await each.count(workspace)).left for each in (one, other, one)]
    assert left == [2, 1, 0]
    assert not (await other.count(workspace)).allowed
    await one.close()
    await other.close()


async def test_workspaces_do_not_share_a_window(stack):
    window = Window(Secret(stack.valkey), most=1, window_s=60)
    assert (await window.count(mint("ws"))).allowed
    assert (await window.count(mint("ws"))).allowed
    await window.close()


async def test_redis_that_is_away_refuses_nobody_and_costs_little():
    window = Window(Secret("redis://127.0.0.1:9/0"))
    began = time.monotonic()
    assert [await window.count("ws") for _ in range(50)] == [None] * 50
    assert time.monotonic() - began < 5
    await window.close()


async def test_without_an_address_nobody_is_limited():
    window = Window(Secret(""))
    assert await window.count("ws") is None
    await window.close()
