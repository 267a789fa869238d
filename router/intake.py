"""The queue between a consumer and its loop, and publishing that does not give up."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from router.pipeline import Output
from schemas.errors import NeighbourhoodError, TooLarge
from wire.bus import Publisher, Record, Stored

_log = structlog.get_logger()

BATCH_MAX = 200  # records handled between two waits for the broker
INTAKE_MAX = 2_000  # records queued per topic; Faust stops reading beyond it
RETRY_S = 0.5  # between two tries to reach Kafka

Handle = Callable[[list[Stored]], Awaitable[Output]]


class Queued(Protocol):
    """A record that waits."""

    @property
    def stored(self) -> Stored:
        """What was read."""

    def begin(self) -> bool:
        """Say whether to handle it; False: it belongs to another router by now."""

    def done(self) -> None:
        """Let its offset be committed."""


class Intake:
    """The queue between a consumer and its loop; knows nothing of workflows.

    Args:
        handle: Says what a batch leads to.
        publisher: Where to.
    """

    def __init__(self, handle: Handle, publisher: Publisher) -> None:
        self._handle = handle
        self._publisher = publisher
        self._queue: deque[Queued] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, queued: Queued) -> None:
        """Queue a record."""
        self._queue.append(queued)
        self._arrived.set()
        self._idle.clear()
        if len(self._queue) >= INTAKE_MAX:
            self._room.clear()

    async def room(self) -> None:
        """Wait while the queue is full."""
        await self._room.wait()

    async def serve(self) -> None:
        """Handle what comes, batch after batch, for ever."""
        while True:
            await self._arrived.wait()
            taken = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            if not self._queue:
                self._arrived.clear()
            self._room.set()
            batch = [queued for queued in taken if queued.begin()]
            if batch:
                await self._carry_on(await self._handle([queued.stored for queued in batch]))
                for queued in batch:
                    queued.done()
            if not self._queue:
                self._idle.set()

    async def _carry_on(self, output: Output) -> None:
        await publish_until_durable(self._publisher, output.records)
        if output.afterwards:
            await publish_until_durable(self._publisher, output.afterwards)

    async def drained(self) -> None:
        """Wait until nothing is queued or being handled."""
        await self._idle.wait()


async def publish_until_durable(publisher: Publisher, records: Sequence[Record]) -> None:
    """Publish again and again until the broker has every record.

    A record that no broker will ever take (too large) is told and left out: its size was bounded
    before, so this is a defect of ours and must not stop the partition.
    """
    left = list(records)
    while left:
        answers = await publisher.publish(left)
        failed = [
            (record, answer)
            for record, answer in zip(left, answers, strict=True)
            if isinstance(answer, NeighbourhoodError)
        ]
        for record, answer in failed:
            if isinstance(answer, TooLarge):
                _log.error("record.too_large", topic=record.topic, key=str(record.key))
        left = [record for record, answer in failed if not isinstance(answer, TooLarge)]
        if left:
            _log.warning("kafka.unreachable", records=len(left))
            await asyncio.sleep(RETRY_S)
