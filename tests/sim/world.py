"""Routers and executors as they are, on a log, a ledger and vendors in memory.

What runs is the product's own: the router's pipeline, memory and intake, the executors' dispatch,
worker, driver, limits and retries. Processes are killed where they stand, join and leave groups
without being waited for, and are started again; answers of the broker and the ledger get lost;
vendors throttle, fail, hang and break off. Timers are brought by a plain loop, not by
`router.timers`, which has tests of its own.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import orjson

import executors.runtime.driver
from executors.runtime.dispatch import Dispatch
from executors.runtime.driver import Driver
from executors.runtime.limits import Limits
from executors.runtime.worker import Job, Ports, Worker
from router.core.match import Definitions
from router.intake import Intake, publish_until_durable
from router.memory import Memory
from router.pipeline import Output, Pipeline
from schemas import codec
from schemas.events import (
    Envelope,
    Event,
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    StepFinished,
    Timer,
    WorkflowVersion,
)
from schemas.provider import Catalogue, load_catalogue
from schemas.quotas import SMALLEST
from schemas.settings import Secret, Settings
from schemas.topics import (
    CANCELLATIONS,
    DEADLETTER,
    EVENTS,
    EXECUTIONS,
    PROGRESS,
    RESULTS,
    TIMERS,
    WAITS,
    steps_topic,
)
from tests.sim.bus import Bus, Member
from tests.sim.dice import Dice
from tests.sim.ledger import MemoryLedger
from tests.sim.loop import START_US, Process
from tests.sim.vendors import Vendors
from token_vault.core.headers import Proof
from token_vault.tokens import Credential
from wire.bus import Record, Stored
from wire.clock import now_us
from wire.consumer import Taken

WS = "ws_00000000000000000000000000"
VENDORS = ("slack", "stripe")
# After the last fault everything has to come to its end: attempts a minute apart included.
PATIENCE_S = 3 * 3600.0
FAULTS_S = 6.0


def _say(name: str, *after: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "provider": "slack", "action": "send_message", "depends_on": list(after),
            "retry": {"max_attempts": 8, "delay": "200ms"}, "timeout": "5s",
            "config": {"channel": "C1", "text": "{{e}}/" + name}, **more}  # fmt: skip


def _bill(name: str, *after: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "provider": "stripe", "action": "create_customer",
            "depends_on": list(after), "retry": {"max_attempts": 8, "delay": "200ms"},
            "timeout": "5s", "config": {"name": "{{e}}/" + name}, **more}  # fmt: skip


WORKFLOWS: dict[str, list[dict[str, Any]]] = {
    "line": [_say("a"), _bill("b", "a"), _say("c", "b")],
    "diamond": [_bill("a"), _say("b", "a"), _bill("c", "a"), _say("d", "b", "c")],
    "wide": [_say("a"), _bill("b"), _say("c"), _bill("z", "a", "b", "c")],
    "far": [_bill("a", retry={"max_attempts": 6, "delay": "1m"}), _say("b", "a")],
    "pause": [
        _say("a"),
        {"id": "d", "type": "delay", "duration": "30s", "depends_on": ["a"]},
        _bill("b", "d"),
    ],
    "careful": [_say("a", on_unknown="fail", on_error="continue"), _bill("b", "a")],
}
AFTER = {
    name: {step["id"]: step["depends_on"] for step in steps} for name, steps in WORKFLOWS.items()
}


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    whole = load_catalogue()
    return Catalogue({slug: whole.get(slug) for slug in VENDORS})


@lru_cache(maxsize=1)
def definitions() -> Definitions:
    found = Definitions()
    for name, steps in WORKFLOWS.items():
        trigger = {"type": "webhook", "path": f"/{name}"}
        document = orjson.dumps({"name": name, "trigger": trigger, "steps": steps})
        version = WorkflowVersion(WS, f"wf_{name}", 1, "live", name, "active", document, START_US)
        found.put(f"wf_{name}", version)
    return found


class _Tokens:
    """The port `executors.runtime.driver.Tokens`: every account is connected."""

    async def resolve(
        self, workspace: str, mode: str, provider: str, user: str | None, _: str | None = None
    ) -> Credential:
        proof = Proof("Authorization", Secret("Bearer t"))
        variables = {"account_id": "acct_1"} if provider == "stripe" else {}
        return Credential(workspace, f"conn_{provider}", provider, mode, proof, variables, 1)

    async def refreshed(self, credential: Credential) -> Credential:
        return credential

    def accepted(self, _: Credential) -> None:
        """Nothing hangs on it."""


class _Parking:
    """Nothing waits for a customer in these worlds."""

    async def wait(self, *_: Any, **__: Any) -> bool:
        return False

    async def must_wait(self, *_: Any) -> None:
        return None


@dataclass(slots=True)
class _Queued:
    """What the router's intake takes."""

    member: Member
    taken: Taken

    @property
    def stored(self) -> Stored:
        return self.taken.stored

    def begin(self) -> bool:
        return self.member.begin(self.taken)

    def done(self) -> None:
        self.member.done(self.taken, handled=True)


