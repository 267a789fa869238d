"""Refreshes connections before their tokens end; any number of processes share the work.

Each takes what is due and what it has room for by a lease per row (`FOR UPDATE SKIP LOCKED`), so
none gets what another has; one that is killed leaves its leases to run out. It runs in the
executors: they hold the tokens in memory, they call vendors anyway, and they are what is made more
when there is more to do, while the gateway answers people.
"""

import asyncio
from collections import Counter
from typing import Final

import structlog

from schemas.errors import NeighbourhoodError
from token_vault.store import Connection
from token_vault.tokens import TokenSource

# Refreshes under way in a process; they only wait for vendors. A vendor that does not answer may
# hold up to `PER_PROVIDER`, so that the others go on.
TASKS_MAX: Final = 64
PER_PROVIDER: Final = 16
# A full process looks again after this time at the latest.
FULL_S: Final = 1.0
_log = structlog.get_logger("vault")


class Scheduler:
    """Takes what is due; one a process."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_provider: Counter[str] = Counter()

    async def turn(self) -> bool:
        """Begin to refresh what is due and fits in; say whether to look again at once.

        Raises:
            DependencyDown: The database is away.
        """
        busy = [slug for slug, count in self._by_provider.items() if count >= PER_PROVIDER]
        room = min(TASKS_MAX - len(self._tasks), PER_PROVIDER)
        owner = self._tokens.refresher.owner()
        rows: list[Connection] = []
        if room > 0:
            rows = await self._tokens.refresher.leases.lease_due(owner, busy, room)
        for row in rows:
            task = asyncio.create_task(self._refresh(row, owner))
            self._tasks.add(task)
            self._by_provider[row.provider] += 1
            task.add_done_callback(self._tasks.discard)
        is_full = room <= 0 or bool(busy)
        if not rows and is_full and self._tasks:  # there may be more, once one of these has ended
            await asyncio.wait(self._tasks, timeout=FULL_S, return_when=asyncio.FIRST_COMPLETED)
        return bool(rows) or is_full

    async def drain(self) -> None:
        """Let refreshes under way end: their answers must be stored."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _refresh(self, row: Connection, owner: str) -> None:
        try:
            await self._tokens.renew(row, owner)
        except NeighbourhoodError as error:  # noted in the row, or left to the lease's end
            _log.info("vault.not_refreshed", connection=row.id, code=error.code)
        finally:
            self._by_provider[row.provider] -= 1
