"""When a schedule is due, over changes of the clocks too."""

from datetime import datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.cron import Cron, CronError


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("expression", "zone", "after", "ticks"),
    [
        ("0 9 * * MON-FRI", "UTC", "2026-01-02T10:00Z", ["2026-01-05T09:00Z", "2026-01-06T09:00Z"]),
        ("0 9 * * *", "Asia/Tokyo", "2026-01-02T00:00Z", ["2026-01-03T00:00Z"]),
        ("*/15 * * * * *", "UTC", "2026-01-01T00:00:01Z", ["2026-01-01T00:00:15Z"]),
        # The clocks go forward from 2 to 3: what falls into the gap is due right after it, once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z",
         ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        # The clocks go back from 3 to 2: a fixed hour comes once.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z",
         ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
    ],
)  # fmt: skip
def test_ticks_follow_the_zone(expression, zone, after, ticks):
    cron, now = Cron.parse(expression, zone), us(after)
    for tick in ticks:
        found = cron.after(now)
        assert found == us(tick)
        assert cron.has(found)
        now = found


@pytest.mark.parametrize(
    ("expression", "zone", "wrong"),
    [
        ("every day", "UTC", "cron"),
        ("* * * *", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("0 0 31 4 *", "UTC", "cron"),
        ("* * * * *", "Mars/Base", "timezone"),
        ("* * * * *", "../../etc/passwd", "timezone"),
    ],
)
def test_schedule_that_makes_no_sense_is_refused(expression, zone, wrong):
    with pytest.raises(CronError) as caught:
        Cron.parse(expression, zone)
    assert caught.value.field == wrong


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 29 2 *", "15 1-4 * 3,10 *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(1_770_000_000, 1_800_000_000),
)
def test_looking_back_finds_what_looking_ahead_found(expression, zone, second):
    cron, now = Cron.parse(expression, zone), second * 1_000_000
    ahead = [now]
    for _ in range(3):
        ahead.append(cron.after(ahead[-1]))
    back = list(islice(cron.before(ahead[-1]), 3))
    assert back == ahead[:0:-1]
