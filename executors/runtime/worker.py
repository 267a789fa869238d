"""Carries out commands: ledger, call, ledger, result; one at a time per effect."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass

import structlog

from executors.core.result import Carried, from_record, record_of, refused, step_finished
from executors.runtime.driver import Driver, Turn, aside, checks
from executors.runtime.later import later
from executors.runtime.ledger import Begun, Done, Entry, Fresh, Ledger, Waiting
from executors.runtime.parking import Parking, why
from schemas import codec
from schemas.errors import CorruptEvent, NeighbourhoodError, NotFound
from schemas.events import DeadLetter, Envelope, RequestStep, StepFinished
from schemas.provider import ActionSpec, Catalogue, ProviderSpec
from schemas.topics import DEADLETTER, RESULTS
from wire.bus import Publisher, Record, Stored
from wire.clock import now_us
from wire.consumer import GroupConsumer, Taken
from wire.telemetry import ACTIONS, DEADLETTERS

_log = structlog.get_logger()
_SOURCE = "/executors"
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Ports:
    """What a worker needs of the world."""

    catalogue: Catalogue
    ledger: Ledger
    driver: Driver
    publisher: Publisher
    parking: Parking
    stopped: Container[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Job:
    """A record taken, with the command that it holds or why it cannot be read."""

    taken: Taken
    command: RequestStep | CorruptEvent

    @classmethod
    def read(cls, taken: Taken) -> "Job":
        """Read a record."""
        try:
            return cls(taken, codec.decode_as(RequestStep, taken.stored.value))
        except CorruptEvent as error:
            return cls(taken, error)

    @property
    def customer(self) -> str | None:
        """Whose accounts it uses; None: the workspace's only one, or it cannot be read."""
        return None if isinstance(self.command, CorruptEvent) else self.command.user

    @property
    def is_ordered(self) -> bool:
        """Whether it has an order key: its line is then worked off one after the other."""
        return self.lane is not None

    @property
    def lane(self) -> str | None:
        """Name the lane of a command with an order key; None: it may start at once."""
        command = self.command
        if isinstance(command, CorruptEvent) or command.order_key is None:
            return None
        return f"{command.workspace_id}/{command.provider}/{command.user}/{command.order_key}"


@dataclass(frozen=True, slots=True)
class _Ended:
    """A step's end, and the same as bytes: encoded once for ledger and log."""

    finished: StepFinished
    encoded: bytes

    @classmethod
    def of(cls, finished: StepFinished) -> "_Ended":
        """Encode it."""
        return cls(finished, codec.encode(finished))


