"""Gates: who passes, who waits, in which order, and for whom a vendor's trouble counts."""

import asyncio
from dataclasses import dataclass, field

import pytest

from executors.core.outcome import Rejected, Succeeded, Throttled, Unavailable
from executors.runtime.limits import Limits
from schemas.provider import load_catalogue
from schemas.settings import ProviderOverride, Settings

CATALOGUE = load_catalogue()
SLACK, ZENDESK = CATALOGUE.get("slack"), CATALOGUE.get("zendesk")
DOWN = Unavailable(code="http_503", status=503)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Account:
    connection_id: str
    mode: str = "live"
    variables: dict[str, str] = field(default_factory=lambda: {"subdomain": "acme"})


ONE, OTHER = Account("conn_1"), Account("conn_2")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock) -> Limits:
    return Limits(Settings(), clock)


def passing(gate, most: int = 1_000) -> int:
    count = 0
    while count < most and gate.passes():
        count += 1
    return count


def test_declared_rate_holds_per_action_and_connection(limits):
    assert passing(limits.gate(SLACK, "send_message", ONE)) == 5
    assert passing(limits.gate(SLACK, "send_message", OTHER)) == 5
    assert passing(limits.gate(SLACK, "get_user", ONE)) > 0
    assert passing(limits.gate(SLACK, "send_message", ONE)) == 0


def test_actions_of_a_connection_share_what_is_declared_per_connection(limits):
    assert passing(limits.gate(ZENDESK, "create_ticket", ONE)) == 20
    assert passing(limits.gate(ZENDESK, "get_ticket", ONE)) == 0
    assert passing(limits.gate(ZENDESK, "get_ticket", OTHER)) == 20


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        (Settings(), "test"),
        (Settings(providers={"slack": ProviderOverride(base_url="http://127.0.0.1:1")}), "live"),
    ],
)
def test_sandbox_and_named_places_are_paced_by_their_answers_only(settings, mode):
    gate = Limits(settings).gate(SLACK, "send_message", Account("c", mode))
    assert passing(gate, 100) == 100
    gate.throttled(30)
    assert not gate.passes()


def test_remaining_and_reset_of_an_answer_are_learned(limits, clock):
    gate = limits.gate(ZENDESK, "create_ticket", ONE)
    gate.learn({"ratelimit-limit": "700", "ratelimit-remaining": "0", "ratelimit-reset": "42"}, 0.0)
    assert not gate.passes()
    clock.now += 41
    assert not gate.passes()
    clock.now += 1
    assert passing(gate) == 20
    clock.now += 1
    assert passing(gate) == 11  # 700 a minute, not the 200 that the file says
    assert limits.gate(ZENDESK, "create_ticket", OTHER).passes()


def test_headers_that_make_no_sense_change_nothing(limits):
    gate = limits.gate(ZENDESK, "create_ticket", ONE)
    for text in ("", "nan", "inf", "soon", "-"):
        gate.learn({"ratelimit-limit": text, "ratelimit-remaining": text}, 0.0)
    assert passing(gate) == 20


async def test_throttled_connection_makes_only_its_own_steps_wait(limits, clock):
    throttled = limits.gate(SLACK, "send_message", ONE)
    assert throttled.passes()
    throttled.ended(Throttled(code="ratelimited", status=429, retry_after_s=30))
    assert not throttled.passes()
    assert limits.gate(SLACK, "send_message", OTHER).passes()
    assert limits.gate(SLACK, "get_user", ONE).passes()  # Slack counts per method
    clock.now += 30
    assert throttled.passes()


async def test_waiting_calls_go_in_the_order_they_came(limits, clock):
    gate = limits.gate(SLACK, "send_message", ONE)
    passing(gate)
    order: list[int] = []

    async def call(number: int) -> None:
        assert await gate.wait(60)
        order.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(6)]
    while len(order) < 6:
        clock.now += 1
        gate._serve()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4, 5]
    assert not gate.is_busy


