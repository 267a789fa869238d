"""Whatever order results come in, however often, and whenever a router dies: the same end.

The world here is a log and a router that may lose its memory and read any record again, as Kafka
may make it do; the vendors are a table of answers.
"""

from collections.abc import Iterator

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.match import Definitions
from router.memory import Memory
from router.pipeline import Output, Pipeline
from schemas import codec
from schemas.events import (
    Envelope,
    Event,
    ExecutionFinished,
    Payload,
    Place,
    RequestStep,
    StepError,
    StepFinished,
    Timer,
    WorkflowVersion,
)
from schemas.topics import EXECUTIONS, PROGRESS, TIMERS
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


WORKFLOWS = {
    "line": [call("a"), call("b", "a"), call("c", "b", config={"t": "{{steps.a.output.n}}"})],
    "diamond": [call("a"), call("b", "a"), call("c", "a"), call("d", "b", "c")],
    "wide": [
        *(call(f"p{n}") for n in range(4)),
        call("join", *(f"p{n}" for n in range(4)), config={"t": "{{steps.p3.output.n}}"}),
        call("tail", "join", config={"t": "{{steps.p0.output.n}}"}),
    ],
    "branches": [
        call("a"),
        call("b"),
        {"id": "c", "condition": "{{steps.a.output.n}} > 3", "then": ["d"], "else": ["e"],
         "depends_on": ["a"]},
        call("d", "c"),
        call("e", "c"),
        call("f", "b", "d", "e"),
    ],
}  # fmt: skip
WORKFLOWS["delays"] = [
    call("a"),
    {"id": "d", "type": "delay", "duration": "2d", "depends_on": ["a"]},
    call("b", "a", config={"t": "{{steps.a.output.n}}"}),
    call("c", "d", "b", config={"t": "{{steps.d.output.until}}"}),
]
for _step in WORKFLOWS["branches"]:
    if _step["id"] in ("d", "e"):
        del _step["depends_on"]


class World:
    """One router, its progress topic, and vendors that answer each step always the same."""

    def __init__(self, steps: list[dict], failing: frozenset[str]) -> None:
        self.failing = failing
        self.progress: dict[bytes, Record] = {}
        # Every result that ever stood on the topic: a command sent twice is answered twice.
        self.results: dict[tuple[str, bytes], Stored] = {}
        self.calls: list[str] = []
        self.ends: list[ExecutionFinished] = []
        self.definitions = Definitions()
        definition = {"name": "W", "trigger": {"type": "webhook", "path": "/x"}, "steps": steps}
        version = WorkflowVersion(
            WS, "wf_1", 1, "live", "W", "active", orjson.dumps(definition), NOW
        )
        self.definitions.put("wf_1", version)
        self.restart()

    def restart(self) -> None:
        memory = Memory(self._read)
        memory.restore(0)
        self.pipeline = Pipeline(self.definitions, memory, ["slack"], lambda: NOW)

    def _read(self, _: int) -> Iterator[Stored]:
        for record in self.progress.values():
            yield Stored(Place(PROGRESS, 0, 0), record.key, record.value)

    def post(self) -> None:
        envelope = Envelope("ev_1", "nhood.webhook", "/t", WS, NOW, subject="/x")
        event = codec.encode(Event(Payload(b'{"n": 1}')))
        stored = Stored(Place("nhood.events.v1", 0, 0), b"k", event, dict(envelope.headers()))
        self._take(self.pipeline.on_event, stored)

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
        for record in (*output.records, *output.afterwards):
            if record.topic == PROGRESS:
                self.progress[record.key] = record
            elif record.topic == EXECUTIONS:
                found = codec.decode(record.value)
                if isinstance(found, ExecutionFinished):
                    self.ends.append(found)
            elif record.topic == TIMERS:
                self._later(codec.decode_as(Timer, record.value))
            else:
                self._call(codec.decode_as(RequestStep, record.value))

    def _later(self, timer: Timer) -> None:
        """A timer: at some time its record stands on the results topic."""
        finished = codec.decode_as(StepFinished, timer.value)
        stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", timer.value)
        self.results[finished.step_id, finished.state.data] = stored

    def _call(self, command: RequestStep) -> None:
        """The executor: calls each effect once (the ledger), answers every time."""
        failed = command.step_id in self.failing
        self.calls.append(command.effect_key)
        finished = StepFinished(
            command.workspace_id, command.execution_id, command.workflow_id, command.version,
            command.step_id, 0, command.effect_key, "slack", "send_message",
            "rejected" if failed else "succeeded",
            Payload(orjson.dumps({"n": len(command.step_id) + ord(command.step_id[-1]) % 7})),
            False, None, StepError("no", "No.") if failed else None, b"[]", Payload(b"null"),
            Payload(b"null"), None, False, Place("t", 0, 0), command.state, NOW, NOW, NOW,
        )  # fmt: skip
        stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", codec.encode(finished))
        self.results[command.step_id, command.state.data] = stored


def straight(name: str, failing: frozenset[str]) -> World:
    """Every result once, as soon as it is there, nothing dies."""
    world = World(WORKFLOWS[name], failing)
    world.post()
    world.deliver_rest(set())
    return world


def end_of(world: World) -> tuple[str, dict]:
    last = world.ends[-1]
    return last.status, orjson.loads(last.steps)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(WORKFLOWS)),
    failing=st.frozensets(st.sampled_from(["a", "b", "d", "p1", "p2"]), max_size=2),
    moves=st.lists(st.tuples(st.sampled_from(["deliver", "restart", "event"]), st.integers(0, 50))),
)
def test_any_order_of_redelivered_records_gives_the_same_end_and_effects(name, failing, moves):
    expected = straight(name, failing)
    world = World(WORKFLOWS[name], failing)
    world.post()
    delivered: set[tuple[str, bytes]] = set()
    for move, number in moves:
        if move == "restart":
            world.restart()
        elif move == "event":
            world.post()
        elif world.results:
            name = sorted(world.results)[number % len(world.results)]
            delivered.add(name)
            world.deliver_one(name)
    world.deliver_rest(delivered)
    assert world.ends, "the execution never ended"
    assert end_of(world) == end_of(expected)
    assert set(world.calls) == set(expected.calls)


def test_router_that_dies_between_two_branches_remembers_the_first():
    world = World(WORKFLOWS["diamond"], frozenset())
    world.post()
    world.deliver("a")
    world.deliver("b")
    world.restart()
    world.deliver("c")
    assert "d" in {step for step, _ in world.results}


def test_memory_of_a_joined_execution_is_given_back():
    world = World(WORKFLOWS["diamond"], frozenset())
    world.post()
    for step in ("a", "b", "c"):
        world.deliver(step)
    assert all(record.value is None for record in world.progress.values())
