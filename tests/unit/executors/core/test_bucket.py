"""Token buckets: tables of what happens when, and what may go then."""

import pytest

from executors.core.bucket import PENALTY_MAX_S, Bucket

START = 1_000.0


def bucket(rate: float = 10, per: float = 1, burst: float | None = 5) -> Bucket:
    return Bucket.full(rate, per, burst, START)


def goes(one: Bucket, at: float, most: int = 10_000) -> int:
    """How many calls go at one moment."""
    count = 0
    while count < most and one.wait(START + at) == 0:
        one.take(START + at)
        count += 1
    return count


@pytest.mark.parametrize(
    ("rate", "per", "burst", "moments"),
    [
        (10, 1, 5, [(0, 5), (0.1, 1), (0.35, 2), (10, 5)]),
        (1, 1, 5, [(0, 5), (1, 1), (1.5, 0), (2, 1), (100, 5)]),
        (20, 60, None, [(0, 2), (2.9, 0), (3, 1)]),
        (30, 1, None, [(0, 30), (0.1, 3)]),
        (200, 60, 20, [(0, 20), (0.3, 1), (6, 19)]),
        (0, 1, None, [(0, 10_000)]),
    ],
)
def test_calls_that_go_at_each_moment(rate, per, burst, moments):
    one = bucket(rate, per, burst)
    for at, expected in moments:
        assert goes(one, at) == expected, at


def test_wait_is_exactly_until_the_next_token():
    one = bucket(rate=4, burst=1)
    goes(one, 0)
    assert one.wait(START) == pytest.approx(0.25)
    assert one.wait(START + 0.2) == pytest.approx(0.05)
    assert goes(one, 0.25) == 1


def test_rate_over_a_long_time_is_the_declared_one():
    one = bucket(rate=50, per=60, burst=5)
    total = sum(goes(one, at / 10) for at in range(6_000))
    assert total == pytest.approx(500 + 5, abs=1)


@pytest.mark.parametrize(
    ("told", "moments"),
    [
        ((None, 2, None), [(0, 2), (0.1, 1)]),  # others used the rest
        ((None, 0, 30), [(0, 0), (29.9, 0), (30, 5)]),
        ((None, 0, None), [(0, 0), (0.1, 1)]),
        ((None, 1_000, 30), [(0, 5)]),  # never more than its own burst
        ((100, None, None), [(0, 5), (0.01, 1), (0.05, 4)]),  # this account may do more
        ((2, None, None), [(0, 5), (0.4, 0), (0.5, 1)]),  # and this one less
        ((60_000, None, None), [(0, 5), (0.1, 1)]),  # a day's limit is not a second's
        ((0, None, None), [(0, 5), (0.1, 1)]),
    ],
)
def test_headers_go_before_the_file(told, moments):
    one = bucket()
    one.told(START, *told)
    for at, expected in moments:
        assert goes(one, at) == expected, at


@pytest.mark.parametrize("seconds", [0.5, 30, 3_600])
def test_retry_after_stops_everything_until_then(seconds):
    one = bucket()
    one.throttled(START, seconds)
    assert goes(one, seconds - 0.01) == 0
    assert goes(one, seconds) == 5


def test_retry_after_is_never_shortened():
    one = bucket()
    one.throttled(START, 30)
    one.throttled(START, 1)
    assert one.wait(START) == 30


def test_vendor_that_does_not_say_for_how_long_is_left_alone_twice_as_long_each_time():
    one, at, pauses = bucket(), START, []
    for _ in range(9):
        one.throttled(at, None)
        pauses.append(one.wait(at))
        at += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(pauses) == PENALTY_MAX_S


def test_refusals_of_one_moment_are_one_guess():
    one = bucket()
    for _ in range(20):
        one.throttled(START, None)
    assert one.wait(START) == 1


def test_bucket_without_a_rate_is_blocked_all_the_same():
    one = bucket(rate=0)
    one.throttled(START, 3)
    assert (goes(one, 2.9), goes(one, 3, most=7)) == (0, 7)


def test_call_that_was_not_made_is_given_back():
    one = bucket()
    assert goes(one, 0) == 5
    one.give_back()
    assert goes(one, 0) == 1


def test_clock_that_stands_still_gives_nothing_away():
    one = bucket()
    assert goes(one, 0) == 5
    assert goes(one, 0) == 0
    assert goes(one, -5) == 0
