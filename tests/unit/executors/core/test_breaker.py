"""Breakers: tables of calls, and the state after each."""

import pytest

from executors.core.breaker import CONNECTION, OPEN_MAX_S, PROBE_S, SHARED, Breaker

T = 1_000.0


def after(breaker: Breaker, calls: str, at: float = T, step: float = 0.0) -> str:
    """Tell it calls: `.` answered, `a`/`b` failed for connection a or b."""
    for call in calls:
        if call == ".":
            breaker.succeeded(at)
        else:
            breaker.failed(at, call, 0.5)
        at += step
    return breaker.state


@pytest.mark.parametrize(
    ("calls", "state"),
    [
        ("", "closed"),
        ("aaaa", "closed"),
        ("aaaaa", "open"),
        ("aaaa.aaaa", "closed"),
        ("aaaa.aaaaa", "open"),
        ("." * 1_000 + "aaaaa", "open"),
    ],
)
def test_breaker_of_a_connection_opens_after_five_failures_in_a_row(calls, state):
    assert after(Breaker(CONNECTION), calls) == state


@pytest.mark.parametrize(
    ("calls", "state"),
    [
        ("ab" * 9 + "a", "closed"),  # 19 calls are too few to judge
        ("ab" * 10, "open"),
        ("a" * 50, "closed"),  # one account alone never stops the others
        ("a" * 50 + "b", "open"),
        ("." * 12 + "ab" * 5 + "a", "closed"),  # 11 of 23
        ("." * 11 + "ab" * 5 + "a", "open"),  # 11 of 22
        ("." * 100 + "ab" * 20, "closed"),
    ],
)
def test_breaker_of_a_host_opens_when_half_of_the_calls_of_two_connections_fail(calls, state):
    assert after(Breaker(SHARED), calls) == state


def test_failures_long_ago_do_not_count():
    assert after(Breaker(SHARED), "ab" * 30, step=2) == "closed"
    assert after(Breaker(SHARED), "ab" * 30, step=1) == "open"


def opened() -> Breaker:
    breaker = Breaker(CONNECTION)
    after(breaker, "aaaaa")
    return breaker


def test_open_breaker_waits_and_lets_one_probe_through():
    breaker = opened()
    assert breaker.wait(T) == 5
    assert breaker.wait(T + 4.9) > 0
    assert breaker.wait(T + 5) == 0
    breaker.take(T + 5)
    assert breaker.state == "half_open"
    assert breaker.wait(T + 5) == PROBE_S
    breaker.succeeded(T + 6)
    assert (breaker.state, breaker.wait(T + 6)) == ("closed", 0)


def test_probe_that_fails_doubles_the_pause_up_to_a_minute():
    breaker, at, pauses = opened(), T, []
    for _ in range(6):
        pauses.append(breaker.wait(at))
        at += pauses[-1]
        breaker.take(at)
        breaker.failed(at, "a", 0.5)
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert max(pauses) == OPEN_MAX_S


def test_first_pause_is_short_again_after_it_was_closed():
    breaker = opened()
    breaker.take(T + 5)
    breaker.failed(T + 5, "a", 0.5)
    breaker.take(T + 15)
    breaker.succeeded(T + 15)
    after(breaker, "aaaaa", T + 16)
    assert breaker.wait(T + 16) == 5


@pytest.mark.parametrize(("roll", "pause"), [(0.0, 4.5), (0.5, 5.0), (1.0, 5.5)])
def test_pauses_of_processes_differ(roll, pause):
    breaker = Breaker(CONNECTION)
    for _ in range(5):
        breaker.failed(T, "a", roll)
    assert breaker.wait(T) == pytest.approx(pause)


def test_calls_from_before_it_opened_change_nothing():
    breaker = opened()
    breaker.succeeded(T + 1)
    breaker.failed(T + 2, "a", 0.5)
    assert (breaker.state, breaker.wait(T + 2)) == ("open", 3)


def test_probe_that_was_given_up_makes_room_for_the_next():
    breaker = opened()
    breaker.take(T + 5)
    breaker.cancelled()
    assert (breaker.state, breaker.wait(T + 5)) == ("open", 0)


def test_probe_that_never_comes_back_is_replaced():
    breaker = opened()
    breaker.take(T + 5)
    assert breaker.wait(T + 5 + PROBE_S) == 0


def test_cancelled_call_of_a_closed_breaker_counts_nothing():
    breaker = Breaker(CONNECTION)
    after(breaker, "aaaa")
    breaker.cancelled()
    assert after(breaker, "a") == "open"
