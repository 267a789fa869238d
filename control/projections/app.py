"""The projector: follows the log and keeps the read tables in Postgres up to date.

Rows and positions are written in one transaction, so a crash at any moment is harmless: the next
start goes on exactly behind the last rows. A record that cannot be read goes to the dead-letter
topic and the others go on; a database that is away is waited for.
"""

import asyncio
import contextlib
import signal
from collections import Counter as Counts
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg
import structlog
from confluent_kafka import OFFSET_BEGINNING as BEGINNING
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from prometheus_client import Counter, Histogram
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from control.completeness import Watch, watching
from control.projections.executions import Changes
from control.projections.reader import (
    TOPICS,
    Batch,
    Unusable,
    burial,
    consumer_config,
    fold,
    lag_of,
    place_of,
    take,
)
from control.projections.rows import LOCK, Positions, move_positions, read_positions, write
from schemas import codec
from schemas.errors import CorruptEvent, DependencyDown, NeighbourhoodError
from schemas.settings import Settings
from wire.bus import KafkaLog, KafkaPublisher, Publisher, publish_all, stored
from wire.clock import now_us
from wire.database import Pool, connection, migrate, open_pool
from wire.telemetry import DEADLETTERS, LAG, configure_logging, start_ops_server

RETRY_S = 1.0
NOT_STORABLE = (psycopg.DataError, psycopg.errors.StatementTooComplex)
_STAGE = "projector"
# A crash of the database may lose rows, but never without their positions: they are read again.
_BEGIN = (
    f"SELECT set_config('synchronous_commit', 'off', true), pg_advisory_xact_lock_shared({LOCK})"
)

