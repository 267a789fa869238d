"""The router's shell: a Faust app whose agents hand batches to the pipeline.

    Faust (assignment, fetching, commits) ─▶ intake ─▶ pipeline ─▶ confluent-kafka ─▶ ack

Faust reads and commits at least once; nothing rests on its tables or its exactly_once (design §5).
An agent only queues what it gets: one loop per topic takes all that is there, handles it, waits
until the broker has every record it led to, and acknowledges then. So a batch is as large as the
load makes it, and a record that was not carried on is read again.
"""

import asyncio
import functools
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import faust
import structlog

from router.core.match import Definitions
from router.memory import Memory
from router.pipeline import Output, Pipeline
from schemas import codec
from schemas.errors import CorruptEvent, DependencyDown, NeighbourhoodError, TooLarge
from schemas.events import Place, WorkflowVersion
from schemas.provider import load_catalogue
from schemas.settings import Settings
from schemas.topics import DEFINITIONS, EVENTS, PROGRESS, RESULTS
from wire.bus import KafkaPublisher, Publisher, Record, Stored
from wire.clock import now_us
from wire.tail import Tail, read_to_end
from wire.telemetry import configure_logging, start_ops_server

_log = structlog.get_logger()

GROUP = "nhood-router"
BATCH_MAX = 200  # records handled between two waits for the broker
INTAKE_MAX = 2_000  # records queued per topic; Faust stops reading beyond it
LINGER_MS = 0.5  # a batch is published whole: waiting for more gains little
RETRY_S = 0.5  # between two tries to reach Kafka
WATCH_S = 1.0  # between two looks at whether Faust still lives
FRESH_S = 0.25  # how long definitions count as known to the end of their topic
DRAIN_S = 10.0  # for what is queued when the process has to end

Handle = Callable[[list[Stored]], Output]


class Intake:
    """The queue between one Faust agent and its loop; knows nothing of workflows."""

    def __init__(self, handle: "Callable[[list[Stored]], Any]", publisher: Publisher) -> None:
        self._handle = handle
        self._publisher = publisher
        self._queue: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def put(self, event: Any) -> None:  # noqa: ANN401 - a Faust event, untyped
        """Queue one Faust event; waits while the queue is full."""
        await self._room.wait()
        self._queue.append(event)
        self._arrived.set()
        self._idle.clear()
        if len(self._queue) >= INTAKE_MAX:
            self._room.clear()

    async def serve(self) -> None:
        """Handle what comes, batch after batch, for ever."""
        while True:
            await self._arrived.wait()
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            if not self._queue:
                self._arrived.clear()
            self._room.set()
            if batch:
                output = await self._handle([_stored(event) for event in batch])
                await self._carry_on(output)
                for event in batch:
                    event.ack()
            if not self._queue:
                self._idle.set()

    async def _carry_on(self, output: Output) -> None:
        await publish_until_durable(self._publisher, output.records)
        if output.afterwards:
            await publish_until_durable(self._publisher, output.afterwards)

    async def drained(self) -> None:
        """Wait until nothing is queued or being handled."""
        await self._idle.wait()


async def publish_until_durable(publisher: Publisher, records: list[Record]) -> None:
    """Publish again and again until the broker has every record.

    A record that no broker will ever take (too large) is told and left out: its size was bounded
    before, so this is a defect of ours and must not stop the partition.
    """
    left = records
    while left:
        answers = await publisher.publish(left)
        failed = [
            (record, answer)
            for record, answer in zip(left, answers, strict=True)
            if isinstance(answer, NeighbourhoodError)
        ]
        for record, answer in failed:
            if isinstance(answer, TooLarge):
                _log.error("record.too_large", topic=record.topic, key=str(record.key))
        left = [record for record, answer in failed if not isinstance(answer, TooLarge)]
        if left:
            _log.warning("kafka.unreachable", records=len(left))
            await asyncio.sleep(RETRY_S)


def _stored(event: Any) -> Stored:  # noqa: ANN401 - a Faust event, untyped
    message = event.message
    headers = dict(message.headers or ())
    place = Place(message.topic, message.partition, message.offset)
    return Stored(place, message.key, message.value, headers, int(message.timestamp * 1000))