async def test_newcomer_does_not_overtake_those_who_wait(limits, clock):
    gate = limits.gate(SLACK, "send_message", ONE)
    passing(gate)
    waiting = asyncio.create_task(gate.wait(60))
    await asyncio.sleep(0)
    clock.now += 1
    assert not gate.passes()
    gate._serve()
    assert await waiting


async def test_wait_ends_when_its_time_is_up_and_takes_no_token(limits, clock):
    gate = limits.gate(SLACK, "send_message", ONE)
    passing(gate)
    assert not await gate.wait(0.01)
    clock.now += 1
    gate._serve()
    assert gate.passes()


async def test_cancelled_wait_leaves_no_trace(limits, clock):
    gate = limits.gate(SLACK, "send_message", ONE)
    passing(gate)
    task = asyncio.create_task(gate.wait(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    clock.now += 1
    gate._serve()
    assert gate.passes()


def fail(gate, times: int) -> None:
    for _ in range(times):
        gate.ended(DOWN)


async def test_failing_account_does_not_stop_the_others_of_its_host(limits):
    fail(limits.gate(ZENDESK, "create_ticket", ONE), 100)
    assert not limits.gate(ZENDESK, "get_ticket", ONE).passes()
    assert limits.gate(ZENDESK, "create_ticket", OTHER).passes()


async def test_failing_host_stops_its_accounts_and_one_probe_opens_it_again(limits, clock):
    for number in range(30):
        limits.gate(ZENDESK, "create_ticket", Account(f"conn_{number}")).ended(DOWN)
    elsewhere = limits.gate(
        ZENDESK, "create_ticket", Account("conn_x", variables={"subdomain": "b"})
    )
    healthy = limits.gate(ZENDESK, "create_ticket", Account("conn_new"))
    assert not healthy.passes()
    assert not elsewhere.passes()  # all that was heard of the provider was failures
    assert limits.gate(SLACK, "send_message", ONE).passes()
    clock.now += 6
    assert healthy.passes()
    assert not limits.gate(ZENDESK, "create_ticket", Account("conn_3")).passes()
    healthy.ended(Succeeded(status=200))
    assert limits.gate(ZENDESK, "create_ticket", Account("conn_4")).passes()


async def test_host_that_fails_among_healthy_ones_is_fenced_alone(limits):
    def gate(number: int, host: str):
        account = Account(f"{host}{number}", variables={"subdomain": host})
        return limits.gate(ZENDESK, "create_ticket", account)

    for number in range(60):
        gate(number, "good").ended(Succeeded(status=201))
        if number % 2:
            gate(number, "bad").ended(DOWN)
    assert not gate(0, "bad").passes()
    assert gate(0, "good").passes()


@pytest.mark.parametrize(
    "outcome",
    [
        Rejected(status=422, code="invalid"),
        Throttled(status=429, retry_after_s=0.0),
        Unavailable(status=409, code="conflict"),
    ],
)
async def test_answer_that_says_no_is_no_failure(limits, outcome):
    gate = limits.gate(ZENDESK, "create_ticket", ONE)
    for _ in range(50):
        gate.ended(outcome)
    assert gate.passes()


async def test_open_breaker_makes_a_call_wait_and_lets_it_go_after_the_probe(limits, clock):
    gate = limits.gate(SLACK, "get_user", Account("conn_1", "test"))
    fail(gate, 5)
    waiting = [asyncio.create_task(gate.wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert gate.is_busy
    clock.now += 6
    gate._serve()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    gate.answered()
    gate._serve()
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_gates_are_forgotten_when_there_are_too_many(limits, monkeypatch):
    monkeypatch.setattr("executors.runtime.limits.GATES_MAX", 10)
    for number in range(100):
        limits.gate(SLACK, "send_message", Account(f"conn_{number}"))
    assert len(limits._gates) == 10
    assert len(limits._buckets) == 10
