"""Dead letters: found, shown with their bytes, and sent again.

    find(...)      which letters, and which of them were sent again
    show(...)      one of them with the record that it holds
    redrive(...)   sends records again as they were: in order, at a rate, each one once

A letter that was sent again is marked in `redrives` before it is sent and after: where a process
dies between the two, `place` is missing, and whoever sends it again has to say so (`again`). That
does no harm where the stages do things once (docs/guarantees.md), and it is never done silently.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from control.core.letters import EXHAUSTED, unknown_letter
from control.core.pace import Pace
from control.places import Places
from control.store import letters
from control.store.query import Row
from schemas import codec
from schemas.errors import CorruptEvent, NeighbourhoodError
from schemas.events import DeadLetter, Place
from schemas.lineage import REDRIVEN_HEADER, origin, place_name
from schemas.topics import DEADLETTER, PROGRESS
from wire.bus import Log, Publisher, Record
from wire.database import Pool, connection

RATE_DEFAULT: Final = 100  # records a second: a backlog must not starve what comes in meanwhile
RATE_MAX: Final = 5_000
OPERATOR: Final = "operator"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ports:
    """What is needed of the world."""

    pool: Pool
    publisher: Publisher
    log: Log


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one letter of a run.

    Attributes:
        outcome: `would_send` (dry run), `sent`, `already_redriven`, `gone` (neither the letter nor
            the record is on the log any more), `refused` by the broker, or `replay` (a step that
            gave up has ended: its execution is to be replayed instead).
        place: Where the record stands now.
    """

    letter: str
    outcome: str
    reason: str = ""
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class How:
    """How letters are sent again.

    Attributes:
        by: Who wants it: `operator`, `key_…` or `per_…`.
        dry: Tell only what would be sent.
        again: Also those that were sent again before.
        rate_per_s: Records a second.
    """

    by: str
    dry: bool = True
    again: bool = False
    rate_per_s: int = RATE_DEFAULT


async def find(
    ports: Ports,
    workspace: str | None,
    wanted: Mapping[str, Any],
    after: tuple[int, Place] | None = None,
    limit: int = 50,
) -> list[Row]:
    """List letters, newest first (arguments as in `control.store.letters.page`)."""
    async with connection(ports.pool) as on:
        return await letters.page(on, workspace, wanted, after, limit)


async def show(ports: Ports, workspace: str | None, place: Place) -> tuple[Row, DeadLetter | None]:
    """Give a letter and the record that it holds; None where the log has it no more.

    Raises:
        NotFound: `letter_not_found`; no such letter, or another workspace's.
    """
    async with connection(ports.pool) as on:
        row = await letters.get(on, workspace, place)
    if row is None:
        raise unknown_letter(place_name(place))
    return row, await _open(row, Places(ports.log))


async def redrive(ports: Ports, rows: Sequence[Row], how: How) -> AsyncIterator[Sent]:
    """Send the records of these letters again, one after the other, at most so many a second.

    Args:
        ports: The world.
        rows: Letters, in the order in which they are to be sent.
        how: Who wants it, and how fast.
    """
    places = Places(ports.log)
    loop = asyncio.get_running_loop()
    pace = Pace(how.rate_per_s, loop.time())
    sent = 0
    for row in rows:
        told = await _redrive_one(ports, places, row, how)
        yield told
        if told.outcome == "sent":
            sent += 1
            await asyncio.sleep(pace.wait_s(sent, loop.time()))
    if sent:
        _log.info("deadletters.redriven", records=sent, by=how.by)


async def _redrive_one(ports: Ports, places: Places, row: Row, how: How) -> Sent:
    name = place_name(place_of(row))
    if row["class"] == EXHAUSTED:
        return Sent(name, "replay", "The step has ended; replay its execution in mode repair.")
    if row["redriven_at"] is not None and not how.again:
        return Sent(name, "already_redriven", _already(row))
    letter = await _open(row, places)
    if letter is None:
        return Sent(name, "gone", "Neither the letter nor its record is on the log any more.")
    if how.dry:
        return Sent(name, "would_send")
    return await _send(ports, row, letter, how)


async def _send(ports: Ports, row: Row, letter: DeadLetter, how: How) -> Sent:
    place = place_of(row)
    name = place_name(place)
    async with connection(ports.pool) as on:
        mine = await letters.claim(on, place, row["workspace_id"], how.by, again=how.again)
    if not mine:
        return Sent(name, "already_redriven", "Somebody sent it again a moment ago.")
    (answer,) = await ports.publisher.publish([redriven(letter)])
    async with connection(ports.pool) as on:
        if isinstance(answer, NeighbourhoodError):
            await letters.give_back(on, place)
            return Sent(name, "refused", answer.public)
        await letters.sent(on, place, answer)
    return Sent(name, "sent", place=answer)


def place_of(row: Row) -> Place:
    """Give the original place of a letter."""
    return Place(row["topic"], row["partition"], row["offset"])


def _already(row: Row) -> str:
    at = row["redriven_at"].strftime("%Y-%m-%d %H:%M:%S UTC")
    text = f"It was sent again at {at} by {row['redriven_by']}"
    if row["redriven_place"] is None:
        return f"{text}, but whether the broker took it is not known."
    where = row["redriven_place"]
    return f"{text} and stands at {where['topic']}[{where['partition']}]@{where['offset']}."


def redriven(letter: DeadLetter) -> Record:
    """Build the record that is sent again: same topic, key, value, headers, and where it was first.

    Keys choose the partition, so the record meets its neighbours of before. Without a key, and on
    the topic whose writer chooses partitions itself, it goes where it was.
    """
    original = letter.original
    headers = [item for item in letter.headers.items() if item[0] != REDRIVEN_HEADER]
    # The place where it stood first: ids that are derived from a place stay as they were.
    first = origin(letter.headers, original)
    headers.append((REDRIVEN_HEADER, place_name(first).encode()))
    by_place = letter.key is None or original.topic == PROGRESS
    partition = original.partition if by_place else None
    return Record(original.topic, letter.key, letter.value, headers, partition)


async def _open(row: Row, places: Places) -> DeadLetter | None:
    """Read the letter from its topic; where it is gone, make it again of the record itself."""
    original = place_of(row)
    if row["letter_offset"] is not None:
        stored = await places.get(Place(DEADLETTER, row["letter_partition"], row["letter_offset"]))
        if stored is not None:
            try:
                letter = codec.decode_as(DeadLetter, stored.value)
            except CorruptEvent:
                letter = None
            if letter is not None and letter.original == original:
                return letter
    stored = await places.get(original)
    if stored is None:
        return None
    return DeadLetter(
        original=original,
        key=stored.key,
        value=stored.value,
        headers=stored.headers,
        workspace_id=row["workspace_id"],
        stage=row["stage"],
        class_=row["class"],
        code=row["code"],
        reason=row["reason"],
        attempts=row["attempts"],
        at_us=int(row["at"].timestamp() * 1_000_000),
    )
