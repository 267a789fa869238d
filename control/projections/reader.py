"""How the projector reads: consumers, and what a batch of messages says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Message

from control.projections.executions import Changes
from control.projections.rows import Positions
from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import DeadLetter, Envelope
from schemas.topics import DEADLETTER, EXECUTIONS, RESULTS
from wire.bus import Record, Stored, stored

GROUP = "nhood-projector"
TOPICS = (EXECUTIONS, RESULTS, DEADLETTER)
BATCH = 500
# How long a batch gathers: the read side is at most this much behind while little happens.
GATHER_S = 0.2
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
    messages: list[Stored] = field(default_factory=list)
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
        "queued.max.messages.kbytes": _QUEUE_KB,
        "fetch.wait.max.ms": 100,
        "log_level": 3,
    }


def fold(messages: Sequence[Message]) -> Batch:
    """Decode messages and add up what they change; none is left out of `positions`."""
    batch = Batch()
    take = batch.changes.take
    for message in messages:
        record = stored(message)
        batch.messages.append(record)
        place = record.place
        batch.positions[place.topic, place.partition] = place.offset + 1
        try:
            take(place, codec.decode(record.value))
        except CorruptEvent as error:
            batch.bad.append((record, error))
    return batch


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


def readable(messages: Sequence[Message]) -> list[Message]:
    """Leave out what is no record but a notice of librdkafka; it retries those itself."""
    return [message for message in messages if message.error() is None]
