"""Who was given a connection's credential, for what: the vault's audit.

    used    a count in memory, a microsecond on the hot path
    flush   once a second, one row per connection, purpose and step, in one statement
    page    the rows of a connection, newest first

A process that is killed loses at most the last `FLUSH_S` seconds of it; which connection a step
used stands in its result on the log as well. While the database is away uses are kept, and counted
as lost beyond `KEPT_MAX`: an audit that stopped all calls would cost more than it tells.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import orjson
import psycopg
import structlog
from psycopg.rows import dict_row

from schemas.access import Caller
from schemas.errors import DependencyDown
from wire.clock import now_us
from wire.database import Pool, connection
from wire.telemetry import AUDIT_LOST

FLUSH_S: Final = 1.0
# After a failure.
RETRY_S: Final = 3.0
# Different uses in memory; some 40 seconds of a process at 500 steps per second.
KEPT_MAX: Final = 20_000
KEPT_DAYS: Final = 90
PAGE_MAX: Final = 200
_FORGET_ROWS: Final = 50_000

Purpose = Literal["step", "proxy", "refresh", "check", "revoke"]
_Key = tuple[str, str, str, int, str, str, str]
_log = structlog.get_logger("vault")


class Given(Protocol):
    """A credential as it is given out (`token_vault.tokens.Credential`)."""

    @property
    def workspace_id(self) -> str:
        """Whose."""

    @property
    def mode(self) -> str:
        """`live` or `test`."""

    @property
    def connection_id(self) -> str:
        """`conn_…`."""

    @property
    def version(self) -> int:
        """Of the credential."""


@dataclass(slots=True)
class _Use:
    count: int
    first_us: int
    last_us: int


class AccessLog:
    """Counts uses and writes them down; one a process."""

    def __init__(self, pool: Pool, *, flush_s: float = FLUSH_S) -> None:
        self._pool = pool
        self._flush_s = flush_s
        self._process = f"{socket.gethostname()[:64]}/{os.getpid()}"
        self._uses: dict[_Key, _Use] = {}
        self._lost = 0
        self._closing = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None

    def used(
        self, given: Given, purpose: Purpose, execution_id: str = "", step_id: str = ""
    ) -> None:
        """Note that a credential was given out; call it on the event loop.

        Args:
            given: The credential, or its connection's row.
            purpose: What for.
            execution_id: Of the step that it was given to.
            step_id: That step.
        """
        key = (
            *(given.workspace_id, given.mode, given.connection_id, given.version),
            *(purpose, execution_id, step_id),
        )
        at = now_us()
        use = self._uses.get(key)
        if use is not None:
            use.count += 1
            use.last_us = at
            return
        if len(self._uses) >= KEPT_MAX:
            self._lost += 1
            AUDIT_LOST.inc()
            return
        self._uses[key] = _Use(1, at, at)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_all())

    async def close(self) -> None:
        """Write down what is left, if the database takes it now."""
        self._closing.set()
        if self._flushing is not None:
            await self._flushing
        if self._uses:
            _log.warning("vault.audit_lost", uses=len(self._uses) + self._lost)

    async def _flush_all(self) -> None:
        pause = self._flush_s
        try:
            while self._uses:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)
                try:
                    await self._flush()
                    pause = self._flush_s
                except (DependencyDown, psycopg.Error) as error:
                    pause = RETRY_S
                    kind = type(error).__name__
                    _log.warning("vault.audit_waits", error=kind, uses=len(self._uses))
                    if self._closing.is_set():
                        return
        finally:
            self._flushing = None

    async def _flush(self) -> None:
        uses, self._uses = self._uses, {}
        rows = [
            (*key, self._process, use.count, use.first_us, use.last_us) for key, use in uses.items()
        ]
        try:
            async with connection(self._pool) as on:
                await on.execute(_INSERT, (orjson.dumps(rows).decode(),))
        except (DependencyDown, psycopg.Error):
            self._uses = {**uses, **self._uses}
            raise
        if self._lost:
            _log.warning("vault.audit_lost", uses=self._lost)
            self._lost = 0


# One text for all rows: psycopg writes arrays item by item, on the loop that the calls run on.
_INSERT: Final = (
    "INSERT INTO token_uses (workspace_id, mode, connection_id, credential_version, purpose,"
    " execution_id, step_id, process, uses, first_at, last_at)"
    " SELECT row->>0, row->>1, row->>2, (row->>3)::int, row->>4, row->>5, row->>6, row->>7,"
    " (row->>8)::int, 'epoch'::timestamptz + (row->>9)::bigint * interval '1 microsecond',"
    " 'epoch'::timestamptz + (row->>10)::bigint * interval '1 microsecond'"
    " FROM json_array_elements(%s::json) AS rows(row)"
)


async def page(
    pool: Pool, caller: Caller, connection_id: str, before: int | None, limit: int
) -> Sequence[Mapping[str, Any]]:
    """Give a connection's uses, newest first.

    Args:
        pool: Of the database.
        caller: Who asks; told what is of its workspace and mode.
        connection_id: It may be deleted by now.
        before: Id of the last row that the caller has.
        limit: At most `PAGE_MAX` and one.

    Returns:
        Rows with `id`, `credential_version`, `purpose`, `execution_id`, `step_id`, `process`,
        `uses`, `first_at` and `last_at`.
    """
    async with connection(pool) as on, on.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            "SELECT id, credential_version, purpose, execution_id, step_id, process, uses,"
            " first_at, last_at FROM token_uses WHERE workspace_id = %s AND connection_id = %s"
            " AND mode = %s AND (%s::bigint IS NULL OR id < %s) ORDER BY id DESC LIMIT %s",
            (
                *(caller.workspace_id, connection_id, caller.mode, before, before),
                min(limit, PAGE_MAX + 1),
            ),
        )
        return await cursor.fetchall()


async def forget_old(pool: Pool, days: int = KEPT_DAYS) -> int:
    """Drop what is older, a part at a time; say how many rows went."""
    async with connection(pool) as on:
        cursor = await on.execute(
            "DELETE FROM token_uses WHERE id IN (SELECT id FROM token_uses"
            " WHERE last_at < now() - make_interval(days => %s) LIMIT %s)",
            (days, _FORGET_ROWS),
        )
        return cursor.rowcount
