"""How many executions a workspace has begun this month, and whether its plan has room for more.

Counted from the read side: what was begun up to a minute ago is counted once and kept, what came
since is counted anew each time, so that a question costs little however large the month is. Answers
are kept for `KEPT_S`, near the bound for `KEPT_NEAR_S`: a workspace can go over by what it begins
in that time and what the read side has not seen yet. While the database is away the last answer
holds; with none, nobody is refused.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from schemas.errors import DependencyDown, RateLimited
from schemas.quotas import PLANS, SMALLEST
from wire.clock import now as utc_now
from wire.database import Pool, connection

KEPT_S: Final = 10.0
KEPT_NEAR_S: Final = 1.0
NEAR: Final = 2_000
SETTLED_S: Final = 60.0
ENTRIES_MAX: Final = 20_000
_log = structlog.get_logger()


@dataclass(slots=True)
class _Known:
    """What is known of one workspace.

    Attributes:
        month: Its first moment.
        settled: Executions begun in it before `settled_until`.
        used: All of them, as of the last look.
        bound: How many there may be.
        good_until: Until when nobody asks again.
    """

    month: datetime
    settled: int = 0
    settled_until: datetime | None = None
    used: int = 0
    bound: float = math.inf
    good_until: datetime | None = None


class Usage:
    """Counts for all workspaces of a process.

    Args:
        pool: Of the database.
        now: UTC.
    """

    def __init__(self, pool: Pool, now: Callable[[], datetime] = utc_now) -> None:
        self._pool = pool
        self._now = now
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def require(self, workspace: str) -> None:
        """Let an event of a workspace in, where its plan has room for an execution.

        Raises:
            RateLimited: `execution_quota_reached`; told when the next month begins.
        """
        now = self._now()
        known = self._known.get(workspace)
        if known is None or known.month != _month(now):
            known = self._known[workspace] = _Known(_month(now))
            if len(self._known) > ENTRIES_MAX:
                self._known.popitem(last=False)
        if known.good_until is None:
            await asyncio.shield(self._ask(workspace, known))
        elif known.good_until <= now:
            self._ask(workspace, known)  # whoever comes meanwhile goes by the last answer
        if known.used >= known.bound:
            raise _reached(known, now)

    def _ask(self, workspace: str, known: _Known) -> "asyncio.Task[None]":
        task = self._asking.get(workspace)
        if task is None:
            task = self._asking[workspace] = asyncio.create_task(self._look(workspace, known))
            task.add_done_callback(lambda _: self._asking.pop(workspace, None))
        return task

    async def _look(self, workspace: str, known: _Known) -> None:
        now = self._now()
        try:
            await self._count(workspace, known, now)
        except DependencyDown as error:
            _log.warning("usage.database_away", code=error.code)
        is_near = known.bound - known.used < NEAR
        known.good_until = now + timedelta(seconds=KEPT_NEAR_S if is_near else KEPT_S)

    async def _count(self, workspace: str, known: _Known, now: datetime) -> None:
        since = known.settled_until or known.month
        until = max(now - timedelta(seconds=SETTLED_S), since)
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT plan, (settings->>'max_executions_per_month')::bigint,"
                " (SELECT count(*) FROM executions WHERE workspace_id = w.id"
                "   AND mode IN ('live', 'test') AND started_at >= %s AND started_at < %s),"
                " (SELECT count(*) FROM executions WHERE workspace_id = w.id"
                "   AND mode IN ('live', 'test') AND started_at >= %s)"
                " FROM workspaces w WHERE id = %s",
                (since, until, until, workspace),
            )
            row = await cursor.fetchone()
        if row is None:
            return
        plan, chosen, settled, fresh = row
        known.bound = chosen or PLANS.get(plan, SMALLEST).max_executions_per_month
        known.settled += settled
        known.settled_until = until
        known.used = known.settled + fresh


def _month(now: datetime) -> datetime:
    return datetime(now.year, now.month, 1, tzinfo=UTC)


def _reached(known: _Known, now: datetime) -> RateLimited:
    following = _month(known.month + timedelta(days=32))
    seconds = max(math.ceil((following - now).total_seconds()), 1)
    return RateLimited(
        f"This workspace has begun {known.used} executions this month and may begin"
        f" {known.bound:.0f}: raise settings.max_executions_per_month, change the plan, or wait for"
        f" {following:%Y-%m-%d}. The event was not taken.",
        retry_after_s=seconds,
        code="execution_quota_reached",
        headers={
            "RateLimit-Policy": f'"executions";q={known.bound:.0f};w=2592000',
            "RateLimit": f'"executions";r=0;t={seconds}',
        },
    )
