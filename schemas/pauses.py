"""Steps that call nobody but wait: `delay` for a time or until one, `wait_event` for an event.

A pause is settled by a timer (`router.timers`) or an event, so it costs nothing while it lasts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from schemas.condition import Condition
from schemas.errors import CorruptEvent
from schemas.events import parse_rfc3339
from schemas.reading import Reader, duration_ms
from schemas.template import (
    Path,
    Reference,
    TemplateError,
    Text,
    compile_text,
    compile_value,
    references,
)

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


@dataclass(frozen=True, slots=True)
class WaitEventStep:
    """Waits for an event of this type that is about what the execution is about.

    Attributes:
        subject: What the event's subject has to be; None: anything.
        match: Path in the event's payload -> compiled value that has to stand there.
        filter: CEL over `event` and the execution's `{{…}}`; or None.
        then, otherwise: Steps that run when the event came, and when it did not in time.
        on_timeout: fail or continue, where there are no such branches.
    """

    id: str
    event_type: str
    subject: Text | None = None
    match: Mapping[Path, object] = field(default_factory=dict)
    filter: Condition | None = None
    timeout_ms: int = PAUSE_MAX_MS
    then: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()
    on_timeout: str = "fail"
    depends_on: tuple[str, ...] | None = None

    @property
    def branches(self) -> bool:
        """Whether it chooses between steps, as a condition does."""
        return bool(self.then or self.otherwise)

    @property
    def references(self) -> Iterator[Reference]:
        """Every template of the step."""
        if self.subject is not None:
            yield from self.subject.references
        for value in self.match.values():
            yield from references(value)
        if self.filter is not None:
            yield from self.filter.bindings.values()


_WAIT_FIELDS = (
    *("id", "name", "type", "event_type", "subject", "match", "filter", "timeout"),
    *("then", "else", "on_timeout", "depends_on"),
)


def read_wait(reader: Reader, step_id: str) -> WaitEventStep:
    """Read a wait for an event."""
    reader.known(*_WAIT_FIELDS)
    event_type = reader.text("event_type", required=True) or ""
    if event_type.startswith("nhood."):
        reader.note("event_type", "starts with nhood., which is ours", "Choose another name.")
    if not {"subject", "match", "filter"} & reader.body.keys():
        reader.note(
            "match",
            "says not which event: any of this type, whoever it is about, would do",
            'Write "match": {"order_id": "{{order.id}}"}.',
            "missing_field",
        )
    then, otherwise = reader.ids("then") or (), reader.ids("else") or ()
    for both in set(then) & set(otherwise):
        reader.note("else", f"{both} stands in then as well", "A step belongs to one branch.")
    if "on_timeout" in reader.body and (then or otherwise):
        reader.note(
            "on_timeout", "stands beside then or else", "Without the event, else runs.", "conflict"
        )
    return WaitEventStep(
        id=step_id,
        event_type=event_type,
        subject=reader.template("subject"),
        match=_match(reader),
        filter=reader.condition("filter", required=False),
        timeout_ms=reader.duration_ms("timeout", PAUSE_MAX_MS, PAUSE_MAX_MS),
        then=then,
        otherwise=otherwise,
        on_timeout=reader.choice("on_timeout", ("fail", "continue"), "fail"),
        depends_on=reader.ids("depends_on"),
    )


def _match(reader: Reader) -> dict[Path, object]:
    written = reader.body.get("match", {})
    if not isinstance(written, Mapping):
        reader.note("match", "must be an object", 'Write {"order_id": "{{order.id}}"}.')
        return {}
    found: dict[Path, object] = {}
    for path, value in written.items():
        try:
            whole = compile_text("{{" + str(path) + "}}").whole
            if whole is not None:
                found[whole.path] = compile_value(value)
        except TemplateError as error:
            reader.note(f"match.{path}", str(error), "Write a path such as order.id.", error.code)
    return found


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
