"""The driver over a scripted transport: what is sent, how often, and what is told of it."""

import asyncio
import inspect
from collections.abc import Callable

import httpx
import orjson
import pytest

from executors.core.result import Carried, tried_again
from executors.runtime.driver import Driver
from schemas.errors import Conflict, DependencyDown, NeighbourhoodError
from schemas.events import Payload, RequestStep
from schemas.provider import load_catalogue
from schemas.settings import Secret, Settings
from token_vault.core.headers import Proof
from token_vault.refresher import NeedsReauth
from token_vault.tokens import Credential
from wire.calls import Answer
from wire.clock import now_us

SLACK = load_catalogue().get("slack")
SEND = SLACK.action("send_message")
SENT = {"ok": True, "channel": "C1", "ts": "1503435956.000247", "message": {"text": "hi"}}


class FakeTokens:
    """A vault whose credential is `token-1` until it is refreshed; or one that refuses."""

    def __init__(
        self,
        refuses: NeighbourhoodError | None = None,
        refuses_refresh: NeighbourhoodError | None = None,
    ) -> None:
        self.version = 1
        self.refuses = refuses
        self.refuses_refresh = refuses_refresh
        self.taken: list[int] = []

    async def resolve(self, workspace, mode, provider, user, connection_id=None) -> Credential:
        if self.refuses is not None:
            raise self.refuses
        proof = Proof("Authorization", Secret(f"Bearer token-{self.version}"))
        return Credential(workspace, "conn_1", provider, mode, proof, {}, self.version)

    async def refreshed(self, credential: Credential) -> Credential:
        if self.refuses_refresh is not None:
            raise self.refuses_refresh
        self.version += 1
        return credential

    def accepted(self, credential: Credential) -> None:
        self.taken.append(credential.version)


def command(action: str = "send_message", mode: str = "live", **more: object) -> RequestStep:
    values: dict = {
        "workspace_id": "ws", "execution_id": "ex", "workflow_id": "wf", "version": 1,
        "step_id": "s", "loop_index": 0, "effect_key": "e" * 40, "provider": "slack",
        "action": action, "params": Payload(orjson.dumps({"channel": "C1", "text": "hi"})),
        "mode": mode, "user": "u", "connection_id": None, "order_key": None, "max_attempts": 3,
        "retry_delay_ms": 1, "retry_max_delay_ms": 2, "timeout_ms": 500, "on_unknown": "retry",
        "state": Payload(b"{}"), "requested_at_us": 1,
    }  # fmt: skip
    return RequestStep(**{**values, **more})


