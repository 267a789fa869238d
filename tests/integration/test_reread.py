"""Records that were put off, read again from a real log."""

import pytest

from schemas.events import Place
from schemas.topics import DEADLETTER, EVENTS
from wire.bus import KafkaPublisher, Record, publish_all
from wire.reread import NEAR, Reread


@pytest.fixture
async def again(kafka_topics):
    reread = Reread(kafka_topics, "test-again")
    yield reread
    await reread.close()


@pytest.fixture
async def publisher(kafka_topics):
    made = KafkaPublisher(kafka_topics, "test-again")
    await made.start()
    yield made
    await made.close()


async def write(publisher: KafkaPublisher, count: int, partition: int = 0) -> list[Place]:
    return await publish_all(
        publisher,
        [Record(EVENTS, b"k", str(n).encode(), partition=partition) for n in range(count)],
    )


async def test_chosen_records_come_again_in_their_order(publisher, again):
    places = await write(publisher, 300)
    first = places[0].offset
    for chosen in ([0, 1, 2], [3, 5, 250], [0], [299], [7, 8]):
        found = await again.read(EVENTS, 0, [first + n for n in chosen])
        assert [int(record.value or b"") for record in found] == chosen


async def test_places_far_apart_and_other_partitions_are_found_as_well(publisher, again):
    places = await write(publisher, NEAR + 500)
    other = await write(publisher, 3, partition=1)
    first, last = places[0].offset, places[-1].offset
    found = await again.read(EVENTS, 0, [first, last])
    assert [record.place for record in found] == [places[0], places[-1]]
    found = await again.read(EVENTS, 1, [other[2].offset])
    assert [record.place for record in found] == [other[2]]
    found = await again.read(EVENTS, 0, [places[1].offset])
    assert [record.place for record in found] == [places[1]]


async def test_record_beyond_the_log_is_left_out(again, publisher):
    (place,) = await publish_all(publisher, [Record(DEADLETTER, b"k", b"v", partition=0)])
    assert await again.read(DEADLETTER, 0, [place.offset + 1_000_000]) == []
