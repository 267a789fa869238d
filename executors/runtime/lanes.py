"""Runs commands side by side, except those that have to keep an order.

Commands with the same order key form a lane: one after the other, in the order of the log. All
others start at once; how many calls go on at a time is bounded by the driver.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Starts a task per item.

    Args:
        work: What to do with an item; must not raise.
    """

    def __init__(self, work: Callable[[Item], Awaitable[None]]) -> None:
        self._work = work
        self._waiting: dict[str, deque[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, item: Item, lane: str | None) -> None:
        """Start an item, or queue it behind the others of its lane."""
        if lane is None:
            self._start(self._run(item))
        elif lane in self._waiting:
            self._waiting[lane].append(item)
        else:
            self._waiting[lane] = deque([item])
            self._start(self._follow(lane))

    def _start(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, item: Item) -> None:
        await self._work(item)

    async def _follow(self, lane: str) -> None:
        queue = self._waiting[lane]
        while queue:
            await self._work(queue.popleft())
        del self._waiting[lane]

    async def stop(self, grace_s: float) -> None:
        """Give what runs some time, then cancel it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
