"""Completeness: which offsets of the events topic have no outcome, and what is said about it; pure.

gap kind        means
no_outcome      accepted, and nobody knows what became of it
no_execution    its outcome names an execution that never began
not_finished    its execution has no end (yet)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from schemas.errors import CorruptEvent
from schemas.events import Place
from schemas.incoming import read_event, workspace_hint
from schemas.lineage import origin

GapKind = Literal["no_outcome", "no_execution", "not_finished"]
# An accepted event without an outcome after so long is an alarm (design §2).
GRACE_S: Final = 60.0

Interval = tuple[int, int]
# First offset and the one after the last, by partition.
Ranges = Mapping[int, Interval]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that was accepted and did not come to its end.

    Attributes:
        place: Of the event.
        since: When it was accepted, or its execution began.
    """

    kind: GapKind
    place: Place
    workspace_id: str | None
    event_id: str | None
    execution_id: str | None
    since: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a record of the events topic says of itself."""

    workspace_id: str | None
    event_id: str | None
    accepted_ms: int


def missing(known: Iterable[int], first: int, end: int) -> Iterator[Interval]:
    """Give the intervals of [first, end) that hold none of `known`, which is in order."""
    at = first
    for offset in known:
        if offset > at:
            yield at, offset
        at = offset + 1
    if at < end:
        yield at, end


def clip(bounds: Ranges, since: Mapping[int, int], until: Mapping[int, int]) -> dict[int, Interval]:
    """Cut the extent of a log to what was asked for; a partition may be left with nothing."""
    found = {}
    for partition, (low, high) in bounds.items():
        first = min(max(low, since.get(partition, low)), high)
        found[partition] = (first, max(first, min(high, until.get(partition, high))))
    return found


def look(value: bytes | None, headers: Mapping[str, bytes], place: Place, time_ms: int) -> Seen:
    """Read as much of an event as names it; never raises."""
    try:
        envelope, _ = read_event(value, headers, origin(headers, place), time_ms * 1000)
    except CorruptEvent:
        return Seen(workspace_hint(value, headers), None, time_ms)
    return Seen(envelope.workspace, envelope.id, time_ms)


def is_complete(gaps: Sequence[Gap], unnamed: int) -> bool:
    """Say whether nothing is missing; `unnamed` gaps were counted and not listed."""
    return not gaps and unnamed == 0
