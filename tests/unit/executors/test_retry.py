"""Whether and when to try again, as a table of numbers."""

import pytest

from executors.core.outcome import (
    Rejected,
    Succeeded,
    Throttled,
    Unauthorised,
    Unavailable,
    Unknown,
)
from executors.core.retry import (
    ORDERED_WAIT_MAX_MS,
    WAIT_MAX_MS,
    Again,
    GiveUp,
    Policy,
    decide,
    longest_wait_ms,
)
from tests.unit.executors.test_driver import command

PLAIN = Policy(4, 500, 30_000, repeatable=False, on_unknown="retry")
CAREFUL = Policy(4, 500, 30_000, repeatable=False, on_unknown="fail")
LONG = Policy(20, 500, 1_000, repeatable=False, on_unknown="retry")
KEYED = Policy(4, 500, 30_000, repeatable=True, on_unknown="fail")


def most() -> float:
    return 1.0


@pytest.mark.parametrize(
    ("policy", "attempt", "outcome", "expected"),
    [
        (PLAIN, 1, Succeeded(), GiveUp()),
        (PLAIN, 1, Rejected(), GiveUp()),
        (PLAIN, 1, Unauthorised(), GiveUp()),
        (PLAIN, 1, Unavailable(), Again(500)),
        (PLAIN, 2, Unavailable(), Again(1_000)),
        (PLAIN, 3, Unavailable(), Again(2_000)),
        (PLAIN, 4, Unavailable(), GiveUp("attempts")),
        (PLAIN, 1, Throttled(retry_after_s=20), Again(21_000)),
        (PLAIN, 1, Throttled(retry_after_s=0), Again(500)),
        (PLAIN, 1, Throttled(retry_after_s=WAIT_MAX_MS / 1000), GiveUp("wait_too_long")),
        (PLAIN, 1, Unknown(), Again(500)),
        (CAREFUL, 1, Unknown(), GiveUp("on_unknown")),
        (KEYED, 1, Unknown(), Again(500)),
        (LONG, 9, Unavailable(), Again(1_000)),
    ],
)  # fmt: skip
def test_decision(policy, attempt, outcome, expected):
    assert decide(policy, attempt, outcome, most) == expected


def test_jitter_takes_at_most_half_of_the_gap():
    assert decide(PLAIN, 1, Unavailable(), lambda: 0.0) == Again(250)


HOUR_MS = 3_600_000
HOUR_US = HOUR_MS * 1_000


@pytest.mark.parametrize(
    ("order_key", "deadline_us", "began_us", "longest_ms"),
    [
        (None, None, 100 * HOUR_US, 24 * HOUR_MS),
        (None, None, 30 * HOUR_US, 2 * HOUR_MS),
        (None, 101 * HOUR_US, 100 * HOUR_US, HOUR_MS),
        ("k", None, 100 * HOUR_US, ORDERED_WAIT_MAX_MS),
    ],
)
def test_longest_wait_follows_order_deadline_and_age(order_key, deadline_us, began_us, longest_ms):
    step = command(order_key=order_key, deadline_us=deadline_us)
    assert longest_wait_ms(step, began_us, 100 * HOUR_US) == longest_ms
