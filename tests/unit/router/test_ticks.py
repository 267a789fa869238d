"""Which times of a schedule are made up for."""

import pytest

from router.core.ticks import CATCH_UP_MAX, due_ticks, is_in_force
from schemas.cron import Cron

MINUTE = 60_000_000
BASE = 1_790_000_040_000_000  # a whole minute
EVERY_MINUTE = Cron.parse("* * * * *", "UTC")


@pytest.mark.parametrize(
    ("catch_up", "late_minutes", "expected"),
    [
        ("none", 0, [0]),
        ("last", 0, [0]),
        ("all", 0, [0]),
        ("none", 10, [9, 10]),
        ("last", 10, [9, 10]),
        ("all", 10, [*range(11)]),
        ("none", 2.9, [2]),
        ("all", 500, [*range(500 - CATCH_UP_MAX - 1, 501)]),
    ],
)
def test_missed_times_follow_the_policy(catch_up, late_minutes, expected):
    now = BASE + int(late_minutes * MINUTE)
    found = due_ticks(EVERY_MINUTE, catch_up, BASE, now)
    assert [(tick - BASE) // MINUTE for tick in found] == expected


@pytest.mark.parametrize(("catch_up", "count"), [("none", 0), ("last", 1), ("all", 5)])
def test_times_that_were_all_missed(catch_up, count):
    daily = Cron.parse("34 14 * * *", "UTC")
    first = daily.after(BASE)
    now = first + 4 * 1440 * MINUTE + 5 * MINUTE
    found = due_ticks(daily, catch_up, first, now)
    assert len(found) == count
    assert found[-1:] in ([], [first + 4 * 1440 * MINUTE])


def test_timer_stays_while_it_is_the_next_time_of_the_schedule():
    following = EVERY_MINUTE.after(BASE)
    hourly = Cron.parse("0 * * * *", "UTC")
    assert is_in_force(EVERY_MINUTE, following, BASE)
    assert is_in_force(EVERY_MINUTE, BASE - 5 * MINUTE, BASE)
    assert not is_in_force(EVERY_MINUTE, following + MINUTE, BASE)
    assert not is_in_force(EVERY_MINUTE, following + 1, BASE)
    assert not is_in_force(hourly, following, BASE) or hourly.has(following)
