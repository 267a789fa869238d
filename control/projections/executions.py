"""From facts on the log to rows: what a batch of records changes in the read tables.

    Changes.take(place, record)   adds one record's part; knows nothing of a database
    Changes.executions …          rows by primary key, one each, whatever was repeated

Rules that make the order and repetition of records harmless:
- The first record at a key wins, in the batch here and in the tables by `rows.py`: equal keys lie
  on one partition, so "first" is the same at every reading.
- An execution's row is made of two records that fill different columns; a terminal status stays.
- A step's result may come before its execution's start, since they are on different topics.
"""

from dataclasses import dataclass, field
from typing import Final

import orjson

from control.core.letters import EXHAUSTED
from schemas.events import (
    CancelRequested,
    DeadLetter,
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    Place,
    Record,
    StepError,
    StepFinished,
    StepWaiting,
)

RUNNING: Final = "running"
_STEP_STATUS = {"succeeded": "succeeded", "unknown": "unknown"}
# A step that ended so, after all its attempts, is shown as a dead letter.
_EXHAUSTED: Final = frozenset({"throttled", "unavailable", "unknown"})
_NUL_ESCAPE = b"\\u0000"  # jsonb has no room for it

Cell = str | int | bool | None
Row = tuple[Cell, ...]


def step_status(outcome: str) -> str:
    """Say how a step ended: `succeeded`, `unknown` (it may have happened) or `failed`."""
    return _STEP_STATUS.get(outcome, "failed")


@dataclass(slots=True)
class ExecutionRow:
    """An execution as far as a batch tells it; None: this batch does not say."""

    id: str
    workspace_id: str
    workflow_id: str
    version: int
    mode: str
    started: Row | None = None
    finished: Row | None = None

    def cells(self) -> Row:
        """Give the columns in the order of `rows.EXECUTIONS`."""
        head = (self.id, self.workspace_id, self.workflow_id, self.version, self.mode)
        return head + (self.started or _NOT_STARTED) + (self.finished or _NOT_FINISHED)


# workflow_name, user_id, event_id, event_partition, event_offset, generation, event_time,
# started_at, started_partition, started_offset, replay_of, replay_id, effect_version,
# effect_generation
_NOT_STARTED: Row = ("", None, None, None, None, 0, None, None, None, None, None, None, None, None)
# status, error, outcome, finished_at, finished_partition, finished_offset
_NOT_FINISHED: Row = (RUNNING, None, None, None, None, None)


