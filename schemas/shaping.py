"""Triggers that do not start at once: `debounce`, `batch` and `throttle`."""

from dataclasses import dataclass

from schemas.reading import Reader
from schemas.template import Text

WAIT_MAX_MS = 24 * 3_600_000
BATCH_MAX = 100  # events in one execution, whose payload they are
LIMIT_MAX = 1_000  # starts that are remembered for a throttle


@dataclass(frozen=True, slots=True)
class Debounce:
    """Starts with the last event, once none came for `wait_ms`.

    Attributes:
        max_wait_ms: After the first event it starts then at the latest.
    """

    wait_ms: int
    max_wait_ms: int
    key: Text | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Starts with all events of `wait_ms`, or as soon as there are `size`."""

    size: int
    wait_ms: int
    key: Text | None = None


@dataclass(frozen=True, slots=True)
class Throttle:
    """Starts `limit` times in `per_ms` at most; further events wait for their turn."""

    limit: int
    per_ms: int
    key: Text | None = None


Shape = Debounce | Batch | Throttle
KINDS = ("debounce", "batch", "throttle")


def kind_of(shape: Shape) -> str:
    """Name it as the language does."""
    return type(shape).__name__.lower()


def read_shape(reader: Reader) -> Shape | None:
    """Read what a trigger says of it; None: it starts at once."""
    named = [kind for kind in KINDS if kind in reader.body]
    if len(named) > 1:
        reader.note(named[1], f"stands beside {named[0]}", "Keep one of them.", "conflict")
    if not named:
        return None
    kind = named[0]
    inner = Reader(reader.body[kind], reader.at(kind), reader.problems)
    key = inner.template("key")
    if kind == "debounce":
        inner.known("key", "wait", "max_wait")
        wait = _needed_ms(inner, "wait")
        return Debounce(wait, inner.duration_ms("max_wait", WAIT_MAX_MS, WAIT_MAX_MS), key)
    if kind == "batch":
        inner.known("key", "size", "wait")
        return Batch(inner.whole("size", BATCH_MAX, 1, BATCH_MAX), _needed_ms(inner, "wait"), key)
    inner.known("key", "limit", "per")
    return Throttle(inner.whole("limit", 0, 1, LIMIT_MAX), _needed_ms(inner, "per"), key)


def _needed_ms(reader: Reader, name: str) -> int:
    if name not in reader.body:
        reader.note(name, "is missing", 'Write a duration such as "30s".', "missing_field")
    return reader.duration_ms(name, 1_000, WAIT_MAX_MS)