class Worker:
    """Handles what the consumer took."""

    def __init__(self, ports: Ports, consumer: Callable[[], GroupConsumer]) -> None:
        self._ports = ports
        self._consumer = consumer
        self._effects: dict[str, asyncio.Future[None]] = {}

    async def handle(self, job: Job, turn: Turn | None = None) -> None:
        """Handle one record from begin to done; raises only when it is cancelled.

        Args:
            job: The record.
            turn: The right to call, given to others while the step waits.
        """
        consumer = self._consumer()
        if not consumer.begin(job.taken):
            return
        handled = False
        try:
            await self._carry_out(job, turn)
            handled = True
        finally:
            consumer.done(job.taken, handled=handled)

    async def _carry_out(self, job: Job, turn: Turn | None) -> None:
        if isinstance(job.command, CorruptEvent):
            await self._dead_letter(job, "unreadable", job.command.code, job.command.public)
            return
        labels = {"provider": job.command.provider, "action": job.command.action}
        if job.command.execution_id in self._ports.stopped:
            ACTIONS.labels(**labels, status="cancelled").inc()
            return  # whoever stopped it does not wait for a result
        try:
            ended = await self._finished(job, job.command, turn)
        except NotFound as error:
            ended = self._refused(job.taken, job.command, error.code, error.public)
        except Exception as error:  # noqa: BLE001 - one bad command must not stop the others
            _log.exception("command.broke_the_executor", place=str(job.taken.stored.place))
            reason = f"The executor failed on this command ({type(error).__name__}); report it."
            await self._dead_letter(job, "refused", "executor_error", reason)
            ended = self._refused(job.taken, job.command, "executor_error", reason)
        if ended is None:
            ACTIONS.labels(**labels, status="waiting").inc()
            return
        finished = ended.finished
        status = "replayed" if finished.from_ledger else finished.outcome
        ACTIONS.labels(**labels, status=status).inc()
        await self._publish(result_record(finished, job.taken.stored, ended.encoded))

    async def _finished(self, job: Job, command: RequestStep, turn: Turn | None) -> "_Ended | None":
        """Give the end of a step; None: it goes on later."""
        provider = self._ports.catalogue.get(command.provider)
        provider.require_open(command.mode)
        action = provider.action(command.action)
        if job.lane is not None and await self._waits_in_order(job, job.lane, command):
            return None
        return await self._alone(
            command.effect_key, turn, lambda: self._result(job, command, (provider, action), turn)
        )

    def _refused(self, taken: Taken, command: RequestStep, code: str, message: str) -> "_Ended":
        return _Ended.of(refused(command, taken.stored.place, code, message, now_us()))

    async def _alone(
        self,
        effect_key: str,
        turn: Turn | None,
        work: Callable[[], Awaitable["_Ended | None"]],
    ) -> "_Ended | None":
        """Let the same effect be worked on once at a time; the second one finds it recorded.

        It waits without its turn: the first one may need that to go on.
        """
        while (other := self._effects.get(effect_key)) is not None:
            await aside(turn, asyncio.wait([other]))
        mine = self._effects[effect_key] = asyncio.get_running_loop().create_future()
        try:
            return await work()
        finally:
            del self._effects[effect_key]
            mine.set_result(None)

    async def _result(
        self,
        job: Job,
        command: RequestStep,
        what: tuple[ProviderSpec, ActionSpec],
        turn: Turn | None,
    ) -> "_Ended | None":
        """Carry a command out; None where its step goes on later."""
        provider, action = what
        stored, ports = job.taken.stored, self._ports
        trace = stored.headers.get("traceparent", b"").decode() or None
        if action.read_only:
            carried = await ports.driver.run(command, provider, action, trace, turn)
            return await self._ended(job, command, carried, None)
        permit = await ports.driver.admit(command, provider, action, turn)
        entry = await ports.ledger.begin(
            command.workspace_id, command.effect_key, again=bool(command.attempts)
        )
        if turn is not None:
            turn.begun = True
        calls = _may_call(entry, action, command)
        if not calls and permit is not None:
            permit.give_back()
        if isinstance(entry, Done):
            return _Ended.of(from_record(entry.result, command, stored.place))
        if isinstance(entry, Waiting):
            return None  # this command was handled before: its timer brings it back
        if calls:
            begun = isinstance(entry, Begun)
            carried = await ports.driver.run(
                command, provider, action, trace, turn, permit, begun=begun
            )
        else:
            carried = ports.driver.unknown()
        return await self._ended(job, command, carried, entry)

    async def _ended(
        self, job: Job, command: RequestStep, carried: Carried, entry: Entry | None
    ) -> "_Ended | None":
        """Write down what came of a step; None where it goes on later.

        Args:
            job: Its record.
            command: What that says.
            carried: What came of it.
            entry: What the ledger knew of it before; None: it is not in there.
        """
        stored, ports = job.taken.stored, self._ports
        reason = why(carried)
        if reason is not None:
            forget = isinstance(entry, Fresh)
            if await ports.parking.wait(stored, command, job.lane, reason, forget=forget):
                return None
        if carried.later_ms is not None:
            # The timer first: whoever reads this command again after a crash must not drop it.
            await self._publish_all(later(stored, command, carried, now_us()))
            if entry is not None:
                await ports.ledger.wait(command.effect_key)
            return None
        ended = _Ended.of(step_finished(command, stored.place, carried))
        if entry is not None:
            kept = record_of(ended.finished, ended.encoded)
            await ports.ledger.finish(command.effect_key, kept)
        return ended

    async def _waits_in_order(self, job: Job, lane: str, command: RequestStep) -> bool:
        """Let a step wait behind others of its order key that do, where it may."""
        parking, stored = self._ports.parking, job.taken.stored
        behind = await parking.must_wait(stored, lane)
        if behind is None:
            return False
        return await parking.wait(stored, command, lane, behind, forget=False)

    async def _dead_letter(self, job: Job, class_: str, code: str, reason: str) -> None:
        stored = job.taken.stored
        now = now_us()
        workspace = stored.headers.get("ce_workspace", b"").decode(errors="replace")
        letter = DeadLetter(
            original=stored.place,
            key=stored.key,
            value=stored.value,
            headers=stored.headers,
            workspace_id=workspace or None,
            stage="executors",
            class_=class_,
            code=code,
            reason=reason,
            attempts=1,
            at_us=now,
        )
        DEADLETTERS.labels(stage="executors", reason=code).inc()
        _log.warning("record.dead_lettered", place=str(stored.place), code=code)
        name = str(stored.place)
        envelope = Envelope(name, "nhood.deadletter", _SOURCE, workspace, now)
        headers = envelope.headers()
        await self._publish(Record(DEADLETTER, name.encode(), codec.encode(letter), headers))

    async def _publish_all(self, records: Sequence[Record]) -> None:
        for record in records:
            await self._publish(record)

    async def _publish(self, record: Record) -> None:
        """Publish until the broker has it; what is done before is in the ledger."""
        while True:
            (answer,) = await self._ports.publisher.publish([record])
            if not isinstance(answer, NeighbourhoodError):
                return
            _log.warning("kafka.unreachable", topic=record.topic, code=answer.code)
            await asyncio.sleep(_RETRY_S)


def _may_call(entry: Entry, action: ActionSpec, command: RequestStep) -> bool:
    """Say whether an effect may be called, by what the ledger knows of it."""
    if isinstance(entry, Begun):
        return action.repeatable or command.on_unknown == "retry" or checks(action, command)
    return isinstance(entry, Fresh)


def result_record(finished: StepFinished, command: Stored, encoded: bytes | None = None) -> Record:
    """Write a step's end as a record; it goes on with the trace of its command.

    Args:
        finished: The end.
        command: What led to it.
        encoded: The end as bytes, where it was encoded already.
    """
    envelope = Envelope(
        f"{finished.execution_id}/{finished.step_id}",
        "nhood.step.finished",
        _SOURCE,
        finished.workspace_id,
        finished.finished_at_us,
        subject=finished.execution_id,
        traceparent=command.headers.get("traceparent", b"").decode() or None,
    )
    key = finished.execution_id.encode()
    value = codec.encode(finished) if encoded is None else encoded
    return Record(RESULTS, key, value, envelope.headers())
