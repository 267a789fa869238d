"""The bus: records go to a log and are on it when `publish` returns.

    Publisher       port: publish(records) -> a Place or an error for each
    Log             port: read back what stands at a place
    KafkaPublisher, KafkaLog    Apache Kafka through confluent-kafka (librdkafka)
    MemoryBus       both ports in memory, for tests and the simulation; proven by the same suite

Keys meet: every client of ours places keys by murmur2 as Java clients and Faust do; librdkafka's
own default (CRC32) would put 921 of 1,000 keys elsewhere (design §5).
"""

import asyncio
import contextlib
import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from aiokafka.partitioner import murmur2
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from msgspec import Struct, field

from schemas.errors import DependencyDown, NeighbourhoodError, TooLarge
from schemas.events import Place

MAX_RECORD_BYTES = 8 * 1024 * 1024  # as topics.yaml allows; librdkafka refuses larger ones itself
PARTITIONER = "murmur2_random"
_POLL_S = 0.2
_FULL_QUEUE_WAIT_S = 0.01
_RPC_S = 10.0


class Record(Struct, frozen=True):
    """What is to be written.

    Attributes:
        partition: Explicit partition; None: chosen by the key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class Stored(Struct, frozen=True):
    """What stands in the log."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes] = field(default_factory=dict)
    time_ms: int = 0


class Publisher(Protocol):
    """Writes records durably."""

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        """Write all; one answer per record, in their order, once its fate is known.

        Returns:
            The place of a record that every in-sync replica has, or why it is not there.
        """
        ...


class Log(Protocol):
    """Reads records back."""

    async def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Stored]:
        """Give up to `limit` records from `offset` on; fewer at the end of the log."""
        ...

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Give the first offset that is still there and the next one to be written, a partition."""
        ...

    async def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        """Give each partition's first offset of this time (UTC) or later, else its end."""
        ...


async def publish_all(publisher: Publisher, records: Sequence[Record]) -> list[Place]:
    """Write all or raise the first error; some may be on the log all the same.

    Raises:
        NeighbourhoodError: What `publish` answered for the first record that failed.
    """
    places: list[Place] = []
    for answer in await publisher.publish(records):
        if isinstance(answer, NeighbourhoodError):
            raise answer
        places.append(answer)
    return places


class _Wakeups:
    """Wakes the loop once for all batches that became whole since it last looked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._whole: deque[asyncio.Future[None]] = deque()
        self._called = False

    def whole(self, done: "asyncio.Future[None]") -> None:
        """Note a batch that is whole; runs on any thread."""
        self._whole.append(done)
        if not self._called:
            self._called = True
            # The loop may be closed already when a late report comes in after a shutdown.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        # Cleared first: a batch that becomes whole from here on calls again.
        self._called = False
        while self._whole:
            done = self._whole.popleft()
            if not done.done():
                done.set_result(None)


class _Batch:
    """Collects the delivery reports of one `publish` call."""

    __slots__ = ("_settled", "_wakeups", "answers", "done")

    def __init__(self, size: int, wakeups: _Wakeups) -> None:
        self._wakeups = wakeups
        self._settled = itertools.count(1)  # next() is atomic: two threads settle
        self.answers: list[Place | NeighbourhoodError | None] = [None] * size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def reporter(self, index: int) -> "Callable[[KafkaError | None, Message], None]":
        def report(error: KafkaError | None, message: Message) -> None:
            self.settle(index, _answer(error, message))

        return report

    def settle(self, index: int, answer: Place | NeighbourhoodError) -> None:
        """Note one fate; runs on the polling thread, and on the loop where produce refused."""
        self.answers[index] = answer
        if next(self._settled) == len(self.answers):
            self._wakeups.whole(self.done)


def _answer(error: KafkaError | None, message: Message) -> Place | NeighbourhoodError:
    if error is not None:
        return _translate(error)
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        return DependencyDown("Kafka acknowledged a record without saying where it is.")
    return Place(topic, partition, offset)


def _translate(error: KafkaError) -> NeighbourhoodError:
    if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        return TooLarge(
            f"The record is larger than {MAX_RECORD_BYTES} bytes.", code="record_too_large"
        )
    return DependencyDown(
        "Kafka did not acknowledge the record; try again.", code="kafka_down", detail=str(error)
    )


class KafkaPublisher:
    """Publishes through one idempotent producer with acks=all; a thread serves its reports."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        *,
        delivery_timeout_ms: int = 30_000,
        linger_ms: float = 1,
    ) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": PARTITIONER,
                "linger.ms": linger_ms,
                "delivery.timeout.ms": delivery_timeout_ms,
                "message.max.bytes": MAX_RECORD_BYTES,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 50_000,
                "queue.buffering.max.kbytes": 131_072,
                "log_level": 2,
            }
        )
        self._wakeups: _Wakeups | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-reports", daemon=True)

    async def start(self) -> None:
        """Begin to serve delivery reports."""
        self._thread.start()

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        """Write all (see `Publisher.publish`); waits while librdkafka's queue is full."""
        if not records:
            return []
        if self._wakeups is None:
            self._wakeups = _Wakeups()
        batch = _Batch(len(records), self._wakeups)
        for index, record in enumerate(records):
            while not self._produce(record, batch, index):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_FULL_QUEUE_WAIT_S)
        await batch.done
        return [answer for answer in batch.answers if answer is not None]

    def _produce(self, record: Record, batch: _Batch, index: int) -> bool:
        """Hand one record to librdkafka; False where its queue is full."""
        extra = {} if record.partition is None else {"partition": record.partition}
        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=batch.reporter(index),
                **extra,  # type: ignore[arg-type]  # the stub wants each by name
            )
        except BufferError:
            return False
        except KafkaException as error:
            batch.settle(index, _translate(error.args[0]))
        return True

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(_POLL_S)

    async def close(self, timeout_s: float = 10) -> int:
        """Wait for what is under way and end; publish nothing after.

        Returns:
            How many records had no answer when the time was up.
        """
        left: int = await asyncio.to_thread(self._producer.flush, timeout_s)
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, timeout_s)
        # Its connections and threads end here, not whenever Python collects it; what is left over
        # is given up, or close would wait for it once more.
        if left:
            self._producer.purge()
        await asyncio.to_thread(self._producer.close)
        return left