class Router:
    """Everything the router holds; `build_router` puts it together, `run` runs it."""

    def __init__(self, settings: Settings) -> None:
        bootstrap = settings.kafka_bootstrap_servers
        self._bootstrap = bootstrap
        self._definitions = Definitions()
        self._memory = Memory(
            lambda partition: read_to_end(bootstrap, "nhood-router", PROGRESS, partition)
        )
        self._tail = Tail(bootstrap, "nhood-router", DEFINITIONS, self._on_definition)
        self._publisher = KafkaPublisher(
            bootstrap, "nhood-router", delivery_timeout_ms=60_000, linger_ms=LINGER_MS
        )
        catalogue = load_catalogue()
        self._pipeline = Pipeline(
            self._definitions, self._memory, [spec.slug for spec in catalogue], now_us
        )
        self._events = Intake(self._handle_events, self._publisher)
        self._results = Intake(self._handle_results, self._publisher)
        self._app = _faust_app(bootstrap, Path(settings.state_dir) / "router", self)
        self._caught_up = 0.0
        self.ready = False

    def _on_definition(self, stored: Stored) -> None:
        """Take in one record of the definitions topic; runs on the tail's thread."""
        key = (stored.key or b"").decode()
        try:
            version = codec.decode_as(WorkflowVersion, stored.value) if stored.value else None
        except CorruptEvent as error:
            _log.error("definition.unreadable", key=key, code=error.code)
            return
        self._definitions.put(key, version)

    async def _handle_events(self, batch: list[Stored]) -> Output:
        """Match a batch; what finds no workflow is looked at again with all definitions there are.

        Definitions arrive a few milliseconds after they were saved; asking Kafka for the end of
        their topic before every batch would cost more than the matching (docs/performance.md).
        """
        if monotonic() - self._caught_up > FRESH_S:
            await self._catch_up()
        found = [_one(stored, self._pipeline.on_event, self._pipeline) for stored in batch]
        if any(part.unmatched for part in found):
            await self._catch_up()
            found = [
                _one(stored, self._pipeline.on_event, self._pipeline) if part.unmatched else part
                for stored, part in zip(batch, found, strict=True)
            ]
        return _joined(found)

    async def _catch_up(self) -> None:
        began = monotonic()
        await _until_reached(self._tail.catch_up)
        self._caught_up = began

    async def _handle_results(self, batch: list[Stored]) -> Output:
        for partition in {stored.place.partition for stored in batch}:
            if not self._memory.has(partition):
                await _until_reached(functools.partial(self._memory.restore, partition))
        return _joined([_one(each, self._pipeline.on_result, self._pipeline) for each in batch])

    async def queue_events(self, stream: AsyncIterator[Any]) -> None:
        """Agent of the events topic."""
        async for event in stream:
            await self._events.put(event)

    async def queue_results(self, stream: AsyncIterator[Any]) -> None:
        """Agent of the results topic."""
        async for event in stream:
            await self._results.put(event)

    async def _until_over(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set; raise when Faust has died, which it does silently."""
        while not stop.is_set():
            if self._app.should_stop or self._app.consumer.should_stop:
                raise RouterStuckError("Faust's consumer has died; its log says why.")
            try:
                await asyncio.wait_for(stop.wait(), WATCH_S)
            except TimeoutError:
                continue

    def on_rebalance(self) -> None:
        """Forget what another router may write from now on; it is read again when needed."""
        self._memory.forget_partitions()
        self.ready = True

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then carry on what is queued and commit."""
        await self._publisher.start()
        self._tail.start()
        await _until_reached(self._tail.catch_up)
        loops = [asyncio.create_task(intake.serve()) for intake in (self._events, self._results)]
        self._app.finalize()
        await self._app.maybe_start()
        watch = asyncio.create_task(self._until_over(stop))
        await asyncio.wait([watch, *loops], return_when=asyncio.FIRST_COMPLETED)
        self.ready = False
        failed = [task.exception() for task in (watch, *loops) if task.done()]
        if not any(failed):
            drained = asyncio.gather(self._events.drained(), self._results.drained())
            await asyncio.wait([asyncio.ensure_future(drained)], timeout=DRAIN_S)
        await self._app.stop()
        for task in (watch, *loops):
            task.cancel()
        await asyncio.gather(watch, *loops, return_exceptions=True)
        await self._publisher.close()
        self._tail.close()
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


def _one(stored: Stored, handle: Callable[[Stored, Output], None], pipeline: Pipeline) -> Output:
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
    return joined


def _faust_app(bootstrap: str, folder: Path, router: Router) -> Any:  # noqa: ANN401 - untyped
    """Build the Faust app: two agents, raw bytes, no tables, no web server, no leader topic."""
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
    for topic, queue in ((EVENTS, router.queue_events), (RESULTS, router.queue_results)):
        channel = app.topic(topic, key_type=bytes, value_type=bytes, acks=True)
        app.agent(channel, name=topic, concurrency=1)(_agent(queue))

    @app.on_partitions_revoked.connect
    async def revoked(*_: object, **__: object) -> None:
        router.on_rebalance()

    @app.on_partitions_assigned.connect
    async def assigned(*_: object, **__: object) -> None:
        router.on_rebalance()

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
