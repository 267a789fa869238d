"""Debounce, batch and throttle: what is released and when, whatever is delivered twice."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.match import Definitions
from router.memory import Memory
from router.pipeline import Output, Pipeline
from schemas import codec
from schemas.events import (
    DeadLetter,
    Envelope,
    Event,
    EventOutcome,
    ExecutionStarted,
    Payload,
    Place,
    Timer,
    WorkflowVersion,
)
from schemas.topics import DEADLETTER, EVENTS, EXECUTIONS, PROGRESS, RESULTS, TIMERS
from wire.bus import Record, Stored

WS = "ws_00000000000000000000000000"
NOW = 1_790_000_000_000_000
SECOND = 1_000_000


@dataclass
class World:
    """One partition of each topic; a router that may die and read again what it did not commit."""

    trigger: dict
    now: int = NOW
    results: list[Record] = field(default_factory=list)
    released: list[tuple[Envelope, Event, int]] = field(default_factory=list)
    progress: dict[bytes, Record] = field(default_factory=dict)
    timers: dict[bytes, Timer] = field(default_factory=dict)
    outcomes: list[EventOutcome] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    at: int = 0

    def __post_init__(self) -> None:
        self.definitions = Definitions()
        definition = {
            "name": "W",
            "trigger": {"type": "event", "event_type": "a", **self.trigger},
            "steps": [{"type": "delay", "duration": 1}],
        }
        version = WorkflowVersion(
            WS, "wf_1", 1, "live", "W", "active", orjson.dumps(definition), NOW
        )
        self.definitions.put("wf_1", version)
        self.restart(0)

    def restart(self, at: int) -> None:
        memory = Memory(self._read)
        memory.restore(0)
        self.pipeline = Pipeline(self.definitions, memory, [], lambda: self.now)
        self.at = at

    def _read(self, _: int) -> Iterator[Stored]:
        for record in list(self.progress.values()):
            yield Stored(Place(PROGRESS, 0, 0), record.key, record.value)

    def happen(self, name: str, user: str | None = None, **data: object) -> None:
        envelope = Envelope(f"ev_{name}", "a", "/t", WS, self.now)
        event = codec.encode(Event(Payload(orjson.dumps({"n": name, **data})), user))
        self._take(self.pipeline.on_event, EVENTS, event, envelope)
        self.run()

    def run(self, *, die: bool = False) -> None:
        """Handle what stands on the results topic; a router that dies writes no `afterwards`."""
        while self.at < len(self.results):
            record = self.results[self.at]
            stored = Stored(
                Place(RESULTS, 0, self.at), record.key, record.value, dict(record.headers)
            )
            output = Output()
            self.pipeline.on_result(stored, output)
            self._write(output.records)
            if die:
                self.restart(self.at)
                die = False
                continue
            self._write(output.afterwards)
            self.at += 1

    def _take(self, handle, topic: str, value: bytes, envelope: Envelope) -> None:
        output = Output()
        handle(Stored(Place(topic, 0, 0), b"k", value, dict(envelope.headers())), output)
        self._write([*output.records, *output.afterwards])

    def _write(self, records: list[Record]) -> None:
        for record in records:
            if record.topic == PROGRESS:
                self.progress[record.key or b""] = record
            elif record.topic == RESULTS:
                self.results.append(record)
            elif record.topic == TIMERS:
                self._set(record)
            elif record.topic == DEADLETTER:
                self.letters.append(codec.decode_as(DeadLetter, record.value))
            elif record.topic == EVENTS:
                self._release(record)
            elif record.topic == EXECUTIONS:
                self._fact(record)

    def _set(self, record: Record) -> None:
        if record.value is None:
            self.timers.pop(record.key or b"", None)
        elif not (record.key or b"").startswith(b"ex_"):
            self.timers[record.key or b""] = codec.decode_as(Timer, record.value)

    def _release(self, record: Record) -> None:
        headers = dict(record.headers)
        envelope, event = Envelope.parse(headers), codec.decode_as(Event, record.value)
        self.released.append((envelope, event, self.now))
        self._take(self.pipeline.on_event, EVENTS, record.value or b"", envelope)

    def _fact(self, record: Record) -> None:
        found = codec.decode(record.value)
        if isinstance(found, EventOutcome):
            self.outcomes.append(found)
        elif isinstance(found, ExecutionStarted):
            self.started.append(found.execution_id)

    def wait(self, seconds: float, *, die: bool = False) -> None:
        """Let time pass and what is due come."""
        until = self.now + int(seconds * SECOND)
        while True:
            due = sorted((timer.due_us, key) for key, timer in self.timers.items())
            if not due or due[0][0] > until:
                break
            timer = self.timers.pop(due[0][1])
            self.now = max(self.now, timer.due_us)
            record = Record(timer.topic, timer.key, timer.value, list(timer.headers.items()))
            self._write([record])
            self.run(die=die)
        self.now = until

    @property
    def payloads(self) -> list:
        return [orjson.loads(event.data.data) for _, event, _ in self.released]


def test_debounce_starts_with_the_last_event_once_it_is_quiet():
    world = World({"debounce": {"wait": "10s"}})
    world.happen("a")
    world.wait(6)
    world.happen("b")
    world.wait(6)
    assert world.released == []
    world.wait(4)
    assert world.payloads == [{"n": "b"}]
    assert world.started
    assert [o.reason for o in world.outcomes[:2]] == ["W: held back by its debounce"] * 2
    assert world.outcomes[0].outcome == "matched"
    world.wait(10_000)
    assert len(world.released) == 1
    assert all(record.value is None for record in world.progress.values())


def test_debounce_waits_no_longer_than_it_may():
    world = World({"debounce": {"wait": "10s", "max_wait": "25s"}})
    for number in range(5):
        world.happen(str(number))
        world.wait(6)
    assert world.payloads == [{"n": "4"}]
    assert world.released[0][2] == NOW + 25 * SECOND


def test_keys_and_users_are_held_apart():
    world = World({"debounce": {"wait": "10s", "key": "{{k}}"}})
    world.happen("a", k=1)
    world.happen("b", k=2)
    world.happen("c", k=1, user="u2")
    world.happen("d", k=1)
    world.wait(10)
    assert sorted(payload["n"] for payload in world.payloads) == ["b", "c", "d"]
    assert {event.user for _, event, _ in world.released} == {None, "u2"}


def test_batch_starts_when_it_is_full_or_its_time_is_over():
    world = World({"batch": {"size": 3, "wait": "10s"}})
    for name in "abcde":
        world.happen(name)
    assert [p["count"] for p in world.payloads] == [3]
    world.wait(10)
    assert [[e["n"] for e in p["events"]] for p in world.payloads] == [
        ["a", "b", "c"],
        ["d", "e"],
    ]
    world.wait(10_000)
    assert len(world.released) == 2
    assert all(record.value is None for record in world.progress.values())


def test_batch_is_no_larger_than_an_event_may_be():
    world = World({"batch": {"size": 100, "wait": "10s"}})
    for name in "abc":
        world.happen(name, text="x" * 400_000)
    assert [p["count"] for p in world.payloads] == [3]


def test_throttle_lets_so_many_start_and_the_rest_wait_for_their_turn():
    world = World({"throttle": {"limit": 2, "per": "10s"}})
    for name in "abcde":
        world.happen(name)
    world.wait(60)
    times = [(at - NOW) // SECOND for _, _, at in world.released]
    assert times == [0, 0, 10, 10, 20]
    assert [p["n"] for p in world.payloads] == list("abcde")
    assert len([r for r in world.progress.values() if r.value is not None]) <= 2


def test_throttled_event_without_a_turn_is_a_dead_letter():
    world = World({"throttle": {"limit": 1, "per": "23h"}})
    for name in "abc":
        world.happen(name)
    assert [letter.code for letter in world.letters] == ["throttle_full"]


def test_manual_start_is_not_held():
    world = World({"batch": {"wait": "1h"}})
    envelope = Envelope("ev_x", "nhood.execute", "/t", WS, NOW, subject="wf_1")
    event = codec.encode(Event(Payload(b"{}")))
    world._take(world.pipeline.on_event, EVENTS, event, envelope)
    assert len(world.started) == 1


KINDS = {
    "debounce": {"debounce": {"wait": "10s"}},
    "batch": {"batch": {"size": 3, "wait": "10s"}},
    "throttle": {"throttle": {"limit": 2, "per": "10s"}},
}


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    moves=st.lists(st.sampled_from(["event", "wait", "die", "wait and die"]), max_size=25),
)
def test_every_event_is_released_once_whatever_dies(kind, moves):
    """A router dies with its last record half written and handles it again."""
    world = World(KINDS[kind])
    names = (str(n) for n in itertools.count())
    sent = []
    for move in moves:
        if move == "wait":
            world.wait(3)
        elif move == "wait and die":
            world.wait(3, die=True)
        else:
            sent.append(next(names))
            if move == "die" and world.results:
                world.restart(world.at - 1 if world.at else 0)
            world.happen(sent[-1])
    world.wait(10_000)
    by_id = {}
    for envelope, event, _ in world.released:
        by_id.setdefault(envelope.id, set()).add(event.data.data)
    assert all(len(bodies) == 1 for bodies in by_id.values())
    bodies = [orjson.loads(next(iter(found))) for found in by_id.values()]
    if kind == "batch":
        assert sorted(e["n"] for b in bodies for e in b["events"]) == sorted(sent)
    elif kind == "throttle":
        assert sorted(b["n"] for b in bodies) == sorted(sent)
    elif sent:
        assert sent[-1] in {b["n"] for b in bodies}