class KafkaLog:
    """Reads single places of the log with a consumer that belongs to no group's offsets."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._server: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "log_level": 2,
        }
        self._config = self._server | {
            "group.id": f"{client_id}-reads",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
        self._admin: AdminClient | None = None

    async def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Stored]:
        """Give up to `limit` records (see `Log.read`).

        Raises:
            DependencyDown: Kafka does not answer, or retention has deleted the place.
        """
        return await asyncio.to_thread(self._read, TopicPartition(topic, partition, offset), limit)

    def _read(self, start: TopicPartition, limit: int) -> list[Stored]:
        consumer = Consumer(self._config)
        found: list[Stored] = []
        try:
            consumer.assign([start])
            while len(found) < limit:
                message = consumer.poll(10)
                if message is None:
                    raise DependencyDown("Kafka did not answer within 10 s.", code="kafka_down")
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    break
                if error is not None:
                    raise DependencyDown(
                        "The log could not be read at this place.", detail=str(error)
                    )
                found.append(stored(message))
        finally:
            consumer.close()
        return found

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """See `Log.bounds`.

        Raises:
            DependencyDown: Kafka does not answer.
        """
        return await asyncio.to_thread(self._bounds, topic)

    async def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        """See `Log.offsets_at`; by the time that the writer gave the record.

        Raises:
            DependencyDown: Kafka does not answer.
        """
        return await asyncio.to_thread(self._offsets_at, topic, time_ms)

    def _bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        first = self._offsets(topic, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        end = self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {partition: (low, end[partition]) for partition, low in first.items()}

    def _offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        found = self._offsets(topic, OffsetSpec.for_timestamp(time_ms))
        end = self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {number: end[number] if at < 0 else at for number, at in found.items()}

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        """Ask for one offset of each partition."""
        if self._admin is None:
            self._admin = AdminClient(self._server)
        try:
            known = self._admin.list_topics(topic, timeout=_RPC_S).topics[topic]
            if known.error is not None:
                raise DependencyDown("Kafka has no such topic.", detail=str(known.error))
            wanted = {TopicPartition(topic, number): spec for number in known.partitions}
            answers = self._admin.list_offsets(wanted, request_timeout=_RPC_S)
            return {place.partition: int(a.result(_RPC_S).offset) for place, a in answers.items()}
        except (KafkaException, TimeoutError) as error:
            self._admin = None  # it may know a leader's epoch that is over (see `wire.tail`)
            raise DependencyDown(
                "Kafka does not answer; try again.", code="kafka_down", detail=str(error)
            ) from error


def stored(message: Message) -> Stored:
    """Turn a consumed message into a value of ours; repeated headers keep the last."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise DependencyDown("Kafka gave a record without a place.")
    pairs = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    headers = {name: value or b"" for name, value in pairs}
    place = Place(topic, partition, offset)
    return Stored(place, message.key(), message.value(), headers, message.timestamp()[1])


def partition_of(key: bytes, partitions: int) -> int:
    """Say where a key goes, as Java's, Faust's and our librdkafka's partitioner all do."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class MemoryBus:
    """The log as lists, for tests: same ports, same places, nothing kept."""

    def __init__(self, partitions: dict[str, int]) -> None:
        self._counts = partitions
        self._logs: dict[tuple[str, int], list[Stored]] = defaultdict(list)
        self._turn = 0

    async def publish(self, records: Sequence[Record]) -> list[Place | NeighbourhoodError]:
        """Append all (see `Publisher.publish`)."""
        return [self._append(record) for record in records]

    def _append(self, record: Record) -> Place | NeighbourhoodError:
        count = self._counts.get(record.topic)
        if count is None:
            return DependencyDown("Kafka has no such topic.", code="kafka_down")
        if len(record.value or b"") + len(record.key or b"") > MAX_RECORD_BYTES:
            return TooLarge(
                f"The record is larger than {MAX_RECORD_BYTES} bytes.", code="record_too_large"
            )
        if record.partition is not None:
            partition = record.partition
        elif record.key is None:
            self._turn += 1
            partition = self._turn % count
        else:
            partition = partition_of(record.key, count)
        log = self._logs[record.topic, partition]
        place = Place(record.topic, partition, len(log))
        log.append(Stored(place, record.key, record.value, dict(record.headers)))
        return place

    async def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Stored]:
        """Give up to `limit` records (see `Log.read`)."""
        return self._logs[topic, partition][offset : offset + limit]

    async def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Give the extent of each partition (see `Log.bounds`)."""
        return {n: (0, len(self._logs[topic, n])) for n in range(self._counts[topic])}

    async def offsets_at(self, topic: str, time_ms: int) -> dict[int, int]:
        """Find a time in each partition (see `Log.offsets_at`)."""
        found = {}
        for number in range(self._counts[topic]):
            log = self._logs[topic, number]
            later = (at for at, kept in enumerate(log) if kept.time_ms >= time_ms)
            found[number] = next(later, len(log))
        return found
