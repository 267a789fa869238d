"""Holds a compacted topic's partitions as somebody's state: shared out by a group, read whole.

    assigned ─▶ every record from the beginning ─▶ whole ─▶ what comes new …  ─▶ lost

Nothing is ever committed, so each assignment reads its partitions from their beginning.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from wire.bus import Stored, stored

_log = structlog.get_logger()

_POLL_S = 0.2
_BATCH = 500
_AHEAD = 2  # batches that may wait for the event loop: bounds memory while much is read
_RPC_S = 10.0

Row = TypeVar("Row")
RowIn = TypeVar("RowIn", contravariant=True)


class Holder(Protocol[RowIn]):
    """Keeps the state; called on the event loop."""

    def on_rows(self, rows: Sequence[RowIn]) -> None:
        """Take in records, in the order of their partition."""

    def on_whole(self, partition: int, partitions: int) -> None:
        """Note that a partition was read to its end; may come again.

        Args:
            partition: Which one.
            partitions: How many the topic has.
        """

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Drop partitions: another member has them now."""


class TableConsumer(Generic[Row]):
    """One member of the group.

    Args:
        bootstrap: Kafka's address.
        group: Consumer group.
        topic: What to read.
        read: Makes a row of a record, on the consumer's thread: the small part that is kept.
        holder: Who keeps it.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topic: str,
        read: Callable[[Stored], Row],
        holder: Holder[Row],
    ) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "client.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "partition.assignment.strategy": "roundrobin",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2_000,
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 2,
            }
        )
        self._topic = topic
        self._read = read
        self._holder = holder
        self._partitions = 0
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"table-{topic}", daemon=True)
        self.ready = False
        self.failure: Exception | None = None

    def start(self) -> None:
        """Join the group and begin to read."""
        self._thread.start()

    def close(self, timeout_s: float = 30) -> None:
        """Leave the group; blocks."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _serve(self) -> None:
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke
            )
            while not self._stop.is_set():
                first = self._consumer.poll(_POLL_S)
                if first is not None:
                    self._hand_over([first, *self._consumer.consume(_BATCH, timeout=0)])
            self._consumer.close()
        except Exception as error:  # noqa: BLE001 - told to whoever watches over this thread
            self.failure = error
            _log.error("table.died", topic=self._topic, error=str(error))

    def _hand_over(self, messages: Sequence[Message]) -> None:
        """Give what was read to the loop, in order; waits while the loop is behind."""
        rows: list[Row] = []
        for message in messages:
            error = message.error()
            if error is None:
                rows.append(self._read(stored(message)))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._tell_rows(rows)
                rows = []
                self._call(self._holder.on_whole, message.partition(), self._partitions)
            else:
                _log.warning("table.error", topic=self._topic, error=str(error))
        self._tell_rows(rows)

    def _tell_rows(self, rows: list[Row]) -> None:
        while rows and not self._stop.is_set():
            if self._room.acquire(timeout=_POLL_S):
                self._call(self._take_in, rows)
                return

    def _take_in(self, rows: list[Row]) -> None:
        self._room.release()
        self._holder.on_rows(rows)

    def _call(self, what: Callable[..., None], *words: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *words)
        except RuntimeError:  # the loop is over: so are we
            self._stop.set()

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        known = self._consumer.list_topics(self._topic, timeout=_RPC_S).topics[self._topic]
        self._partitions = len(known.partitions)
        self.ready = True
        _log.info("table.assigned", topic=self._topic, partitions=len(partitions))

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._call(self._holder.on_lost, [each.partition for each in partitions])
