"""Brings a broker into the state that topics.yaml declares, and tells where it differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from schemas.errors import DependencyDown
from schemas.topics import Topic

if TYPE_CHECKING:
    from concurrent.futures import Future

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What was made and what differs.

    Attributes:
        created: Topics and partitions made now.
        drift: One sentence per setting of the broker that differs from the file; left as it is.
    """

    created: list[str]
    drift: list[str]


def ensure_topics(
    bootstrap: str,
    declared: Sequence[tuple[str, Topic]],
    *,
    partitions: int = 0,
    replication: int = 1,
    create: bool = True,
) -> TopicReport:
    """Create what is missing; doing it again changes nothing.

    Args:
        bootstrap: Kafka's address.
        declared: Names and topics (`schemas.topics.concrete_topics`).
        partitions: Instead of the declared number where that is over 1; 0: as declared.
        replication: Copies of each partition.
        create: False: only tell.

    Raises:
        DependencyDown: Kafka does not answer or refuses.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "client.id": "nhood-admin"})
    try:
        there = admin.list_topics(timeout=_TIMEOUT_S).topics
        wanted = {name: _count(topic, partitions) for name, topic in declared}
        missing = [(name, topic) for name, topic in declared if name not in there]
        narrow = [n for n in wanted if n in there and len(there[n].partitions) < wanted[n]]
        drift = [f"{name} does not exist." for name, _ in missing] if not create else []
        if create:
            _create(admin, missing, wanted, replication)
            _widen(admin, {name: wanted[name] for name in narrow})
        drift += _drift(admin, [pair for pair in declared if pair[0] in there])
    except KafkaException as error:
        raise DependencyDown(
            "Kafka does not let us set up its topics.", code="kafka_down", detail=str(error)
        ) from error
    return TopicReport([*(name for name, _ in missing), *narrow] if create else [], drift)


def _count(topic: Topic, override: int) -> int:
    return override if override and topic.partitions > 1 else topic.partitions


def _create(
    admin: AdminClient,
    missing: Sequence[tuple[str, Topic]],
    wanted: dict[str, int],
    replication: int,
) -> None:
    if not missing:
        return
    topics = [
        NewTopic(
            name,
            num_partitions=wanted[name],
            replication_factor=replication,
            config=topic.config(),
        )
        for name, topic in missing
    ]
    _settle(admin.create_topics(topics, operation_timeout=_TIMEOUT_S))


def _widen(admin: AdminClient, wanted: dict[str, int]) -> None:
    if wanted:
        parts = [NewPartitions(name, count) for name, count in wanted.items()]
        _settle(admin.create_partitions(parts, operation_timeout=_TIMEOUT_S))


def _settle(futures: "dict[str, Future[None]]") -> None:
    """Wait for all; a topic that another process made meanwhile is as good as made."""
    for future in futures.values():
        try:
            future.result(_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _drift(admin: AdminClient, declared: Sequence[tuple[str, Topic]]) -> list[str]:
    if not declared:
        return []
    resources = {ConfigResource(ResourceType.TOPIC, name): topic for name, topic in declared}
    answers = admin.describe_configs(list(resources))
    found = []
    for resource, topic in resources.items():
        actual = answers[resource].result(_TIMEOUT_S)
        for name, value in topic.config().items():
            has = actual[name].value if name in actual else None
            if set(str(has).split(",")) != set(value.split(",")):
                found.append(f"{resource.name}: {name} is {has}, topics.yaml says {value}.")
    return found
