"""Duties of the vault in the executors: refresh, publish changes, tell developers, renew webhooks.

Each duty is a turn that says whether there is more; turns repeat until the block ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog

from schemas.errors import NeighbourhoodError
from token_vault.notices import Notices
from token_vault.outbox import publish_some
from token_vault.scheduler import Scheduler
from token_vault.vault import Vault
from wire.bus import Publisher
from wire.clock import rng

# How often each looks while there is nothing to do; a quarter more by chance keeps processes apart.
REFRESH_EVERY_S: Final = 1.0
PUBLISH_EVERY_S: Final = 0.5
TELL_EVERY_S: Final = 1.0
RENEW_EVERY_S: Final = 30.0
_RETRY_S: Final = 3.0
_log = structlog.get_logger("vault")


@contextlib.asynccontextmanager
async def vault_duties(vault: Vault, publisher: Publisher) -> AsyncIterator[None]:
    """Do them until the block ends; any number of processes may."""
    scheduler, notices = Scheduler(vault.tokens), Notices(vault)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(notices.close)
        stack.push_async_callback(scheduler.drain)
        for name, turn, every_s in (
            ("refresh", scheduler.turn, REFRESH_EVERY_S),
            ("publish", lambda: publish_some(vault.pool, publisher), PUBLISH_EVERY_S),
            ("tell", notices.turn, TELL_EVERY_S),
            ("renew subscriptions", vault.subscriptions.turn, RENEW_EVERY_S),
        ):
            await stack.enter_async_context(repeating(name, turn, every_s))
        yield


@contextlib.asynccontextmanager
async def repeating(
    name: str, turn: Callable[[], Awaitable[bool]], every_s: float
) -> AsyncIterator[None]:
    """Take turns until the block ends; the one under way ends by itself.

    Args:
        name: For the log.
        turn: Says whether there is more to do at once.
        every_s: Pause while there is not.
    """
    stop = asyncio.Event()
    task = asyncio.create_task(_repeat(name, turn, every_s, stop), name=name)
    try:
        yield
    finally:
        stop.set()
        await task


async def _repeat(
    name: str, turn: Callable[[], Awaitable[bool]], every_s: float, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        try:
            pause = 0.0 if await turn() else every_s
        except NeighbourhoodError as error:
            _log.warning("duty.waits", duty=name, code=error.code, detail=error.detail)
            pause = _RETRY_S
        except Exception:  # noqa: BLE001 - one bad row must not end the duty for all the others
            _log.exception("duty.failed", duty=name)
            pause = _RETRY_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause * (1 + rng.random() / 4))
