"""Drops the read tables and makes them again from the log: `nhood rebuild executions`.

The log is the truth: what it holds comes back, nothing else does. A projector that runs meanwhile
waits (it shares the lock of `rows.LOCK`) and goes on where the rebuild ended.
"""

import contextlib
from collections.abc import Callable

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from control.projections.app import NOT_STORABLE, bury, store
from control.projections.reader import (
    TOPICS,
    Batch,
    Unusable,
    consumer_config,
    fold,
    take,
)
from control.projections.rows import LOCK, PROJECTION, Positions
from schemas.errors import DependencyDown
from schemas.events import Place
from schemas.settings import Settings
from wire.bus import KafkaPublisher, Publisher
from wire.database import connection, open_pool

TABLES = ("executions", "steps", "event_outcomes", "dead_letters", "step_waits")
_RPC_S = 10.0
_POLL_S = 1.0
# This many empty polls in a row with records still ahead: the broker does not give them.
_PATIENCE = 30
_log = structlog.get_logger()

# Told (records read, records there were at the start).
Progress = Callable[[int, int], None]


async def rebuild(settings: Settings, progress: Progress | None = None) -> dict[str, int]:
    """Make the read tables again; blocks the event loop while Kafka is read.

    Returns:
        Rows per table, and `records`: how many were read.

    Raises:
        DependencyDown: Postgres or Kafka is away; run it again.
    """
    bootstrap = settings.kafka_bootstrap_servers
    pool = await open_pool(settings.database_url.reveal(), max_size=1, name="rebuild")
    publisher = KafkaPublisher(bootstrap, "nhood-rebuild")
    await publisher.start()
    config = consumer_config(bootstrap, "nhood-rebuild") | {"group.id": "nhood-rebuild"}
    consumer = Consumer(config)
    try:
        async with connection(pool) as borrowed:
            await borrowed.set_autocommit(True)
            await borrowed.execute(f"SELECT pg_advisory_lock({LOCK})")
            try:
                return await _again(consumer, borrowed, publisher, progress or _quiet)
            finally:
                await borrowed.execute(f"SELECT pg_advisory_unlock({LOCK})")
                await borrowed.set_autocommit(False)
    except KafkaException as error:
        raise DependencyDown("Kafka does not answer; run it again.", detail=str(error)) from error
    finally:
        consumer.close()
        await publisher.close()
        await pool.close()


def _quiet(_read: int, _total: int) -> None:
    """Tell nobody."""


async def _again(
    consumer: Consumer,
    borrowed: AsyncConnection[TupleRow],
    publisher: Publisher,
    progress: Progress,
) -> dict[str, int]:
    ends = _ends(consumer)
    total = sum(high - low for low, high in ends.values())
    async with borrowed.transaction():
        await borrowed.execute(f"TRUNCATE {', '.join(TABLES)}")
        await borrowed.execute(
            "DELETE FROM projection_offsets WHERE projection = %s", (PROJECTION,)
        )
    consumer.assign([TopicPartition(*key, OFFSET_BEGINNING) for key in ends])
    left = {key for key, (low, high) in ends.items() if high > low}
    unusable: list[Unusable] = []
    positions: Positions = {}
    read = silent = 0
    while left:
        batch = fold(take(consumer, _POLL_S))
        silent = 0 if batch.messages else silent + 1
        if silent > _PATIENCE:
            raise DependencyDown("Kafka does not give the rest of the log; run it again.")
        if batch.messages:
            unusable += await _write(borrowed, positions, batch)
            positions |= batch.positions
        read += len(batch.messages)
        progress(read, total)
        # Holes at the end (control records) have an offset, but no message.
        places = consumer.position([TopicPartition(*key) for key in left])
        left -= {
            (p.topic, p.partition) for p in places if p.offset >= ends[p.topic, p.partition][1]
        }
    buried = await _buried(borrowed) if unusable else set()
    await bury(publisher, [item for item in unusable if item[0].place not in buried])
    return {"records": read} | {table: await _count(borrowed, table) for table in TABLES}


async def _write(
    borrowed: AsyncConnection[TupleRow], positions: Positions, batch: Batch
) -> list[Unusable]:
    for strict in (False, True):
        with contextlib.suppress(*NOT_STORABLE):
            async with borrowed.transaction():
                await borrowed.execute("SET LOCAL synchronous_commit = off")
                return await store(borrowed, positions, batch, strict=strict)
    raise DependencyDown("Postgres takes neither the batch nor its records one by one.")


async def _buried(borrowed: AsyncConnection[TupleRow]) -> set[Place]:
    """Give what has a dead letter already, from the first time that it was read."""
    found = await borrowed.execute('SELECT topic, partition, "offset" FROM dead_letters')
    return {Place(*row) for row in await found.fetchall()}


def _ends(consumer: Consumer) -> dict[tuple[str, int], tuple[int, int]]:
    """Find the first and the end offset of each partition."""
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    for topic in TOPICS:
        found = consumer.list_topics(topic, timeout=_RPC_S).topics[topic]
        if found.error is not None:
            raise DependencyDown(f"Kafka does not know {topic}.", detail=str(found.error))
        for number in found.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), _RPC_S)
            ends[topic, number] = (low, high)
    return ends


async def _count(borrowed: AsyncConnection[TupleRow], table: str) -> int:
    found = await borrowed.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - from TABLES
    row = await found.fetchone()
    return int(row[0]) if row else 0
