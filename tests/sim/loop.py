"""Time that passes only when nobody has anything to do, and processes that can be killed.

`run` drives a coroutine on a loop of its own whose clock jumps to the next timer. Tasks belong to
the `Process` in whose context they were begun, and to those that it begins.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import wire.clock

START_US = 1_790_000_000_000_000
PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class _Selector(selectors.DefaultSelector):
    """Waits for no file: it lets the time pass instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever come")
        self.now += max(0.0, timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own: seconds since its start."""

    def __init__(self) -> None:
        self._own = _Selector()
        super().__init__(self._own)
        self.set_task_factory(_task)

    def time(self) -> float:
        return self._own.now


class Process:
    """Something that can be killed: its tasks end where they stand."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def kill(self) -> None:
        self.dead = True
        for task in self.tasks:
            task.cancel()


def _task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    context = more.get("context")
    owner = PROCESS.get() if context is None else context.get(PROCESS)
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


def alive() -> None:
    """End here where the process was killed: what comes after it never happened."""
    owner = PROCESS.get()
    if owner is not None and owner.dead:
        raise asyncio.CancelledError


class _Time:
    """What `wire.clock` reads."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def time_ns(self) -> int:
        return START_US * 1_000 + int(self._loop.time() * 1e9)


@contextmanager
def virtual() -> Iterator[Loop]:
    """Give a loop whose time the product's clock shows."""
    loop = Loop()
    try:
        with patch.object(wire.clock, "time", _Time(loop)):
            yield loop
    finally:
        loop.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end."""
    with virtual() as loop:
        try:
            loop.run_until_complete(work)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
