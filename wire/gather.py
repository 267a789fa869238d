"""Publishes for many callers at once: what comes while one request is under way goes with the next.

So a lone record leaves at once, and under load hundreds share a request to the broker, whatever the
load is; a fixed linger would cost every record its time (docs/performance.md).
"""

import asyncio
from collections.abc import Sequence

from schemas.errors import NeighbourhoodError
from schemas.events import Place
from wire.bus import Publisher, Record

Answers = list[Place | NeighbourhoodError]


class Gathered:
    """A `Publisher` in front of another one."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: list[tuple[Sequence[Record], asyncio.Future[Answers]]] = []
        self._task: asyncio.Task[None] | None = None

    async def publish(self, records: Sequence[Record]) -> Answers:
        """Write all (see `Publisher.publish`); a caller that gives up takes nothing back."""
        if not records:
            return []
        done: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, done))
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name="gathered-publish")
        return await done

    async def _serve(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                answers = await self._publisher.publish(
                    [record for records, _ in taken for record in records]
                )
            except Exception as error:  # noqa: BLE001 - each caller has to hear of it
                for _, done in taken:
                    if not done.done():
                        done.set_exception(error)
                continue
            following = iter(answers)
            for records, done in taken:
                part = [next(following) for _ in records]
                if not done.done():
                    done.set_result(part)
        self._task = None