class ScriptedCalls:
    """A network that answers by a function."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answer = answer
        self.seen: list[httpx.Request] = []

    async def send(self, method, url, headers, content) -> Answer:
        request = httpx.Request(method, url, headers=headers, content=content)
        self.seen.append(request)
        made = self.answer(request)
        found = await made if inspect.isawaitable(made) else made
        return Answer(found.status_code, dict(found.headers), found.content)


async def run(
    answer: Callable[[httpx.Request], httpx.Response],
    step: RequestStep | None = None,
    tokens: FakeTokens | None = None,
) -> tuple[Carried, list[httpx.Request]]:
    step = step or command()
    calls = ScriptedCalls(answer)
    driver = Driver(calls, tokens or FakeTokens(), Settings())
    carried = await driver.run(step, SLACK, SLACK.action(step.action), "00-a-b-01")
    return carried, calls.seen


async def test_call_carries_token_body_and_trace():
    carried, (request,) = await run(lambda _: httpx.Response(200, json=SENT))
    assert carried.outcome.kind == "succeeded"
    assert str(request.url) == "https://slack.com/api/chat.postMessage"
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["traceparent"] == "00-a-b-01"
    assert orjson.loads(request.content)["text"] == "hi"


async def test_request_carries_the_proof_that_it_names_and_its_answer_does_not_tell_it():
    class TwoKeys(FakeTokens):
        async def resolve(self, workspace, mode, provider, user, connection_id=None) -> Credential:
            others = {"track": ("Authorization", Secret("Basic c2l0ZTprZXk="))}
            proof = Proof("Authorization", Secret("Bearer app-1"), others=others)
            known = spec.connection({})
            return Credential(workspace, "conn_1", provider, mode, proof, known, 1)

    spec = load_catalogue().get("customer_io")
    told = httpx.Response(400, json={"meta": {"error": "bad key c2l0ZTprZXk="}})
    calls = ScriptedCalls(lambda _: told)
    driver = Driver(calls, TwoKeys(), Settings())
    params = Payload(orjson.dumps({"identifier": "ann-1", "email": "ann@example.com"}))
    step = command("identify_person", params=params)
    carried = await driver.run(step, spec, spec.action(step.action), "00-a-b-01")
    (request,) = calls.seen
    assert str(request.url) == "https://track.customer.io/api/v1/customers/ann-1"
    assert request.headers["authorization"] == "Basic c2l0ZTprZXk="
    assert "c2l0ZTprZXk=" not in repr(carried)


async def test_test_mode_calls_the_sandbox():
    _, (request,) = await run(lambda _: httpx.Response(200, json=SENT), command(mode="test"))
    assert str(request.url) == f"{Settings().sandbox_base}/slack/api/chat.postMessage"


async def test_what_is_told_of_a_call_holds_no_credential():
    carried, _ = await run(lambda _: httpx.Response(200, json=SENT))
    assert "token-1" not in repr(carried)
    assert carried.request is not None
    assert carried.request["body"]["text"] == "hi"
    assert carried.response == {"status": 200, "body": SENT}


async def test_throttled_call_is_tried_again():
    answers = iter([httpx.Response(429, headers={"retry-after": "0"}, json={"ok": False}),
                    httpx.Response(200, json=SENT)])  # fmt: skip
    carried, seen = await run(lambda _: next(answers))
    assert carried.outcome.kind == "succeeded"
    assert [attempt.outcome for attempt in carried.attempts] == ["throttled", "succeeded"]
    assert len(seen) == 2


async def test_attempts_are_bounded():
    carried, seen = await run(lambda _: httpx.Response(503))
    assert carried.outcome.kind == "unavailable"
    assert len(seen) == 3


async def test_refusal_is_not_repeated():
    carried, seen = await run(
        lambda _: httpx.Response(200, json={"ok": False, "error": "channel_not_found"})
    )
    assert (carried.outcome.kind, carried.outcome.code) == ("rejected", "channel_not_found")
    assert len(seen) == 1


async def test_refused_token_is_refreshed_once_and_the_call_repeated():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == "Bearer token-1":
            return httpx.Response(200, json={"ok": False, "error": "token_expired"})
        return httpx.Response(200, json=SENT)

    carried, seen = await run(answer)
    assert carried.outcome.kind == "succeeded"
    assert len(seen) == 2


async def test_token_refused_for_good_is_never_a_success():
    carried, seen = await run(
        lambda _: httpx.Response(200, json={"ok": False, "error": "token_revoked"})
    )
    assert carried.outcome.kind == "unauthorised"
    assert len(seen) == 2


REVOKED = {"ok": False, "error": "token_revoked"}


async def test_token_that_the_vendor_took_is_told_to_the_vault():
    tokens = FakeTokens()
    await run(lambda _: httpx.Response(200, json=SENT), tokens=tokens)
    assert tokens.taken == [1]
    await run(lambda _: httpx.Response(200, json=REVOKED), tokens=tokens)
    assert tokens.taken == [1]


async def test_dead_connection_is_told_so_that_the_step_can_wait():
    dead = NeedsReauth("Connect again.", "conn_9")
    carried, _ = await run(
        lambda _: httpx.Response(200, json=REVOKED), tokens=FakeTokens(refuses_refresh=dead)
    )
    assert (carried.outcome.code, carried.dead_connection) == ("needs_reauth", "conn_9")
    carried, seen = await run(lambda _: httpx.Response(200), tokens=FakeTokens(dead))
    assert (carried.outcome.kind, carried.dead_connection, seen) == ("rejected", "conn_9", [])


async def test_refused_token_that_cannot_be_refreshed_just_now_is_tried_later():
    down = DependencyDown("Slack is down.", code="refresh_failed")
    carried, seen = await run(
        lambda _: httpx.Response(200, json=REVOKED), tokens=FakeTokens(refuses_refresh=down)
    )
    assert (carried.outcome.kind, carried.outcome.code) == ("unavailable", "refresh_failed")
    assert carried.dead_connection is None
    assert len(seen) == 3


async def test_reset_after_sending_is_unknown_and_not_repeated_when_the_step_says_so():
    def reset(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    carried, seen = await run(reset, command(on_unknown="fail"))
    assert carried.outcome.kind == "unknown"
    assert len(seen) == 1


async def test_reset_of_a_read_is_repeated():
    def reset(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    step = command("get_channel", on_unknown="fail", params=Payload(b'{"channel": "C1"}'))
    carried, seen = await run(reset, step)
    assert carried.outcome.kind == "unavailable"
    assert len(seen) == 3


async def test_connection_refused_is_never_unknown():
    def refused(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    carried, seen = await run(refused, command(on_unknown="fail"))
    assert carried.outcome.kind == "unavailable"
    assert len(seen) == 3


async def test_wrong_params_are_refused_before_anything_is_sent():
    carried, seen = await run(
        lambda _: httpx.Response(200, json=SENT), command(params=Payload(b'{"chanel": "C1"}'))
    )
    assert carried.outcome.code == "invalid_params"
    assert seen == []


@pytest.mark.parametrize(
    ("error", "kind", "attempts"),
    [
        (Conflict("Two connections.", code="ambiguous_connection"), "rejected", 1),
        (DependencyDown("The database is down."), "unavailable", 3),
    ],
)
async def test_vault_that_gives_no_credential(error, kind, attempts):
    carried, seen = await run(lambda _: httpx.Response(200), tokens=FakeTokens(error))
    assert carried.outcome.kind == kind
    assert carried.outcome.code == error.code
    assert len(carried.attempts) == attempts
    assert seen == []


async def test_slow_vendor_is_cut_off_at_the_timeout():
    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    driver = Driver(ScriptedCalls(never), FakeTokens(), Settings())
    carried = await driver.run(command(timeout_ms=20, max_attempts=1), SLACK, SEND)
    assert carried.outcome.kind == "unknown"
    assert "20 ms" in carried.outcome.detail


async def test_wait_too_long_for_memory_is_left_to_a_timer():
    busy = httpx.Response(429, headers={"retry-after": "3600"}, json={"ok": False})
    carried, seen = await run(lambda _: busy)
    assert len(seen) == 1
    assert carried.later_ms is not None
    assert 3_600_000 <= carried.later_ms <= 3_800_000


async def test_step_that_came_back_counts_the_attempts_before():
    busy = httpx.Response(429, headers={"retry-after": "3600"}, json={"ok": False})
    first, _ = await run(lambda _: busy)
    again = tried_again(command(), first)
    second, _ = await run(lambda _: busy, tried_again(command(), first))
    third, _ = await run(lambda _: busy, tried_again(again, second))
    assert [len(carried.attempts) for carried in (first, second, third)] == [1, 2, 3]
    assert second.later_ms is not None
    assert third.later_ms is None
    assert third.outcome.kind == "throttled"
    assert [attempt.number for attempt in third.attempts] == [1, 2, 3]


async def test_step_with_an_order_key_gives_up_rather_than_be_overtaken():
    busy = httpx.Response(429, headers={"retry-after": "3600"}, json={"ok": False})
    carried, _ = await run(lambda _: busy, command(order_key="k"))
    assert carried.later_ms is None
    assert carried.outcome.kind == "throttled"


async def test_nothing_is_sent_after_the_deadline():
    carried, seen = await run(
        lambda _: httpx.Response(200, json=SENT), command(deadline_us=now_us() - 1)
    )
    assert seen == []
    assert carried.outcome.code == "step_deadline"
