"""What the vault does by itself beside the requests: destroys old keys, drops what is old."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import structlog

from schemas.errors import NeighbourhoodError
from token_vault import changes
from token_vault.audit import forget_old
from token_vault.rotation import tidy
from wire.database import Pool

EVERY_S: Final = 600.0
_log = structlog.get_logger("vault")


@contextlib.asynccontextmanager
async def vault_chores(pool: Pool, every_s: float = EVERY_S) -> AsyncIterator[None]:
    """Do them now and then; any number of processes may."""
    stop = asyncio.Event()
    task = asyncio.create_task(_work(pool, every_s, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _work(pool: Pool, every_s: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await tidy(pool)
            await forget_old(pool)
            await changes.forget_old(pool)
        except NeighbourhoodError as error:
            _log.warning("vault.chore_waits", code=error.code, detail=error.detail)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
