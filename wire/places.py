"""Reads single records again, by their place; keeps its connection between two calls."""

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import DependencyDown
from schemas.events import Place
from wire.bus import Stored, stored

_POLL_S = 10.0
_NEAR = 200  # records that are rather read over than jumped over
_FETCH_BYTES = 64 * 1024  # around one wanted record; a larger one comes whole all the same


class PlaceReader:
    """Reads records of one topic; blocks, so call it on a thread, one call at a time."""

    def __init__(self, bootstrap: str, client_id: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                "group.id": f"{client_id}-places",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.message.max.bytes": _FETCH_BYTES,
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 4_096,
                "log_level": 2,
            }
        )

    def read(self, places: Sequence[Place]) -> dict[Place, Stored]:
        """Give the records that still stand at these places; compaction may have taken one.

        Raises:
            DependencyDown: Kafka does not answer.
        """
        found: dict[Place, Stored] = {}
        partition, position = -1, -1
        try:
            for place in sorted(places, key=lambda each: (each.partition, each.offset)):
                if place.partition != partition or not 0 <= place.offset - position < _NEAR:
                    start = TopicPartition(self._topic, place.partition, place.offset)
                    self._consumer.assign([start])
                message = self._reach(place.offset)
                partition, position = place.partition, -1
                if message is not None:
                    position = (message.offset() or 0) + 1
                    if message.offset() == place.offset:
                        found[place] = stored(message)
        except KafkaException as error:
            raise DependencyDown(f"{self._topic} cannot be read.", detail=str(error)) from error
        return found

    def _reach(self, offset: int) -> Message | None:
        """Read on to an offset or the first one behind it; None: the end comes before."""
        while True:
            message = self._consumer.poll(_POLL_S)
            if message is None:
                raise DependencyDown(f"{self._topic} cannot be read.", code="kafka_down")
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return None
                raise KafkaException(error)
            if (message.offset() or 0) >= offset:
                return message

    def close(self) -> None:
        """Give the connection back."""
        self._consumer.close()
