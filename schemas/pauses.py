"""Steps that call nobody but wait: `delay`, for a time or until one.

A pause is settled by a timer (`router.timers`), so it costs nothing while it lasts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.errors import CorruptEvent
from schemas.events import parse_rfc3339
from schemas.reading import Reader, duration_ms
from schemas.template import Reference, Text, compile_text

PAUSE_MAX_MS = 366 * 86_400_000  # a year, and a day for the leap


@dataclass(frozen=True, slots=True)
class DelayStep:
    """Waits for a time, or until one.

    Attributes:
        duration: Gives seconds or text with a unit; or None.
        until: Gives an RFC 3339 time or seconds since 1970; or None.
    """

    id: str
    duration: Text | None
    until: Text | None = None
    depends_on: tuple[str, ...] | None = None

    @property
    def references(self) -> Iterator[Reference]:
        """Every template of the step."""
        for text in (self.duration, self.until):
            if text is not None:
                yield from text.references


def read_delay(reader: Reader, step_id: str) -> DelayStep:
    """Read a delay."""
    reader.known("id", "name", "type", "duration", "until", "depends_on")
    if ("duration" in reader.body) is ("until" in reader.body):
        reader.note(
            "duration",
            "and until: exactly one of them says how long",
            'Write "duration": "3d", or "until": "{{order.ship_at}}".',
            "missing_field",
        )
    duration = _duration(reader)
    until = reader.template("until")
    if until is not None and not any(until.references):
        try:
            moment_us("".join(str(part) for part in until.parts))
        except ValueError as error:
            reader.note("until", str(error), "Write 2026-12-24T08:00:00Z.", "bad_time")
    return DelayStep(step_id, duration, until, reader.ids("depends_on"))


def _duration(reader: Reader) -> Text | None:
    value = reader.body.get("duration")
    if isinstance(value, str) and "{{" in value:
        return reader.template("duration")
    if value is None:
        return None
    reader.duration_ms("duration", 1_000, PAUSE_MAX_MS)
    return compile_text(str(value))


def pause_ms(value: object) -> int:
    """Read how long to wait, as a template gave it.

    Raises:
        ValueError: It is none, or is over the limit.
    """
    found = duration_ms(value)
    if found is None and isinstance(value, str):
        try:
            found = duration_ms(float(value))
        except ValueError:
            found = None
    if found is None or not 0 <= found <= PAUSE_MAX_MS:
        raise ValueError(f"{str(value)[:40]!r} is not a duration of up to 366 days")
    return int(found)


def moment_us(value: object) -> int:
    """Read a time, as a template gave it: RFC 3339 with a zone, or seconds since 1970.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40:
        return int(value * 1_000_000)
    if isinstance(value, str):
        try:
            return parse_rfc3339(value.strip())
        except CorruptEvent:
            pass
    raise ValueError(f"{str(value)[:40]!r} is not a time with a zone such as 2026-12-24T08:00:00Z")
