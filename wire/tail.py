"""Reads topics whole, outside any consumer group: what a compacted topic says, kept up to date."""

import threading
import time
from collections.abc import Callable, Iterator

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from schemas.errors import DependencyDown
from wire.bus import Stored, stored

_POLL_S = 0.5
_RPC_S = 10
_BATCH = 500
_RETRY_S = 0.1


def _consumer(bootstrap: str, client_id: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "group.id": f"{client_id}-tail",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 500,
            "log_level": 2,
        }
    )


def read_to_end(
    bootstrap: str, client_id: str, topic: str, partition: int, start: int = OFFSET_BEGINNING
) -> Iterator[Stored]:
    """Give every record from `start` to the end that the partition has now; blocks.

    Raises:
        DependencyDown: Kafka does not answer.
    """
    consumer = _consumer(bootstrap, client_id)
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_RPC_S)
        consumer.assign([TopicPartition(topic, partition, start)])
        position = low if start < 0 else start
        quiet_until = time.monotonic() + _RPC_S
        while position < high:
            messages = _take(consumer)
            for message in messages:
                yield stored(message)
            # Compaction and transactions leave holes: only the position tells where we are.
            position = consumer.position([TopicPartition(topic, partition)])[0].offset
            if messages:
                quiet_until = time.monotonic() + _RPC_S
            elif time.monotonic() > quiet_until:
                raise DependencyDown(f"{topic}[{partition}] cannot be read to its end.")
    except KafkaException as error:
        raise DependencyDown(f"{topic}[{partition}] cannot be read.", detail=str(error)) from error
    finally:
        consumer.close()


def _take(consumer: Consumer) -> list[Message]:
    """Wait for one message, then take what else is there; errors are retried by librdkafka."""
    first = consumer.poll(_POLL_S)
    if first is None:
        return []
    return [m for m in (first, *consumer.consume(_BATCH, timeout=0)) if m.error() is None]


class Tail:
    """Follows one single-partition topic from its beginning on a thread of its own.

    `on_record` is called on that thread for every record, in order.
    """

    def __init__(
        self, bootstrap: str, client_id: str, topic: str, on_record: Callable[[Stored], None]
    ) -> None:
        self._consumer = _consumer(bootstrap, client_id)
        self._server: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
        }
        self._admin = AdminClient(self._server)
        self._partition = TopicPartition(topic, 0)
        self._on_record = on_record
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._position = -1
        self._thread = threading.Thread(target=self._serve, name=f"tail-{topic}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_RPC_S)

    def catch_up(self, timeout_s: float = _RPC_S) -> None:
        """Return once everything that the topic held at the time of the call was taken in.

        Raises:
            DependencyDown: Kafka does not answer, or the thread did not get there in time.
        """
        high = self._end(timeout_s)
        with self._moved:
            if not self._moved.wait_for(lambda: self._position >= high, timeout_s):
                raise DependencyDown(f"{self._partition.topic} cannot be followed.")

    def _end(self, timeout_s: float) -> int:
        """Ask for the end of the log; not through the consumer, which blocks while it is polled."""
        wanted = {TopicPartition(self._partition.topic, 0): OffsetSpec.latest()}  # type: ignore[no-untyped-call]
        until = time.monotonic() + timeout_s
        while True:
            try:
                (answer,) = self._admin.list_offsets(wanted, request_timeout=timeout_s).values()
                return int(answer.result(timeout_s).offset)
            except (KafkaException, TimeoutError) as error:
                # A topic made a moment ago, or a broker just back, has no leader yet. An admin
                # client goes on asking with the leader's epoch that it knows, which a broker that
                # crashed refuses for as long as metadata is kept (five minutes): take a new one.
                self._admin = AdminClient(self._server)
                if time.monotonic() + _RETRY_S > until or self._stop.wait(_RETRY_S):
                    raise DependencyDown("Kafka does not answer.", detail=str(error)) from error

    def _serve(self) -> None:
        topic, number = self._partition.topic, self._partition.partition
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
        while not self._stop.is_set():
            messages = _take(self._consumer)
            for message in messages:
                self._on_record(stored(message))
            if messages or self._position < 0:
                self._note_position()
        self._consumer.close()

    def _note_position(self) -> None:
        offset = self._consumer.position([self._partition])[0].offset
        with self._moved:
            # Nothing was read yet: an empty topic stands at 0 (OFFSET_INVALID is negative).
            self._position = max(offset, 0)
            self._moved.notify_all()
