"""A router, its log and vendors that answer each step always the same; time stands still.

The world may lose the router's memory and read any record again, as Kafka may make it do.
"""

from collections.abc import Iterator

import orjson

from router.core.match import Definitions
from router.core.waits import Waiting, Waits, Wake
from router.memory import Memory
from router.pipeline import Output, Pipeline
from router.waiting import woken
from schemas import codec
from schemas.events import (
    CancelRequested,
    Envelope,
    Event,
    EventOutcome,
    EventWait,
    ExecutionFinished,
    Payload,
    Place,
    RequestStep,
    StepError,
    StepFinished,
    Timer,
    WorkflowVersion,
)
from schemas.topics import CANCELLATIONS, EXECUTIONS, PROGRESS, TIMERS, WAITS
from wire.bus import Record, Stored

WS = "ws_00000000000000000000000000"
NOW = 1_790_000_000_000_000


def call(step_id: str, *depends_on: str, **more: object) -> dict:
    return {
        "id": step_id,
        "provider": "slack",
        "action": "send_message",
        "depends_on": list(depends_on),
        **more,
    }


# The fifth of the list has no id: a template that reads it fails before anything is called.
EVENT = orjson.dumps({"n": 1, "list": [{"id": n} if n != 4 else {} for n in range(7)]})


def name_of(step_id: str, loop_index: int) -> str:
    return f"{step_id}#{loop_index}" if loop_index else step_id


