"""What Kafka deletes before a stage has read it is told, not passed over in silence."""

import uuid

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import REGISTRY

from wire.bus import KafkaPublisher, Record, publish_all
from wire.retention import Gap, gaps, tell_gaps


@pytest.fixture
async def topic(kafka_topics):
    """A topic of two partitions with ten records in the first, and a group that read three."""
    name, group = f"test.retention.{uuid.uuid4().hex}", f"test-retention-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": kafka_topics})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)
    publisher = KafkaPublisher(kafka_topics, "test-retention")
    await publisher.start()
    await publish_all(publisher, [Record(name, b"k", b"v", partition=0) for _ in range(10)])
    await publisher.close()
    consumer = Consumer({"bootstrap.servers": kafka_topics, "group.id": group})
    consumer.commit(offsets=[TopicPartition(name, 0, 3)], asynchronous=False)
    consumer.close()
    yield kafka_topics, admin, name, group
    admin.delete_topics([name])[name].result(20)


async def test_nothing_is_told_while_all_that_is_unread_is_there(topic):
    bootstrap, admin, name, group = topic
    assert gaps(bootstrap, group, [name]) == []
    admin.delete_records([TopicPartition(name, 0, 3)])
    assert gaps(bootstrap, group, [name]) == []


async def test_deleted_records_are_named_and_counted(topic):
    bootstrap, admin, name, group = topic
    for future in admin.delete_records([TopicPartition(name, 0, 7)]).values():
        future.result(20)
    assert gaps(bootstrap, group, [name]) == [Gap(name, 0, 3, 7)]
    assert str(Gap(name, 0, 3, 7)) == f"{name}[0]@3..6"
    await tell_gaps("test", bootstrap, group, [name])
    labels = {"stage": "test", "topic": name}
    assert REGISTRY.get_sample_value("nhood_records_deleted_unread_total", labels) == 4


async def test_group_that_never_read_has_no_gap(topic):
    bootstrap, admin, name, _ = topic
    for future in admin.delete_records([TopicPartition(name, 0, 7)]).values():
        future.result(20)
    assert gaps(bootstrap, f"new-{uuid.uuid4().hex}", [name]) == []


async def test_kafka_that_is_away_stops_nothing():
    await tell_gaps("test", "127.0.0.1:1", "nobody", ["nothing"])
