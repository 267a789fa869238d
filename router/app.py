"""The router's shell: reads events with Faust, results with librdkafka, hands both to the pipeline.

    events  ─▶ Faust agent   ─┐
                              ├▶ intake ─▶ pipeline ─▶ broker has it all ─▶ acknowledged
    results ─▶ GroupConsumer ─┘

    timers  ─▶ TableConsumer ─▶ Timers ─▶ what is due goes to its topic
    waits   ─▶ Tail ─▶ Waking ─▶ an event that is waited for is a step's result

Both read and commit at least once; nothing rests on Faust's tables or its exactly_once (design §5),
and results, two of three records, spare its cost per record (ADR 0007). What is read is only
queued: one loop per topic takes all that is there, handles it, waits until the broker has every
record it led to, and acknowledges then. So a batch is as large as the load makes it, and a record
that was not carried on is read again.
"""

import asyncio
import functools
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Self

import faust
import structlog
from msgspec import Struct

from router.core.match import Definitions
from router.deliveries import Deliveries, repeated
from router.intake import INTAKE_MAX, RETRY_S, Intake
from router.memory import Memory
from router.pipeline import Output, Pipeline
from router.schedules import Schedules
from router.timers import GROUP as TIMERS_GROUP
from router.timers import Timers, read_row
from router.waking import Waking
from schemas import codec
from schemas.errors import CorruptEvent, DependencyDown, NeighbourhoodError
from schemas.events import Place, WorkflowVersion
from schemas.provider import load_catalogue
from schemas.settings import Settings
from schemas.topics import DEFINITIONS, EVENTS, PROGRESS, RESULTS, TIMERS, WAITS
from wire.bus import KafkaPublisher, Stored
from wire.clock import now_us
from wire.consumer import GroupConsumer, Taken
from wire.places import PlaceReader
from wire.retention import tell_gaps
from wire.table import TableConsumer
from wire.tail import Tail, read_to_end
from wire.telemetry import configure_logging, start_ops_server

_log = structlog.get_logger()

_Take = Callable[[Stored, Output], None]

GROUP = "nhood-router"
RESULTS_GROUP = "nhood-router-results"
LINGER_MS = 0.5  # a batch is published whole: waiting for more gains little
WATCH_S = 1.0  # between two looks at whether Faust still lives
FRESH_S = 0.25  # how long definitions count as known to the end of their topic
DRAIN_S = 10.0  # for what is queued when the process has to end


class FromFaust(Struct):
    """A Faust event."""

    event: Any
    stored: Stored

    @classmethod
    def of(cls, event: Any) -> Self:  # noqa: ANN401 - a Faust event, untyped
        """Take the record out of the event."""
        message = event.message
        headers = dict(message.headers or ())
        place = Place(message.topic, message.partition, message.offset)
        time_ms = int(message.timestamp * 1000)
        return cls(event, Stored(place, message.key, message.value, headers, time_ms))

    def begin(self) -> bool:
        """Handle it in any case: what a second router does as well does no harm."""
        return True

    def done(self) -> None:
        """Acknowledge."""
        self.event.ack()


class FromConsumer(Struct):
    """A record with the consumer that it came from."""

    consumer: GroupConsumer
    taken: Taken

    @property
    def stored(self) -> Stored:
        """What was read."""
        return self.taken.stored

    def begin(self) -> bool:
        """Ask the consumer."""
        return self.consumer.begin(self.taken)

    def done(self) -> None:
        """Tell the consumer."""
        self.consumer.done(self.taken, handled=True)