class World:
    """One router, its progress topic, and vendors that answer each step always the same."""

    def __init__(
        self, steps: list[dict], failing: frozenset[str] = frozenset(), **more: object
    ) -> None:
        self.failing = failing
        self.now = NOW
        self.timers: dict[bytes, Timer] = {}
        self.waits: dict[bytes, EventWait] = {}
        self.outcomes: list[EventOutcome] = []
        self.progress: dict[bytes, Record] = {}
        # Every result that ever stood on the topic: a command sent twice is answered twice.
        self.results: dict[tuple[str, bytes], Stored] = {}
        self.calls: list[str] = []
        self.ends: list[ExecutionFinished] = []
        self.stopped: list[CancelRequested] = []
        self.definitions = Definitions()
        definition = {
            "name": "W",
            "trigger": {"type": "webhook", "path": "/x"},
            "steps": steps,
            **more,
        }
        version = WorkflowVersion(
            WS, "wf_1", 1, "live", "W", "active", orjson.dumps(definition), NOW
        )
        self.definitions.put("wf_1", version)
        self.restart()

    def restart(self) -> None:
        memory = Memory(self._read)
        memory.restore(0)
        self.index = Waits(self.definitions)
        self.pipeline = Pipeline(self.definitions, memory, ["slack"], lambda: self.now, self.index)
        for key, wait in self.waits.items():
            self.index.put(Waiting.of(key, Place(WAITS, 0, 0), wait))

    def _read(self, _: int) -> Iterator[Stored]:
        for record in self.progress.values():
            yield Stored(Place(PROGRESS, 0, 0), record.key, record.value)

    def post(self) -> None:
        envelope = Envelope("ev_1", "nhood.webhook", "/t", WS, NOW, subject="/x")
        event = codec.encode(Event(Payload(EVENT)))
        stored = Stored(Place("nhood.events.v1", 0, 0), b"k", event, dict(envelope.headers()))
        self._take(self.pipeline.on_event, stored)

    def cancel(self) -> None:
        results = [codec.decode_as(StepFinished, stored.value) for stored in self.results.values()]
        request = CancelRequested(WS, results[0].execution_id, "Wrong customer.", NOW)
        place = Place("nhood.results.v1", 0, 0)
        self._take(self.pipeline.on_result, Stored(place, b"ex", codec.encode(request)))

    def deliver(self, step: str) -> None:
        for name, state in list(self.results):
            if name == step:
                self.deliver_one((name, state))

    def deliver_one(self, name: tuple[str, bytes]) -> None:
        self._take(self.pipeline.on_result, self.results[name])

    def deliver_rest(self, delivered: set[tuple[str, bytes]]) -> None:
        """Deliver what no one delivered yet, until nothing is left."""
        while left := [name for name in self.results if name not in delivered]:
            delivered.add(left[0])
            self.deliver_one(left[0])

    def _take(self, handle, stored: Stored) -> None:
        output = Output()
        handle(stored, output)
        self._wake(output.wakes)
        for record in (*output.records, *output.afterwards):
            if record.topic == PROGRESS:
                self.progress[record.key] = record
            elif record.topic == EXECUTIONS:
                found = codec.decode(record.value)
                if isinstance(found, ExecutionFinished):
                    self.ends.append(found)
                elif isinstance(found, EventOutcome):
                    self.outcomes.append(found)
            elif record.topic == WAITS:
                self._wait(record)
            elif record.topic == CANCELLATIONS:
                self.stopped.append(codec.decode_as(CancelRequested, record.value))
            elif record.topic == TIMERS:
                self._later(record)
            else:
                self._call(codec.decode_as(RequestStep, record.value))

    def happen(self, type_: str, data: object, name: str = "ev_2", mode: str = "any") -> None:
        """Let an event come that is no trigger."""
        envelope = Envelope(name, type_, "/t", WS, self.now)
        event = codec.encode(Event(Payload(orjson.dumps(data)), mode=mode))
        stored = Stored(Place("nhood.events.v1", 0, 1), b"k", event, dict(envelope.headers()))
        self._take(self.pipeline.on_event, stored)

    def _wait(self, record: Record) -> None:
        if record.value is None:
            self.waits.pop(record.key, None)
            self.index.end(record.key)
            return
        wait = self.waits[record.key] = codec.decode_as(EventWait, record.value)
        self._wake(self.index.put(Waiting.of(record.key, Place(WAITS, 0, 0), wait)))

    def _wake(self, wakes: list[Wake]) -> None:
        for wake in wakes:
            if wake.waiting.key in self.waits:
                record = woken(wake, self.waits[wake.waiting.key], self.now)
                if record is not None:
                    step, event = wake.waiting.step_id, wake.arrived.envelope.id
                    place = Place("nhood.results.v1", 0, 0)
                    self.results[step, event.encode()] = Stored(place, b"ex", record.value)

    def _later(self, record: Record) -> None:
        """A timer: at some time its record stands on the results topic."""
        if record.value is None:
            self.timers.pop(record.key, None)
            return
        timer = self.timers[record.key] = codec.decode_as(Timer, record.value)
        found = codec.decode(timer.value)
        if isinstance(found, StepFinished):
            name = (found.step_id, record.key + found.state.data)
            self.results[name] = Stored(Place("nhood.results.v1", 0, 0), b"ex", timer.value)

    def fire(self, ending: str) -> None:
        """Let the timer whose key ends so come."""
        (key,) = [key for key in self.timers if key.decode().endswith(ending)]
        timer = self.timers[key]
        self.now = max(self.now, timer.due_us)
        place = Place("nhood.results.v1", 0, 0)
        self._take(self.pipeline.on_result, Stored(place, timer.key, timer.value))

    def _call(self, command: RequestStep) -> None:
        """The executor: calls each effect once (the ledger), answers every time."""
        name = name_of(command.step_id, command.loop_index)
        failed = name in self.failing
        self.calls.append(command.effect_key)
        finished = StepFinished(
            command.workspace_id, command.execution_id, command.workflow_id, command.version,
            command.step_id, command.loop_index, command.effect_key, "slack", "send_message",
            "rejected" if failed else "succeeded",
            Payload(orjson.dumps({"n": len(command.step_id) + ord(command.step_id[-1]) % 7})),
            False, None, StepError("no", "No.") if failed else None, b"[]", Payload(b"null"),
            Payload(b"null"), None, False, Place("t", 0, 0), command.state, NOW, NOW, NOW,
        )  # fmt: skip
        stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", codec.encode(finished))
        self.results[name, command.state.data] = stored
