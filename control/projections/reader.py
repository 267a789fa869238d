"""How the projector reads: consumers, and what a batch of messages says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Message

from control.projections.executions import Changes
from control.projections.rows import Positions
from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import DeadLetter, Envelope, Place
from schemas.topics import DEADLETTER, EXECUTIONS, RESULTS
from wire.bus import Record, Stored, stored

GROUP = "nhood-projector"
TOPICS = (EXECUTIONS, RESULTS, DEADLETTER)
BATCH = 500
# The broker gathers records for this long, or until they are so many bytes, before it answers: that
# is how far the read side is behind while little happens, and what keeps fetches few.
GATHER_MS = 150
_GATHER_BYTES = 262_144
_POLL_S = 0.5
_QUEUE_KB = 16_384  # of fetched records that wait in librdkafka
_SOURCE = "/projector"


# A record that nobody can read or keep, and why.
Unusable = tuple[Stored, CorruptEvent]


@dataclass(slots=True)
class Batch:
    """What some messages say.

    Attributes:
        positions: The offset after the last message, per partition.
        bad: Messages that nobody can read, with the reason.
    """

    changes: Changes = field(default_factory=Changes)
    positions: Positions = field(default_factory=dict)
    messages: Sequence[Message] = ()
    bad: list[Unusable] = field(default_factory=list)


def consumer_config(bootstrap: str, client_id: str) -> dict[str, str | int | bool]:
    """Give librdkafka's settings; positions are kept in Postgres, beside the rows."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "group.id": GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # A position that retention has passed by: go on with the oldest record there is.
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 10_000,
        # Topics that are made after us are found within this time.
        "topic.metadata.refresh.interval.ms": 10_000,
        "queued.max.messages.kbytes": _QUEUE_KB,
        "fetch.wait.max.ms": GATHER_MS,
        "fetch.min.bytes": _GATHER_BYTES,
        "log_level": 2,
    }


def take(consumer: Consumer, timeout_s: float = _POLL_S) -> list[Message]:
    """Wait for a message, then take what else has arrived; notices of librdkafka are left out."""
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    found = (first, *consumer.consume(BATCH - 1, timeout=0))
    return [message for message in found if message.error() is None]


def fold(messages: Sequence[Message]) -> Batch:
    """Decode messages and add up what they change; none is left out of `positions`."""
    batch = Batch(messages=messages)
    change, positions = batch.changes.take, batch.positions
    for message in messages:
        place = place_of(message)
        positions[place.topic, place.partition] = place.offset + 1
        try:
            change(place, codec.decode(message.value()))
        except CorruptEvent as error:
            batch.bad.append((stored(message), error))
    return batch


def place_of(message: Message) -> Place:
    """Say where a message stands."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None  # noqa: S101 - a message without error has a place
    assert partition is not None  # noqa: S101
    assert offset is not None  # noqa: S101
    return Place(topic, partition, offset)


def burial(record: Stored, code: str, reason: str, now_us: int) -> Record | None:
    """Build the dead letter of a record; None for a dead letter itself: it lies there already."""
    place = record.place
    if place.topic == DEADLETTER:
        return None
    workspace = record.headers.get("ce_workspace", b"").decode(errors="replace")
    letter = DeadLetter(
        original=place,
        key=record.key,
        value=record.value,
        headers=record.headers,
        workspace_id=workspace or None,
        stage="projector",
        class_="unknown_schema" if code == "unknown_schema" else "unreadable",
        code=code,
        reason=reason,
        attempts=1,
        at_us=now_us,
    )
    name = str(place)
    envelope = Envelope(name, "nhood.deadletter", _SOURCE, workspace, now_us)
    return Record(DEADLETTER, name.encode(), codec.encode(letter), envelope.headers())


def lag_of(consumer: Consumer) -> dict[str, int]:
    """Say how many records wait, per topic, from what the last fetches told."""
    lag: dict[str, int] = {}
    for position in consumer.position(consumer.assignment()):
        marks = consumer.get_watermark_offsets(position, cached=True)
        if position.offset < 0 or marks[1] < 0:
            continue
        behind = max(0, marks[1] - position.offset)
        lag[position.topic] = lag.get(position.topic, 0) + behind
    return lag