@dataclass(slots=True)
class Changes:
    """What a batch changes, keyed by primary key.

    Attributes:
        strict: Texts are cleaned of what Postgres cannot hold; slower, and seldom needed.
    """

    strict: bool = False
    executions: dict[str, ExecutionRow] = field(default_factory=dict)
    steps: dict[tuple[str, str, int], Row] = field(default_factory=dict)
    outcomes: dict[tuple[int, int], Row] = field(default_factory=dict)
    dead_letters: dict[tuple[str, int, int], Row] = field(default_factory=dict)
    waits: dict[tuple[str, str, int], Row] = field(default_factory=dict)

    def take(self, place: Place, record: Record) -> None:
        """Add what one record says; kinds that the read side does not show change nothing."""
        match record:
            case StepFinished():
                self._step(place, record)
            case ExecutionStarted():
                self._started(place, record)
            case ExecutionFinished():
                self._finished(place, record)
            case EventOutcome():
                self._outcome(record)
            case DeadLetter():
                self._dead_letter(place, record)
            case StepWaiting():
                self._waiting(record)
            case CancelRequested():
                pass
            case _:
                pass

    def _execution(self, record: ExecutionStarted | ExecutionFinished) -> ExecutionRow:
        key = record.execution_id
        found = self.executions.get(key)
        if found is None:
            found = self.executions[key] = ExecutionRow(
                key, record.workspace_id, record.workflow_id, record.version, record.mode
            )
        return found

    def _started(self, place: Place, record: ExecutionStarted) -> None:
        row = self._execution(record)
        if row.started is None:
            row.started = (
                self._text(record.workflow_name),
                self._optional(record.user),
                self._text(record.event_id),
                record.event.partition,
                record.event.offset,
                record.generation,
                record.event_time_us,
                record.at_us,
                place.partition,
                place.offset,
                record.replays,
                record.replay_id,
                record.effect_version,
                record.effect_generation,
            )

    def _finished(self, place: Place, record: ExecutionFinished) -> None:
        row = self._execution(record)
        if row.finished is None:
            row.finished = (
                record.status,
                self._error(record.error),
                self._json(record.steps),
                record.at_us,
                place.partition,
                place.offset,
            )

    def _step(self, place: Place, record: StepFinished) -> None:
        key = (record.execution_id, record.step_id, record.loop_index)
        if key in self.steps:
            return
        self.steps[key] = (
            record.execution_id,
            self._text(record.step_id),
            record.loop_index,
            record.workspace_id,
            record.provider,
            record.action,
            step_status(record.outcome),
            record.outcome,
            self._payload(record.output),
            record.output_cut,
            self._optional(record.vendor_id),
            self._error(record.error),
            self._json(record.attempts),
            self._payload(record.request),
            self._payload(record.response),
            record.connection_id,
            record.effect_key,
            record.command.topic,
            record.command.partition,
            record.command.offset,
            place.topic,
            place.partition,
            place.offset,
            record.requested_at_us,
            record.started_at_us,
            record.finished_at_us,
        )

        if record.outcome in _EXHAUSTED and record.command.offset >= 0:
            self._exhausted(record)

    def _exhausted(self, record: StepFinished) -> None:
        """Show a step that gave up as the letter of its command."""
        command, error = record.command, record.error
        row: Row = (
            command.topic,
            command.partition,
            command.offset,
            record.workspace_id,
            "executors",
            EXHAUSTED,
            self._text(error.code if error else record.outcome),
            self._text(error.message if error else ""),
            _attempts(record.attempts),
            None,
            None,
            record.finished_at_us,
        )
        self.dead_letters.setdefault((command.topic, command.partition, command.offset), row)

    def _outcome(self, record: EventOutcome) -> None:
        key = (record.event.partition, record.event.offset)
        if key in self.outcomes:
            return
        self.outcomes[key] = (
            record.event.partition,
            record.event.offset,
            self._optional(record.workspace_id),
            self._optional(record.event_id),
            self._optional(record.event_type),
            self._optional(record.subject),
            record.mode,
            record.outcome,
            self._text(record.reason),
            # unnest would flatten an array of arrays, so the ids travel as one text
            ",".join(record.executions),
            record.event_time_us,
            record.at_us,
        )

    def _waiting(self, record: StepWaiting) -> None:
        """Keep what a step waits for at last: a later attempt takes the place of one before."""
        key = (record.execution_id, record.step_id, record.loop_index)
        before = self.waits.get(key)
        if before is not None and record.at_us < int(before[-1] or 0):
            return
        self.waits[key] = (
            record.execution_id,
            self._text(record.step_id),
            record.loop_index,
            record.workspace_id,
            record.kind,
            self._text(record.detail),
            record.until_us,
            record.at_us,
        )

    def _dead_letter(self, place: Place, record: DeadLetter) -> None:
        original = record.original
        self.dead_letters.setdefault(
            (original.topic, original.partition, original.offset),
            (
                original.topic,
                original.partition,
                original.offset,
                self._optional(record.workspace_id),
                record.stage,
                record.class_,
                record.code,
                self._text(record.reason),
                record.attempts,
                place.partition,
                place.offset,
                record.at_us,
            ),
        )

    def _text(self, text: str) -> str:
        return text.replace("\x00", "\N{REPLACEMENT CHARACTER}") if self.strict else text

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self._text(text)

    def _error(self, error: StepError | None) -> str | None:
        if error is None:
            return None
        body = {"code": error.code, "message": error.message}
        if error.detail:
            body["detail"] = error.detail
        return self._json(orjson.dumps(body))

    def _payload(self, payload: Payload) -> str | None:
        """Give JSON for the column; sealed content shows only which key would open it."""
        if payload.key_id is not None:
            return orjson.dumps({"sealed": payload.key_id}).decode()
        return self._json(payload.data)

    def _json(self, data: bytes) -> str | None:
        if not data:
            return None
        if not self.strict and _NUL_ESCAPE not in data:
            return data.decode(errors="replace")
        return clean_json(data)


def _attempts(data: bytes) -> int:
    """Count a step's attempts."""
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        return 0
    return len(value) if isinstance(value, list) else 0


def clean_json(data: bytes) -> str:
    """Give JSON that jsonb takes: no NUL in texts; what is no JSON becomes a JSON text."""
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = data.decode(errors="replace")
    return orjson.dumps(_without_nul(value)).decode()


def _without_nul(value: object) -> object:
    match value:
        case str():
            return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        case list():
            return [_without_nul(item) for item in value]
        case dict():
            return {str(_without_nul(name)): _without_nul(item) for name, item in value.items()}
        case _:
            return value
