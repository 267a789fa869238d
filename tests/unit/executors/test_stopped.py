"""Commands of stopped executions: nothing is called, nothing is written, nothing is answered."""

import httpx

from executors.runtime.driver import Driver
from executors.runtime.stopped import Stopped
from executors.runtime.worker import Job, Ports, Worker
from schemas import codec
from schemas.events import CancelRequested, Place
from schemas.provider import load_catalogue
from schemas.settings import Settings
from tests.unit.executors.test_driver import SEND, SLACK, FakeTokens, ScriptedCalls, command
from wire.bus import Stored
from wire.consumer import Taken


def record(execution_id: str, value: bytes | None = b"") -> Stored:
    if value == b"":
        value = codec.encode(CancelRequested("ws", execution_id, "", 1))
    return Stored(Place("nhood.cancellations.v1", 0, 0), execution_id.encode(), value)


class Consumer:
    """Notes what was handled."""

    def __init__(self) -> None:
        self.handled: list[bool] = []

    def begin(self, taken: Taken) -> bool:
        return True

    def done(self, taken: Taken, *, handled: bool) -> None:
        self.handled.append(handled)


class Untouched:
    """A part that must not be used."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was used for a stopped execution")


def test_stopped_executions_are_those_of_the_log():
    stopped = Stopped()
    stopped.take(record("ex_1"))
    stopped.take(record("ex_2"))
    stopped.take(record("ex_2", None))
    stopped.take(record("ex_3", b"broken"))
    assert [name in stopped for name in ("ex_1", "ex_2", "ex_3")] == [True, False, False]


def test_what_is_kept_of_stopped_executions_is_bounded():
    stopped = Stopped(kept_max=2)
    for number in range(4):
        stopped.take(record(f"ex_{number}"))
    assert [f"ex_{number}" in stopped for number in range(4)] == [False, False, True, True]


async def test_command_of_a_stopped_execution_is_dropped_before_the_ledger():
    stopped = Stopped()
    stopped.take(record("ex"))
    consumer = Consumer()
    nothing = Untouched()
    ports = Ports(load_catalogue(), nothing, nothing, nothing, nothing, stopped)
    worker = Worker(ports, lambda: consumer)
    value = codec.encode(command())
    place = Place("nhood.steps.slack.v1", 0, 0)
    await worker.handle(Job.read(Taken(Stored(place, b"k", value), 0, 0.0)))
    assert consumer.handled == [True]


async def test_step_that_waits_for_its_next_attempt_is_not_tried_again_once_stopped():
    stopped = Stopped()

    def throttle(_: httpx.Request) -> httpx.Response:
        stopped.take(record("ex"))
        return httpx.Response(429, headers={"retry-after": "0"}, json={"ok": False})

    calls = ScriptedCalls(throttle)
    driver = Driver(calls, FakeTokens(), Settings(), stopped=stopped)
    carried = await driver.run(command(), SLACK, SEND)
    assert len(calls.seen) == 1
    assert (carried.outcome.kind, carried.outcome.code) == ("rejected", "cancelled")
