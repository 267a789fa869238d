"""Waiting times in every form that vendors use."""

import pytest

from executors.core.delay import DELAY_MAX_S, parse_delay, vendor_now

NOW = 1_760_000_000.0  # 2025-10-09T08:53:20Z


@pytest.mark.parametrize(
    ("value", "form", "seconds"),
    [
        ("30", "auto", 30.0),
        (30, "auto", 30.0),
        ("1.5", "auto", 1.5),
        ("0", "auto", 0.0),
        ("-5", "auto", 0.0),
        ("Thu, 09 Oct 2025 08:54:00 GMT", "auto", 40.0),
        ("Thursday, 09-Oct-25 08:54:00 GMT", "auto", 40.0),
        ("Thu, 09 Oct 2025 08:00:00 GMT", "auto", 0.0),
        ("2025-10-09T08:54:00Z", "auto", 40.0),
        ("2025-10-09T10:54:00+02:00", "iso", 40.0),
        ("2025-10-09T08:54Z", "iso", 40.0),
        ("User-rate limit exceeded.  Retry after 2025-10-09T08:54:00.000Z", "iso", 40.0),
        ("User-rate limit exceeded.", "iso", None),
        ("1760000040", "auto", 40.0),
        (1760000040, "epoch", 40.0),
        ("1760000040000", "auto", 40.0),
        ("1760000040500", "epoch_ms", 40.5),
        ("100000000", "auto", DELAY_MAX_S),
        ("60", "seconds", 60.0),
        ("soon", "auto", None),
        ("", "auto", None),
        ("nan", "auto", None),
        ("inf", "auto", None),
        (True, "auto", None),
        (["30"], "auto", None),
        ("Thu, 99 Oct 2025 08:54:00 GMT", "auto", None),
    ],
)
def test_delay_is_read(value: object, form: str, seconds: float | None) -> None:
    assert parse_delay(value, form, NOW) == seconds  # type: ignore[arg-type]  # a table of texts


def test_vendors_own_clock_counts_where_it_is_told() -> None:
    headers = {"date": "Thu, 09 Oct 2025 08:50:00 GMT"}
    assert vendor_now(headers, NOW) == NOW - 200
    assert vendor_now({}, NOW) == NOW
    assert vendor_now({"date": "yesterday"}, NOW) == NOW
