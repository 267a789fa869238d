"""Tells what Kafka deleted before a stage had read it.

Retention knows no readers: a stage that was stopped for longer than a topic keeps its records goes
on with the oldest one that is left. That must not pass in silence, so a stage compares, before it
begins, where its group stands with where its topics begin (docs/guarantees.md).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from wire.telemetry import DELETED_UNREAD

_RPC_S: Final = 5.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gap:
    """Records of one partition that are gone: from `first` up to, and without, `end`."""

    topic: str
    partition: int
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.first}..{self.end - 1}"


def gaps(bootstrap: str, group: str, topics: Sequence[str]) -> list[Gap]:
    """List what retention deleted before a consumer group had read it; blocks.

    A partition on which the group never committed has no gap: there it begins at the beginning.

    Args:
        bootstrap: Kafka's address.
        group: Consumer group.
        topics: What it reads.

    Raises:
        KafkaException: Kafka does not answer.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    asked = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=_RPC_S
    )
    (answer,) = (future.result(_RPC_S) for future in asked.values())
    stands = {
        (place.topic, place.partition): int(place.offset)
        for place in answer.topic_partitions or ()
        if place.topic in topics and place.offset >= 0 and place.error is None
    }
    if not stands:
        return []
    begins: dict[TopicPartition, Any] = admin.list_offsets(
        {TopicPartition(*place): OffsetSpec.earliest() for place in stands},  # type: ignore[no-untyped-call]
        request_timeout=_RPC_S,
    )
    found = []
    for place, future in begins.items():
        first = stands[place.topic, place.partition]
        end = int(future.result(_RPC_S).offset)
        if end > first:
            found.append(Gap(place.topic, place.partition, first, end))
    return sorted(found, key=str)


async def tell_gaps(stage: str, bootstrap: str, group: str, topics: Sequence[str]) -> None:
    """Write to log and metrics what a stage will never read; never stops its start."""
    try:
        found = await asyncio.to_thread(gaps, bootstrap, group, topics)
    except (KafkaException, TimeoutError) as error:
        _log.warning("retention.not_checked", group=group, error=str(error))
        return
    for gap in found:
        DELETED_UNREAD.labels(stage=stage, topic=gap.topic).inc(gap.end - gap.first)
        _log.error(
            "records.deleted_unread",
            stage=stage,
            records=str(gap),
            count=gap.end - gap.first,
            mend="nhood verify names the events without outcome; docs/guarantees.md says the rest",
        )
