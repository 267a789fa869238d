"""Reads records again that were put off: known offsets, in order, of partitions that are ours.

One consumer without a group is kept; where the next record that is wanted is near, it reads on,
else it is moved there.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import DependencyDown
from wire.bus import Stored, stored

_log = structlog.get_logger()
# Records that are read over on the way to the next: less than a request for another place costs.
NEAR: Final = 2_000
WAIT_S: Final = 10.0
_BATCH: Final = 200
_POLL_S: Final = 0.2


class Reread:
    """Reads again; one call at a time.

    Args:
        bootstrap: Kafka's address.
        client_id: For the broker's log.
    """

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._config = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "group.id": f"{client_id}-reads-again",  # librdkafka wants one; nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 4_096,
            "log_level": 2,
        }
        self._consumer: Consumer | None = None
        self._at: tuple[str, int, int] | None = None
        self._turn = asyncio.Lock()

    async def read(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Stored]:
        """Give the records at these offsets, which grow; one that retention deleted is left out.

        Raises:
            DependencyDown: Kafka does not answer.
        """
        async with self._turn:
            return await asyncio.to_thread(self._read, topic, partition, offsets)

    async def close(self) -> None:
        """Let the consumer go."""
        async with self._turn:
            if self._consumer is not None:
                await asyncio.to_thread(self._consumer.close)
                self._consumer = None

    def _read(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Stored]:
        if self._consumer is None:
            self._consumer = Consumer(self._config)
        found: list[Stored] = []
        try:
            for part in _parts(offsets):
                self._move(topic, partition, part[0])
                found += self._read_part(self._consumer, part)
        except KafkaException as error:
            self._at = None
            raise DependencyDown("Kafka cannot be read.", detail=str(error)) from error
        return found

    def _move(self, topic: str, partition: int, offset: int) -> None:
        assert self._consumer is not None  # noqa: S101 - for the type checker
        if self._at is not None and self._at[:2] == (topic, partition):
            ahead = offset - self._at[2]
            if 0 <= ahead <= NEAR:
                return
        self._consumer.assign([TopicPartition(topic, partition, offset)])
        self._at = (topic, partition, offset)

    def _read_part(self, consumer: Consumer, part: Sequence[int]) -> list[Stored]:
        assert self._at is not None  # noqa: S101 - for the type checker
        wanted, last = set(part), part[-1]
        found: list[Stored] = []
        until = time.monotonic() + WAIT_S
        while self._at[2] <= last:
            count = min(_BATCH, last - self._at[2] + 1)
            messages = consumer.consume(count, timeout=_POLL_S)
            if not messages and time.monotonic() > until:
                self._at = None
                raise DependencyDown("Kafka did not answer within 10 s.", code="kafka_down")
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._AUTO_OFFSET_RESET:
                        _log.error("reread.deleted", at=str(self._at))
                        self._at = None
                        return found
                    continue  # a broker that is away: librdkafka goes on by itself
                record = stored(message)
                place = record.place
                if (place.topic, place.partition) != self._at[:2]:
                    continue  # what was fetched before it was moved
                self._at = (*self._at[:2], place.offset + 1)
                if place.offset in wanted:
                    found.append(record)
        return found


def _parts(offsets: Sequence[int]) -> list[list[int]]:
    """Cut where the way to the next one is long."""
    parts = [[offsets[0]]]
    for before, offset in itertools.pairwise(offsets):
        if offset - before > NEAR:
            parts.append([])
        parts[-1].append(offset)
    return parts
