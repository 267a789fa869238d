"""Which plan a workspace has, out of memory: it is needed on the way of every step.

A workspace that is not known yet is asked for in the background, with all others that came in the
same moment, and has the smallest plan until the answer is there. Every `FRESH_S` all are asked for
again, so a changed plan is in force by then; while the database is away the old answers stay.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from schemas.errors import DependencyDown
from schemas.quotas import PLANS, SMALLEST, Plan
from wire.database import Pool, connection

FRESH_S: Final = 30.0
_GATHER_S: Final = 0.01
_RETRY_S: Final = 2.0
_log = structlog.get_logger()


class Plans:
    """The plans of the workspaces that were seen.

    Args:
        pool: Of the database.
        changed: Called on the event loop with a workspace whose plan is not what `of` said.
    """

    def __init__(self, pool: Pool, changed: Callable[[str, Plan], None]) -> None:
        self._pool = pool
        self._changed = changed
        self._known: dict[str, Plan] = {}
        self._wanted: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.create_task(self._serve(), name="plans")

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def of(self, workspace: str) -> Plan:
        """Give a workspace's plan."""
        found = self._known.get(workspace)
        if found is None:
            self._wanted.add(workspace)
            self._wake.set()
            return SMALLEST
        return found

    async def _serve(self) -> None:
        all_at = time.monotonic() + FRESH_S
        while True:
            left = all_at - time.monotonic()
            if left > 0:
                try:
                    await asyncio.wait_for(self._wake.wait(), left)
                except TimeoutError:
                    continue
                await asyncio.sleep(_GATHER_S)
            else:
                self._wanted |= self._known.keys()
                all_at = time.monotonic() + FRESH_S
            self._wake.clear()
            wanted, self._wanted = self._wanted, set()
            if wanted and not await self._ask(wanted):
                self._wanted |= wanted
                self._wake.set()
                await asyncio.sleep(_RETRY_S)

    async def _ask(self, workspaces: set[str]) -> bool:
        try:
            async with connection(self._pool) as on:
                cursor = await on.execute(
                    "SELECT id, plan FROM workspaces WHERE id = ANY(%s)", (list(workspaces),)
                )
                rows = dict(await cursor.fetchall())
        except DependencyDown as error:
            _log.warning("plans.database_away", code=error.code)
            return False
        for workspace in workspaces:
            plan = PLANS.get(rows.get(workspace, ""), SMALLEST)
            before = self._known.get(workspace, SMALLEST)
            self._known[workspace] = plan
            if plan is not before:
                self._changed(workspace, plan)
        return True