@dataclass
class World:
    """One seed's world; `live` runs it, `faults` says what is wrong afterwards."""

    seed: int
    careless: bool = False  # commits what is not done: to see that the check notices
    interruptions: list[float] = field(default_factory=list)
    posted: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = Dice(self.seed)
        two = self.dice.one_of((1, 2, 3))
        steps = {steps_topic(slug): two for slug in VENDORS}
        topics = {EVENTS: two, RESULTS: two, PROGRESS: two, EXECUTIONS: 1, TIMERS: 1}
        others = {WAITS: 1, CANCELLATIONS: 1, DEADLETTER: 1}
        self.bus = Bus({**topics, **steps, **others}, self.dice, careless=self.careless)
        self.ledger = MemoryLedger(self.dice)
        self.vendors = Vendors(self.dice, self.dice.one_of((0, 10, 40)))
        self.started: set[str] = set()
        self.ends: dict[str, list[ExecutionFinished]] = defaultdict(list)
        self.outcomes: set[tuple[int, int]] = set()
        self.results: dict[tuple[str, str], StepFinished] = {}
        self.executions: dict[str, str] = {}  # which event began them
        self.processes: list[Process] = []
        self.bus.appended.append(self._look)

    def _look(self, stored: Stored) -> None:
        if stored.value is None or stored.place.topic not in (EXECUTIONS, RESULTS):
            return
        fact = codec.decode(stored.value)
        if isinstance(fact, ExecutionStarted):
            self.started.add(fact.execution_id)
        elif isinstance(fact, ExecutionFinished):
            self.ends[fact.execution_id].append(fact)
        elif isinstance(fact, EventOutcome):
            self.outcomes.add((fact.event.partition, fact.event.offset))
            if fact.executions and fact.event_id:
                self.executions[fact.executions[0]] = fact.event_id
        elif isinstance(fact, StepFinished):
            self.results.setdefault((fact.execution_id, fact.step_id), fact)

    async def live(self) -> None:
        """Post, break, mend, and wait until everything has come to its end."""
        with patch.object(executors.runtime.driver, "rng", self.dice):
            for start in (self._router, self._executors, self._clock):
                self.processes.append(start())
            await asyncio.gather(self._post(), self._break())
            for _ in range(int(PATIENCE_S)):
                if self._is_over():
                    break
                await asyncio.sleep(1)
            for process in self.processes:
                process.kill()

    def _is_over(self) -> bool:
        events = sum(len(self.bus.all(EVENTS, n)) for n in range(self.bus.partitions[EVENTS]))
        if len(self.outcomes) < events or len(self.started) < len(self.posted):
            return False
        return all(self.ends.get(name) for name in self.started)

    async def _post(self) -> None:
        for number in range(self.dice.one_of((1, 2, 4))):
            await self.dice.pause(FAULTS_S / 4)
            name = self.dice.one_of(sorted(WORKFLOWS))
            event = f"ev_{number}"
            self.posted[event] = name
            for _ in range(2 if self.dice.once_in(6) else 1):  # a producer that repeats itself
                await self.bus.append(self._event(event, name))

    def _event(self, event: str, name: str) -> Record:
        envelope = Envelope(event, "nhood.webhook", "/t", WS, now_us(), subject=f"/{name}")
        payload = Payload(orjson.dumps({"e": event}))
        user = self.dice.one_of(("u1", "u2"))
        value = codec.encode(Event(payload, user=user))
        return Record(EVENTS, user.encode(), value, envelope.headers())

    async def _break(self) -> None:
        """Kill, start, let second members in and out; in the end there is one of each."""
        for _ in range(self.dice.below(5)):
            await self.dice.pause(FAULTS_S / 3)
            number = self.dice.below(len(self.processes))
            if self.dice.once_in(3):  # another one joins; it stays until it is killed
                start = self.dice.one_of((self._router, self._executors))
                self.processes.append(start())
                self._interrupted()
                continue
            old = self.processes[number]
            old.kill()
            self._interrupted()
            await self.dice.pause(1.0)
            starts = {"router": self._router, "executors": self._executors, "clock": self._clock}
            self.processes[number] = starts[old.name]()
            self._interrupted()

    def _interrupted(self) -> None:
        self.interruptions.append(asyncio.get_running_loop().time())

    def _router(self) -> Process:
        process = Process("router")
        memory = Memory(lambda partition: list(self.bus.all(PROGRESS, partition)))
        pipeline = Pipeline(definitions(), memory, VENDORS, now_us)

        async def on_events(batch: list[Stored]) -> Output:
            output = Output()
            for stored in batch:
                pipeline.on_event(stored, output)
            return output

        async def on_results(batch: list[Stored]) -> Output:
            output = Output()
            for stored in batch:
                if not memory.has(stored.place.partition):
                    memory.restore(stored.place.partition)
                pipeline.on_result(stored, output)
            return output

        events, results = Intake(on_events, self.bus), Intake(on_results, self.bus)
        first = Member(self.bus, "events", [EVENTS], lambda batch: add(events, first, batch))
        second = Member(
            self.bus,
            "results",
            [RESULTS],
            lambda batch: add(results, second, batch),
            memory.forget_partitions,
        )

        def add(intake: Intake, member: Member, batch: Sequence[Taken]) -> None:
            for taken in batch:
                intake.add(_Queued(member, taken))

        for work in (events.serve(), results.serve(), first.serve(process), second.serve(process)):
            process.begin(work)
        return process

    def _executors(self) -> Process:
        process = Process("executors")
        loop = asyncio.get_running_loop()
        settings = Settings()
        limits = Limits(settings, loop.time)
        driver = Driver(self.vendors, _Tokens(), settings, limits=limits)
        ports: Any = Ports(catalogue(), self.ledger, driver, self.bus, _Parking())
        worker = Worker(ports, lambda: member)  # type: ignore[arg-type,return-value]
        again: Any = None
        dispatch = Dispatch(16, Job.read, worker.handle, lambda: member, again, lambda _: SMALLEST)
        topics = [steps_topic(slug) for slug in VENDORS]
        member = Member(self.bus, "executors", topics, dispatch.deliver)
        process.begin(member.serve(process))
        return process

    def _clock(self) -> Process:
        """Bring timers when they are due, some of them twice."""
        process = Process("clock")

        async def serve() -> None:
            brought: set[bytes] = set()
            while True:
                rows = {stored.key: stored for stored in self.bus.all(TIMERS, 0)}
                for key, stored in rows.items():
                    if stored.value is None or key is None or stored.value in brought:
                        continue
                    timer = codec.decode_as(Timer, stored.value)
                    if timer.due_us <= now_us():
                        headers = list(timer.headers.items())
                        record = Record(timer.topic, timer.key, timer.value, headers)
                        for _ in range(2 if self.dice.once_in(8) else 1):
                            await publish_until_durable(self.bus, [record])
                        brought.add(stored.value)
                        await publish_until_durable(self.bus, [Record(TIMERS, key, None)])
                await asyncio.sleep(0.7)

        process.begin(serve())
        return process

    def faults(self) -> list[str]:
        """Say which promises were broken."""
        found = []
        for number in range(self.bus.partitions[EVENTS]):
            for stored in self.bus.all(EVENTS, number):
                if (number, stored.place.offset) not in self.outcomes:
                    found += [f"the event at {stored.place} has no outcome"]
        if self.bus.all(DEADLETTER, 0):
            found.append(f"dead letters: {self.bus.all(DEADLETTER, 0)}")
        if len(self.started) != len(self.posted):
            found.append(f"{len(self.posted)} events started {len(self.started)} executions")
        for name in self.started:
            ends = {end.status for end in self.ends.get(name, ())}
            if len(ends) != 1:
                found.append(f"{name} ended {sorted(ends) or 'never'}")
        for (execution, step), result in self.results.items():
            found += self._of_step(execution, step, result)
        return found

    def _of_step(self, execution: str, step: str, result: StepFinished) -> list[str]:
        if result.action not in ("send_message", "create_customer"):
            return []
        text = f"{self.executions[execution]}/{step}"
        seen = self.vendors.seen.get(text)
        if seen is None:
            wrong = result.outcome == "succeeded"
            return [f"{execution}/{step} succeeded, and nothing was done"] if wrong else []
        found = []
        if result.outcome == "succeeded" and not seen.done:
            found.append(f"{text} succeeded, and was not done")
        if len(seen.keys) > 1:
            found.append(f"{text} was asked under {len(seen.keys)} keys")
        allowed = 1 + seen.unsure + self._interruptions(seen.calls)
        if result.provider == "stripe":
            allowed = 1
        if len(seen.done) > allowed:
            found.append(f"{text} was done {len(seen.done)} times, {allowed} can be explained")
        return [*found, *self._order(text, seen.calls[0])]

    def _interruptions(self, calls: list[float]) -> int:
        """Count the interruptions that may have met a call, or what was written down after it."""
        return sum(min(calls) - 10 <= at <= max(calls) + 10 for at in self.interruptions)

    def _order(self, text: str, first_call: float) -> list[str]:
        event, _, step = text.partition("/")
        found = []
        for before in AFTER[self.posted[event]][step]:
            seen = self.vendors.seen.get(f"{event}/{before}")
            if seen is not None and seen.calls[0] > first_call:
                found.append(f"{text} was asked for before {before}")
        return found
