"""Reads how long a vendor asks to wait, in all the forms that vendors use; pure."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from schemas.provider import DelayForm

DELAY_MAX_S: Final = 24 * 3600.0
"""Longest gap between attempts (design §6); what asks for more is asked again after a day."""

_EPOCH_MIN: Final = 1e9  # a number above it is a time, not a wait: 1e9 s are 31 years
_EPOCH_MS_MIN: Final = 1e12
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)")


def parse_delay(value: object, form: DelayForm, now_s: float) -> float | None:
    """Give the wait in seconds, from 0 to DELAY_MAX_S; None where it cannot be read.

    `Retry-After` has two forms, seconds and an HTTP date (RFC 9110 §10.2.3); vendors add fractions,
    times since 1970 in seconds or milliseconds, and ISO 8601 times. `auto` tells them apart; `iso`
    finds the time inside a sentence as well ("Retry after 2026-01-01T00:00:00.000Z").

    Args:
        value: As the vendor sent it.
        form: Which form it is in.
        now_s: UTC, seconds since 1970.
    """
    number = _number(value)
    moment: float | None
    if number is None and form == "iso" and isinstance(value, str):
        found = _ISO.search(value)
        value = found.group() if found else value
    if number is not None:
        moment = _moment(number, form)
        wait = number if moment is None else moment - now_s
    else:
        moment = _time(str(value).strip(), form)
        if moment is None:
            return None
        wait = moment - now_s
    return min(max(wait, 0.0), DELAY_MAX_S)


def vendor_now(headers: Mapping[str, str], received_at_s: float) -> float:
    """Give the vendor's own time where it tells it (Date), else ours: clocks differ."""
    told = _time(headers["date"], "http_date") if "date" in headers else None
    return received_at_s if told is None else told


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None


def _moment(number: float, form: DelayForm) -> float | None:
    """Give the time that a number stands for, None where it stands for a wait."""
    if form == "epoch_ms" or (form == "auto" and number >= _EPOCH_MS_MIN):
        return number / 1000
    if form == "epoch" or (form == "auto" and number >= _EPOCH_MIN):
        return number
    return None


def _time(text: str, form: DelayForm) -> float | None:
    for name, read in (("http_date", parsedate_to_datetime), ("iso", datetime.fromisoformat)):
        if form not in ("auto", name):
            continue
        try:
            moment = read(text)
        except ValueError:
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
