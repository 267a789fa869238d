"""Steps that wait for events: which of them an event wakes.

Kept small: what an event is held against, and the place of the record that says what to publish.
Looked up by workspace, type, and the first value that has to stand in the payload.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import orjson
from msgspec import Struct

from router.core.match import Definitions
from schemas.condition import ConditionError
from schemas.events import Envelope, Event, EventWait, Place, rfc3339
from schemas.incoming import ANY_MODE
from schemas.pauses import WaitEventStep
from schemas.template import MISSING, Path, Reference, walk

LOOK_BACK_US = 60_000_000  # an event that came so long before the wait began counts as well
RECENT_MAX = 1_000  # events kept for looking back, of types that somebody may wait for
RECENT_BYTES_MAX = 16 * 1024 * 1024


class Waiting(Struct, frozen=True):
    """A step that waits."""

    key: bytes
    place: Place
    workspace_id: str
    execution_id: str
    workflow_id: str
    version: int
    step_id: str
    mode: str
    event_type: str
    subject: str | None
    match: tuple[tuple[Path, object], ...]
    values: Mapping[str, object]
    until_us: int
    at_us: int

    @classmethod
    def of(cls, key: bytes, place: Place, wait: EventWait) -> "Waiting":
        """Take what is needed out of the record."""
        return cls(
            key,
            place,
            wait.workspace_id,
            wait.execution_id,
            wait.workflow_id,
            wait.version,
            wait.step_id,
            wait.mode,
            wait.event_type,
            wait.subject,
            tuple((tuple(path), value) for path, value in orjson.loads(wait.match)),
            orjson.loads(wait.values),
            wait.until_us,
            wait.at_us,
        )


class Arrived(Struct, frozen=True):
    """An event, as waits see it."""

    envelope: Envelope
    mode: str
    payload: object
    at_us: int

    @property
    def told(self) -> dict[str, object]:
        """What a step that it wakes gives on."""
        envelope = self.envelope
        return {
            "id": envelope.id,
            "type": envelope.type,
            "subject": envelope.subject,
            "time": rfc3339(envelope.time_us or self.at_us),
            "data": self.payload,
        }


class Wake(Struct, frozen=True):
    """A step and the event that it waited for."""

    waiting: Waiting
    arrived: Arrived


class _Recent(NamedTuple):
    arrived: Arrived
    size: int
    woken: set[str]


_Group = dict[object, dict[bytes, Waiting]]  # by (path, value as JSON), or None


class Waits:
    """Every wait there is; single-threaded.

    Args:
        definitions: Hold the steps' filters, and tell which types may be waited for.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._all: dict[bytes, Waiting] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._recent: dict[str, _Recent] = {}  # by event id, the oldest first
        self._recent_bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def put(self, waiting: Waiting) -> list[Wake]:
        """Take in a wait; gives the event that came just before it, if one did."""
        known = waiting.key in self._all
        self.end(waiting.key)
        self._all[waiting.key] = waiting
        group = self._groups.setdefault((waiting.workspace_id, waiting.event_type), {})
        group.setdefault(_first(waiting), {})[waiting.key] = waiting
        return [] if known else self._look_back(waiting)

    def end(self, key: bytes) -> None:
        """Take in the end of a wait."""
        waiting = self._all.pop(key, None)
        if waiting is None:
            return
        name = (waiting.workspace_id, waiting.event_type)
        group = self._groups[name]
        found = group[_first(waiting)]
        found.pop(key, None)
        if not found:
            del group[_first(waiting)]
        if not group:
            del self._groups[name]

    def awaited(self, envelope: Envelope) -> bool:
        """Say whether a step of some workflow waits for events of this type."""
        return (envelope.workspace, envelope.type) in self._definitions.awaited

    def arrive(self, envelope: Envelope, event: Event, payload: object, now_us: int) -> list[Wake]:
        """Say which steps an event wakes, and keep it for those that begin to wait just now."""
        arrived = Arrived(envelope, event.mode, payload, now_us)
        wakes = [
            Wake(waiting, arrived)
            for waiting in self._candidates(arrived)
            if self._fits(waiting, arrived)
        ]
        woken = {wake.waiting.execution_id for wake in wakes}
        self._keep(_Recent(arrived, len(event.data.data), woken))
        return wakes

    def _candidates(self, arrived: Arrived) -> Iterator[Waiting]:
        envelope = arrived.envelope
        group = self._groups.get((envelope.workspace, envelope.type), {})
        paths = dict.fromkeys(key[0] for key in group if isinstance(key, tuple))
        for path in paths:
            found = walk(arrived.payload, path)
            if found is not MISSING:
                yield from group.get((path, _json(found)), {}).values()
        yield from group.get(None, {}).values()

    def _fits(self, waiting: Waiting, arrived: Arrived) -> bool:
        if arrived.mode not in (ANY_MODE, waiting.mode):
            return False
        if waiting.subject is not None and waiting.subject != arrived.envelope.subject:
            return False
        for path, value in waiting.match:
            if _json(walk(arrived.payload, path)) != _json(value):
                return False
        return self._passes(waiting, arrived)

    def _passes(self, waiting: Waiting, arrived: Arrived) -> bool:
        compiled = self._definitions.versions.get((waiting.workflow_id, waiting.version))
        step = compiled.plan.steps.get(waiting.step_id) if compiled is not None else None
        if not isinstance(step, WaitEventStep) or step.filter is None:
            return isinstance(step, WaitEventStep)

        def look(reference: Reference) -> object:
            if reference.source in waiting.values:
                return waiting.values[reference.source]
            return arrived.told if reference.path == ("event",) else MISSING

        try:
            return step.filter.decide(look).value
        except ConditionError:
            return False

    def _keep(self, recent: _Recent) -> None:
        name = recent.arrived.envelope.id
        if name in self._recent:  # it was handled before, with fewer waits known
            self._recent[name].woken.update(recent.woken)
            return
        self._recent[name] = recent
        self._recent_bytes += recent.size
        oldest = recent.arrived.at_us - LOOK_BACK_US
        while self._recent and (
            len(self._recent) > RECENT_MAX
            or self._recent_bytes > RECENT_BYTES_MAX
            or next(iter(self._recent.values())).arrived.at_us < oldest
        ):
            first = next(iter(self._recent))
            self._recent_bytes -= self._recent.pop(first).size

    def _look_back(self, waiting: Waiting) -> list[Wake]:
        """Find the first event that fits and woke nothing of this execution yet."""
        for recent in self._recent.values():
            arrived = recent.arrived
            if (
                arrived.at_us >= waiting.at_us - LOOK_BACK_US
                and arrived.envelope.workspace == waiting.workspace_id
                and arrived.envelope.type == waiting.event_type
                and waiting.execution_id not in recent.woken
                and self._fits(waiting, arrived)
            ):
                recent.woken.add(waiting.execution_id)
                return [Wake(waiting, arrived)]
        return []


def _json(value: object) -> bytes:
    if value is MISSING:
        return b""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _first(waiting: Waiting) -> object:
    if not waiting.match:
        return None
    path, value = waiting.match[0]
    return (path, _json(value))