class Router:
    """Everything the router holds; `build_router` puts it together, `run` runs it."""

    def __init__(self, settings: Settings) -> None:
        bootstrap = settings.kafka_bootstrap_servers
        self._bootstrap = bootstrap
        self._loop = asyncio.get_running_loop()
        self._definitions = Definitions()
        self._memory = Memory(
            lambda partition: read_to_end(bootstrap, "nhood-router", PROGRESS, partition)
        )
        self._tail = Tail(bootstrap, "nhood-router", DEFINITIONS, self._on_definition)
        self._publisher = KafkaPublisher(
            bootstrap, "nhood-router", delivery_timeout_ms=60_000, linger_ms=LINGER_MS
        )
        catalogue = load_catalogue()
        self._wait_places = PlaceReader(bootstrap, "nhood-router", WAITS)
        self._waking = Waking(self._definitions, self._publisher, self._wait_places, now_us)
        self._waits_tail = Tail(bootstrap, "nhood-router", WAITS, self._waking.on_record)
        slugs = [spec.slug for spec in catalogue]
        self._pipeline = Pipeline(
            self._definitions, self._memory, slugs, now_us, self._waking.waits
        )
        self._deliveries = Deliveries(settings.database_url)
        self._events = Intake(self._handle_events, self._publisher)
        self._results = Intake(self._handle_results, self._publisher)
        self._app = _faust_app(bootstrap, Path(settings.state_dir) / "router", self)
        self._consumer = GroupConsumer(
            bootstrap, RESULTS_GROUP, [RESULTS], self._take_results, self._memory.forget_partitions
        )
        self._places = PlaceReader(bootstrap, "nhood-router", TIMERS)
        self._timers = Timers(self._publisher, self._places, now_us)
        self._schedules = Schedules(self._definitions, self._timers, self._publisher, now_us)
        self._timers.use(self._schedules)
        self._table = TableConsumer(bootstrap, TIMERS_GROUP, TIMERS, read_row, self._timers)
        self._caught_up = 0.0
        self._follows_events = False

    def _on_definition(self, stored: Stored) -> None:
        """Take in one record of the definitions topic; runs on the tail's thread."""
        key = (stored.key or b"").decode()
        try:
            version = codec.decode_as(WorkflowVersion, stored.value) if stored.value else None
        except CorruptEvent as error:
            _log.error("definition.unreadable", key=key, code=error.code)
            return
        self._definitions.put(key, version)
        if "@" not in key:
            self._loop.call_soon_threadsafe(self._schedules.on_definition, key)

    async def _handle_events(self, batch: list[Stored]) -> Output:
        """Match a batch; what finds no workflow is looked at again with all definitions there are.

        Definitions arrive a few milliseconds after they were saved; asking Kafka for the end of
        their topic before every batch would cost more than the matching (docs/performance.md).
        """
        if monotonic() - self._caught_up > FRESH_S:
            await self._catch_up()
        repeats = await repeated(self._deliveries, batch)
        found = [_one(stored, self._taker(stored, repeats), self._pipeline) for stored in batch]
        unmatched, awaited = (any(part.unmatched for part in found), any(p.awaited for p in found))
        if unmatched:
            await self._catch_up()
        if awaited:  # a step that waits since a moment ago must not miss it
            await _until_reached(self._waits_tail.catch_up)
        if unmatched or awaited:
            found = [
                _one(stored, self._pipeline.on_event, self._pipeline)
                if part.unmatched or part.awaited
                else part
                for stored, part in zip(batch, found, strict=True)
            ]
        joined = _joined(found)
        joined.records += await self._waking.results(joined.wakes)
        return joined

    def _taker(self, stored: Stored, repeats: Mapping[Place, Place]) -> _Take:
        """Say who takes an event."""
        first = repeats.get(stored.place) if repeats else None
        if first is None:
            return self._pipeline.on_event
        return functools.partial(self._pipeline.on_repeat, first)

    async def _catch_up(self) -> None:
        began = monotonic()
        await _until_reached(self._tail.catch_up)
        self._caught_up = began

    async def _handle_results(self, batch: list[Stored]) -> Output:
        for partition in {stored.place.partition for stored in batch}:
            while not self._memory.has(partition):
                await _until_reached(functools.partial(self._memory.restore, partition))
        found = [_one(each, self._pipeline.on_result, self._pipeline) for each in batch]
        if any(part.unmatched for part in found):  # a replay by a version that was saved just now
            await self._catch_up()
            found = [
                _one(each, self._pipeline.on_result, self._pipeline) if part.unmatched else part
                for each, part in zip(batch, found, strict=True)
            ]
        return _joined(found)

    async def queue_events(self, stream: AsyncIterator[Any]) -> None:
        """Agent of the events topic."""
        async for event in stream:
            await self._events.room()
            self._events.add(FromFaust.of(event))

    def _take_results(self, batch: list[Taken]) -> None:
        for taken in batch:
            self._results.add(FromConsumer(self._consumer, taken))

    async def _until_over(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set; raise when Faust has died, which it does silently."""
        while not stop.is_set():
            if self._app.should_stop or self._app.consumer.should_stop:
                raise RouterStuckError("Faust's consumer has died; its log says why.")
            for failure in (self._consumer.failure, self._table.failure):
                if failure is not None:
                    raise failure
            try:
                await asyncio.wait_for(stop.wait(), WATCH_S)
            except TimeoutError:
                continue

    def on_assigned(self) -> None:
        """Note that events are read."""
        self._follows_events = True

    @property
    def ready(self) -> bool:
        """Whether all topics are read."""
        return self._follows_events and self._consumer.ready and self._table.ready

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then carry on what is queued and commit."""
        await self._publisher.start()
        await tell_gaps("router", self._bootstrap, GROUP, [EVENTS])
        await tell_gaps("router", self._bootstrap, RESULTS_GROUP, [RESULTS])
        for tail in (self._tail, self._waits_tail):
            tail.start()
            await _until_reached(tail.catch_up)
        served = (self._events, self._results, self._timers, self._waking, self._schedules)
        loops = [asyncio.create_task(each.serve()) for each in served]
        self._app.finalize()
        await self._app.maybe_start()
        self._consumer.start()
        self._table.start()
        watch = asyncio.create_task(self._until_over(stop))
        await asyncio.wait([watch, *loops], return_when=asyncio.FIRST_COMPLETED)
        self._follows_events = False
        failed = [task.exception() for task in (watch, *loops) if task.done()]
        if not any(failed):
            drained = asyncio.gather(self._events.drained(), self._results.drained())
            await asyncio.wait([asyncio.ensure_future(drained)], timeout=DRAIN_S)
        await asyncio.gather(
            asyncio.to_thread(self._consumer.close), asyncio.to_thread(self._table.close)
        )
        await self._app.stop()
        for task in (watch, *loops):
            task.cancel()
        await asyncio.gather(watch, *loops, return_exceptions=True)
        await self._publisher.close()
        await self._deliveries.close()
        self._tail.close()
        self._waits_tail.close()
        self._places.close()
        self._wait_places.close()
        for error in failed:
            if error is not None:
                raise error


class RouterStuckError(NeighbourhoodError):
    """Faust has crashed, or takes nothing although there is something: end, and be restarted."""

    default_code = "router_stuck"


async def _until_reached(call: Callable[[], None]) -> None:
    """Run a blocking call on a thread; again and again while Kafka is away."""
    while True:
        try:
            await asyncio.to_thread(call)
        except DependencyDown as error:
            _log.warning("kafka.unreachable", detail=error.detail or error.public)
            await asyncio.sleep(RETRY_S)
        else:
            return


def _one(stored: Stored, handle: _Take, pipeline: Pipeline) -> Output:
    """Handle a record; one that breaks us is kept aside, so that the rest of its batch goes on."""
    output = Output()
    try:
        handle(stored, output)
    except Exception as error:  # noqa: BLE001 - one bad record must not stop a partition
        _log.exception("record.broke_the_router", place=str(stored.place))
        output = Output()
        reason = f"The router failed on this record ({type(error).__name__}); report it."
        pipeline.dead_letter(stored, "refused", "router_error", reason, output)
    return output


def _joined(parts: list[Output]) -> Output:
    joined = Output()
    for part in parts:
        joined.records.extend(part.records)
        joined.afterwards.extend(part.afterwards)
        joined.wakes.extend(part.wakes)
    return joined


def _faust_app(bootstrap: str, folder: Path, router: Router) -> Any:  # noqa: ANN401 - untyped
    """Build the Faust app: one agent, raw bytes, no tables, no web server, no leader topic."""
    app = faust.App(
        GROUP,
        broker=f"kafka://{bootstrap.replace(',', ';kafka://')}",
        datadir=str(folder),
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=8 * 1024 * 1024,
        broker_session_timeout=10,
        broker_heartbeat_interval=2,
        broker_commit_interval=0.5,
        broker_check_crcs=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=INTAKE_MAX,
        worker_redirect_stdouts=False,
    )
    events = app.topic(EVENTS, key_type=bytes, value_type=bytes, acks=True)
    app.agent(events, name=EVENTS, concurrency=1)(_agent(router.queue_events))

    @app.on_partitions_assigned.connect
    async def assigned(*_: object, **__: object) -> None:
        router.on_assigned()

    return app


def _agent(queue: Callable[[AsyncIterator[Any]], Any]) -> Callable[[Any], Any]:
    async def take(stream: Any) -> None:  # noqa: ANN401 - a Faust stream, untyped
        await queue(stream.noack().events())

    return take


async def serve(settings: Settings) -> None:
    """Run the router until SIGTERM or SIGINT."""
    configure_logging("router", settings.log_level)
    router = Router(settings)
    ops = start_ops_server(settings.host, settings.ops_port, lambda: router.ready)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await router.run(stop)
    finally:
        ops.close()
