"""Postgres: opens pools and brings the tables up to date.

    open_pool   psycopg's pool, proven to reach the server before it is handed out
    migrate     brings the tables to the newest version, if they are not there yet
    reachable   the question behind `/readyz`

What goes wrong with the server comes out as `DependencyDown` with a sentence; an address never
does, since it may hold a password.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from schemas.errors import DependencyDown, InvalidInput

MIGRATIONS = Path(__file__).parent.parent / "schemas" / "migrations"
CONNECT_TIMEOUT_S = 10.0
# How long a request waits for a free connection before it is told to come back.
ACQUIRE_TIMEOUT_S = 5.0

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


async def open_pool(
    database_url: str,
    *,
    min_size: int = 1,
    max_size: int = 10,
    name: str = "",
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> Pool:
    """Open a pool and wait until its first connections stand.

    Args:
        database_url: `postgresql://user:password@host:port/database`.
        min_size: Connections that are kept open.
        max_size: The most at a time; further callers wait `ACQUIRE_TIMEOUT_S`.
        name: Shown in `pg_stat_activity`, to tell the stages apart.
        timeout_s: How long a server that is starting is waited for.

    Raises:
        InvalidInput: The address is none.
        DependencyDown: The server does not answer within the time, or refuses.
    """
    _check(database_url)
    pool: Pool = AsyncConnectionPool(
        database_url,
        min_size=min_size,
        max_size=max_size,
        name=name or None,
        timeout=ACQUIRE_TIMEOUT_S,
        kwargs={"application_name": f"nhood {name}".strip(), "connect_timeout": 5},
        open=False,
    )
    try:
        await pool.open(wait=True, timeout=timeout_s)
    except PoolTimeout as error:
        await pool.close()
        raise await _why(database_url, error) from error
    return pool


@contextlib.asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Borrow a connection for one transaction: committed at the end, rolled back on an error.

    Raises:
        DependencyDown: None is free or the server went away.
    """
    try:
        async with pool.connection() as borrowed:
            yield borrowed
    except PoolTimeout as error:
        _still_wanted()
        raise DependencyDown(
            "The database has no free connection; try again.", code="database_busy"
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        _still_wanted()
        raise DependencyDown(
            "The database does not answer; try again.", code="database_down", detail=str(error)
        ) from error


def _still_wanted() -> None:
    """Let a cancelled task end: its query was cut off, and that is no news of the database."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def reachable(pool: Pool, timeout_s: float = 2.0) -> bool:
    """Say whether a query is answered within the time."""
    try:
        async with asyncio.timeout(timeout_s), pool.connection() as borrowed:
            await borrowed.execute("SELECT 1")
    except (TimeoutError, PoolTimeout, psycopg.Error):
        return False
    return True


def migrate(database_url: str) -> None:
    """Bring the tables to the newest version; harmless where they are there already.

    Two processes that migrate at once take turns by an advisory lock. Files under
    `schemas/migrations/versions` say in their names whether they go before (`pre`) or after
    (`post`) the code that needs them.

    Raises:
        InvalidInput: The address is none.
        DependencyDown: The server cannot be reached, or a migration failed.
    """
    _check(database_url)
    if _is_current(database_url):
        return
    # Alembic and SQLAlchemy take 26 MB (measured): only who has something to migrate pays.
    from wire.migrations import upgrade

    upgrade(database_url, where(database_url))


def _is_current(database_url: str) -> bool:
    try:
        with psycopg.connect(database_url, connect_timeout=5) as on:
            there = on.execute("SELECT to_regclass('alembic_version')").fetchone()
            if there is None or there[0] is None:
                return False
            found = on.execute("SELECT version_num FROM alembic_version").fetchall()
    except psycopg.OperationalError as error:
        raise _unreachable(database_url, str(error)) from error
    newest = max(path.stem.partition("_")[0] for path in MIGRATIONS.glob("versions/*.py"))
    return found == [(newest,)]


def _check(database_url: str) -> None:
    if urlsplit(database_url).scheme not in ("postgresql", "postgres"):
        raise InvalidInput(
            "DATABASE_URL must look like postgresql://user:password@host:5432/database.",
            code="bad_database_url",
        )


def where(database_url: str) -> str:
    """Name the database without user and password: `host:port/name`."""
    parts = urlsplit(database_url)
    host = parts.hostname or "the local socket"
    return f"{host}:{parts.port or 5432}{parts.path}"


async def _why(database_url: str, given: PoolTimeout) -> DependencyDown:
    """Connect once by hand: the pool hides the reason."""
    reason = str(given)
    try:
        async with await AsyncConnection.connect(database_url, connect_timeout=3):
            pass
    except psycopg.Error as error:
        reason = str(error)
    return _unreachable(database_url, reason)


def _unreachable(database_url: str, reason: str) -> DependencyDown:
    return DependencyDown(
        f"PostgreSQL at {where(database_url)} cannot be reached; is it running, and is DATABASE_URL"
        " right?",
        code="database_down",
        detail=reason,
    )
