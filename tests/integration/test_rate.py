"""The control API's rate limit on a real Redis-protocol server."""

import asyncio
import math
import re
import time

import httpx
import redis.asyncio
from fastapi import FastAPI
from starlette.datastructures import Headers

from control.api.rate import RateLimit, Window
from control.doors import Person
from control.throttle import Rule, Throttle
from schemas.access import Caller
from schemas.errors import Unauthenticated
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


async def test_window_slides_instead_of_beginning_anew(stack):
    """What was used in the hour before counts with the share of it that is not over yet."""
    window = Window(Secret(stack.valkey), most=1_000, window_s=3_600)
    workspace = mint("ws")
    async with redis.asyncio.Redis.from_url(stack.valkey) as client:
        seconds, micros = await client.time()
        moment = (seconds + micros / 1e6) / 3_600
        before, part = math.floor(moment) - 1, moment % 1
        await client.set(f"nhood:rate:{{{workspace}}}:{before}", 1_000)
    verdict = await window.count(workspace)
    await window.close()
    # A second or two may have passed since the server was asked for its time.
    expected = part * 1_000
    if expected < 1:
        assert not verdict.allowed
    else:
        assert expected - 2 <= verdict.left <= expected + 2


async def test_requests_at_the_same_time_are_all_counted(stack):
    windows = [Window(Secret(stack.valkey), most=20, window_s=60) for _ in range(3)]
    workspace = mint("ws")
    found = await asyncio.gather(
        *(window.count(workspace) for window in windows for _ in range(20))
    )
    assert sum(verdict.allowed for verdict in found) == 20
    for window in windows:
        await window.close()


def _app(window, doors):
    app = FastAPI()

    @app.get("/api/v1/x")
    async def x() -> str:
        return "x"

    app.add_middleware(RateLimit, doors=doors, window=window)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")


class Known:
    """Stands for the doors: who calls is said by the header alone."""

    async def who(self, scope):
        name = Headers(scope=scope).get("x-name")
        if name is None:
            raise Unauthenticated("Nobody.")
        if name.startswith("per_"):
            return Person(name, "ses_1")
        return Caller(name, "live", "key_1")


async def test_answers_carry_the_headers_of_the_draft(stack):
    window = Window(Secret(stack.valkey), most=2, window_s=60)
    async with _app(window, Known()) as client:
        for kind, name in (("workspace", mint("ws")), ("person", mint("per"))):
            headers = {"x-name": name}
            answers = [await client.get("/api/v1/x", headers=headers) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            for answer, left in zip(answers, (1, 0, 0), strict=True):
                assert answer.headers["ratelimit-policy"] == f'"{kind}";q=2;w=60'
                told = re.fullmatch(rf'"{kind}";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
                assert int(told[1]) == left
                assert 0 < int(told[2]) <= 60
            refused = answers[-1]
            assert refused.json()["code"] == "rate_limited"
            assert refused.headers["retry-after"] == told[2]
    await window.close()


async def test_nobody_and_redis_being_away_are_not_limited(stack):
    window = Window(Secret(stack.valkey), most=1, window_s=60)
    away = Window(Secret("redis://127.0.0.1:9/0"), most=1, window_s=60)
    async with _app(window, Known()) as client:
        assert {(await client.get("/api/v1/x")).status_code for _ in range(3)} == {200}
    async with _app(away, Known()) as client:
        headers = {"x-name": mint("ws")}
        answers = [await client.get("/api/v1/x", headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert "ratelimit" not in answers[0].headers
    await window.close()
    await away.close()


async def test_tries_are_counted_over_all_processes(stack):
    rule, who = Rule("test", 3, 60), mint("per")
    one, other = Throttle(Secret(stack.valkey)), Throttle(Secret(stack.valkey))
    waits = [await each.take(rule, who) for each in (one, other, one, other)]
    assert waits[:3] == [0, 0, 0]
    assert 0 < waits[3] <= 60
    await one.give_back(rule, who)
    await one.give_back(rule, who)
    assert await other.take(rule, who) == 0
    await one.clear(rule, who)
    assert await other.take(rule, who) == 0
    async with redis.asyncio.Redis.from_url(stack.valkey) as client:
        assert who not in str(await client.keys("nhood:try:test:*"))
    await one.close()
    await other.close()