RECORDS = Counter("nhood_projector_records", "Records brought into the read tables.", ["topic"])
SECONDS = Histogram(
    "nhood_projector_batch_seconds",
    "Time to write one batch.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
_log = structlog.get_logger()


class Moved(Exception):  # noqa: N818 - a signal inside this package, no error
    """Somebody else moved the stored positions: another projector, or a rebuild."""


async def store(
    borrowed: AsyncConnection[TupleRow], expected: Positions, batch: Batch, *, strict: bool
) -> list[Unusable]:
    """Write a batch's rows and positions in the caller's transaction.

    Args:
        borrowed: The transaction.
        expected: Where the reader believes the stored positions to be.
        batch: What was read.
        strict: Record by record with cleaned texts; for a batch that did not go in as it is.

    Returns:
        What has to be buried before the transaction is committed.

    Raises:
        Moved: The positions are elsewhere; roll back.
        psycopg.DataError: Postgres cannot hold something in it; roll back, and go `strict`.
    """
    unusable = list(batch.bad)
    async with contextlib.AsyncExitStack() as stack:
        if strict:
            for message in batch.messages:
                unusable += await _store_alone(borrowed, message)
        else:
            # One wait for all the statements.
            await stack.enter_async_context(borrowed.pipeline())
            await write(borrowed, batch.changes)
        if not await move_positions(borrowed, expected, batch.positions):
            raise Moved
    return unusable


async def _store_alone(borrowed: AsyncConnection[TupleRow], message: Message) -> list[Unusable]:
    """Write one record with its texts cleaned; give it back where even that fails."""
    changes = Changes(strict=True)
    try:
        changes.take(place_of(message), codec.decode(message.value()))
        async with borrowed.transaction():
            await write(borrowed, changes)
    except CorruptEvent:
        return []  # it is among the batch's bad ones
    except NOT_STORABLE as error:
        reason = f"Postgres cannot hold its content: {error.diag.message_primary}"
        return [(stored(message), CorruptEvent(reason, code="not_storable"))]
    return []


async def bury(publisher: Publisher, unusable: Sequence[Unusable]) -> None:
    """Put records aside and go on.

    Raises:
        DependencyDown: Kafka did not take the dead letters.
    """
    letters = [burial(record, error.code, error.public, now_us()) for record, error in unusable]
    await publish_all(publisher, [letter for letter in letters if letter is not None])
    for record, error in unusable:
        DEADLETTERS.labels(stage=_STAGE, reason=error.code).inc()
        _log.warning("record.dead_lettered", place=str(record.place), code=error.code)


class Projector:
    """One consumer, one writer.

    Attributes:
        ready: Partitions are assigned and their positions known.
        behind: Records on the log that are not in the tables yet.
    """

    def __init__(self, consumer: Consumer, pool: Pool, publisher: Publisher) -> None:
        self._consumer = consumer
        self._pool = pool
        self._publisher = publisher
        self._positions: Positions = {}
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # librdkafka blocks; one thread of its own, so that callbacks never run side by side.
        self._thread = ThreadPoolExecutor(1, "projector-consume")
        self.ready = False
        self.behind = 0

    def stop(self) -> None:
        """Finish the batch under way, then end `run`."""
        self._stop.set()

    async def run(self) -> None:
        """Follow the log until `stop`."""
        self._consumer.subscribe(
            list(TOPICS), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        try:
            while not self._stop.is_set():
                messages = await self._loop.run_in_executor(self._thread, self._consume)
                if messages:
                    await self._take(messages)
        finally:
            self.ready = False
            await self._loop.run_in_executor(self._thread, self._consumer.close)
            self._thread.shutdown()

    def _consume(self) -> list[Message]:
        messages = take(self._consumer)
        lag = lag_of(self._consumer)
        for topic, behind in lag.items():
            LAG.labels(stage=_STAGE, topic=topic).set(behind)
        self.behind = sum(lag.values())
        return messages

    async def _take(self, messages: list[Message]) -> None:
        batch = fold(messages)
        strict = False
        while not self._stop.is_set():
            try:
                with SECONDS.time():
                    await self._write(batch, strict=strict)
            except Moved:
                await self._load()
                await self._loop.run_in_executor(self._thread, self._seek)
                return
            except psycopg.DataError:
                strict = True
                continue
            except NeighbourhoodError as error:
                _log.warning("projector.waits", code=error.code, detail=error.detail)
                await self._pause()
                continue
            self._positions |= batch.positions
            for topic, count in Counts(message.topic() for message in messages).items():
                RECORDS.labels(topic).inc(count)
            return

    async def _write(self, batch: Batch, *, strict: bool) -> None:
        async with connection(self._pool) as borrowed:
            try:
                await borrowed.execute(_BEGIN)
                unusable = await store(borrowed, self._positions, batch, strict=strict)
            except psycopg.errors.StatementTooComplex as error:  # not the server's failure
                raise psycopg.DataError from error
            if unusable:
                await bury(self._publisher, unusable)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), RETRY_S)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start where the tables stand; runs inside `consume`, on its thread."""
        there = asyncio.run_coroutine_threadsafe(self._load(), self._loop).result()
        for partition in partitions:
            partition.offset = there.get((partition.topic, partition.partition), BEGINNING)
        consumer.assign(partitions)
        self.ready = True
        _log.info("projector.assigned", partitions=len(partitions))

    def _revoked(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        self.ready = False
        consumer.unassign()

    def _seek(self) -> None:
        """Go to the stored positions, whichever way."""
        for partition in self._consumer.assignment():
            key = (partition.topic, partition.partition)
            partition.offset = self._positions.get(key, BEGINNING)
            # Taken away in the meantime: then the next owner reads from the right place.
            with contextlib.suppress(KafkaException):
                self._consumer.seek(partition)

    async def _load(self) -> Positions:
        """Read the stored positions, however long the database takes to come back."""
        while not self._stop.is_set():
            try:
                async with connection(self._pool) as borrowed:
                    self._positions = await read_positions(borrowed)
            except DependencyDown as error:
                _log.warning("projector.waits", code=error.code, detail=error.detail)
                await self._pause()
            else:
                break
        return self._positions


async def serve(settings: Settings) -> None:
    """Run the projector until SIGTERM or SIGINT.

    Raises:
        DependencyDown: The database cannot be reached at the start.
    """
    configure_logging(_STAGE, settings.log_level)
    bootstrap = settings.kafka_bootstrap_servers
    url = settings.database_url.reveal()
    await asyncio.to_thread(migrate, url)
    pool = await open_pool(url, max_size=3, name=_STAGE)
    publisher = KafkaPublisher(bootstrap, f"nhood-{_STAGE}")
    await publisher.start()
    projector = Projector(Consumer(consumer_config(bootstrap, f"nhood-{_STAGE}")), pool, publisher)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, projector.stop)
    ops = start_ops_server(settings.host, settings.ops_port, lambda: projector.ready)
    _log.info("projector.started", ops_port=ops.port)
    log = KafkaLog(bootstrap, f"nhood-{_STAGE}")
    try:
        async with watching(Watch(pool, log, behind=lambda: projector.behind)):
            await projector.run()
    finally:
        ops.close()
        await publisher.close()
        await pool.close()
