"""When a schedule is due: cron expressions in a time zone, as cronie reads them.

Five fields (minute, hour, day of month, month, day of week), or six with seconds in front. Where
clocks go forward, what would fall into the gap happens right after it; where they go back, what
has a fixed hour happens once (https://github.com/cuu508/cronsim).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

EXPRESSION_MAX = 200  # characters
_US = 1_000_000
_MICROSECOND = timedelta(microseconds=1)


class CronError(Exception):
    """A schedule makes no sense.

    Attributes:
        field: `cron` or `timezone`.
        what: What is wrong with it.
    """

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field
        self.what = what


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone that can be due."""

    expression: str
    timezone: str

    @classmethod
    def parse(cls, expression: str, timezone: str) -> "Cron":
        """Check both.

        Raises:
            CronError: What is wrong with which.
        """
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise CronError(
                "timezone", f"{timezone!r} is no time zone; write Europe/Berlin or UTC"
            ) from None
        found = cls(expression, timezone)
        try:
            never = next(found._sim(datetime(2024, 1, 1, tzinfo=UTC)), None) is None
        except CronSimError as error:
            raise CronError("cron", f"{expression!r} cannot be read: {error}") from None
        if never:
            raise CronError("cron", f"{expression!r} is never due")
        return found

    def after(self, time_us: int) -> int | None:
        """Give the first tick after a time; both UTC, microseconds."""
        found = next(self._sim(_moment(time_us)), None)
        return None if found is None else _micros(found)

    def has(self, time_us: int) -> bool:
        """Say whether a time is a tick."""
        return self.after(time_us - 1) == time_us

    def before(self, time_us: int) -> Iterator[int]:
        """Give the ticks up to and with a time, the latest first."""
        for found in self._sim(_moment(time_us) + _MICROSECOND, reverse=True):
            tick = _micros(found)
            if self.has(tick):  # around a change of the clocks both directions may differ
                yield tick

    def _sim(self, start: datetime, *, reverse: bool = False) -> CronSim:
        return CronSim(self.expression, start.astimezone(ZoneInfo(self.timezone)), reverse=reverse)


def _moment(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // _US, UTC) + timedelta(microseconds=time_us % _US)


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * _US
