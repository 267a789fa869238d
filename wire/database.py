"""Postgres: opens pools and brings the tables up to date.

    open_pool   psycopg's pool, proven to reach the server before it is handed out
    migrate     Alembic over `schemas/migrations`, one migrator at a time by an advisory lock
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
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import DependencyDown, InvalidInput

MIGRATIONS = Path(__file__).parent.parent / "schemas" / "migrations"
CONNECT_TIMEOUT_S = 10.0
# How long a request waits for a free connection before it is told to come back.
ACQUIRE_TIMEOUT_S = 5.0
# Any number will do, as long as no other program on the same database locks it.
_MIGRATION_LOCK = 0x6E68_6F6F_6401

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
        raise DependencyDown(
            "The database has no free connection; try again.", code="database_busy"
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise DependencyDown(
            "The database does not answer; try again.", code="database_down", detail=str(error)
        ) from error


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
    engine = sqlalchemy.create_engine(sqlalchemy_url(database_url), poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as held:
            key = {"key": _MIGRATION_LOCK}
            held.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), key)
            held.commit()
            try:
                config = alembic_config()
                config.attributes["connection"] = held
                command.upgrade(config, "head")
                held.commit()
            finally:
                held.rollback()
                held.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), key)
                held.commit()
    except CommandError as error:
        raise DependencyDown(
            "The database was made by a newer version of NeighbourHood, or its migration history"
            " is damaged; run the version that made it, or restore a backup.",
            code="migration_unknown",
            detail=str(error),
        ) from error
    except SQLAlchemyError as error:
        raise DependencyDown(
            f"The database at {_where(database_url)} could not be migrated; is the server up, and"
            " may this user make tables?",
            code="migration_failed",
            detail=str(error.__cause__ or error),
        ) from error
    finally:
        engine.dispose()


def alembic_config() -> Config:
    """Give Alembic's configuration for our folder of migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def sqlalchemy_url(database_url: str) -> str:
    """Name psycopg as the driver: `postgresql://…` gives `postgresql+psycopg://…`."""
    scheme, found, rest = database_url.partition("://")
    return f"postgresql+psycopg://{rest}" if found and "+" not in scheme else database_url


def _check(database_url: str) -> None:
    if urlsplit(database_url).scheme not in ("postgresql", "postgres"):
        raise InvalidInput(
            "DATABASE_URL must look like postgresql://user:password@host:5432/database.",
            code="bad_database_url",
        )


def _where(database_url: str) -> str:
    parts = urlsplit(database_url)
    host = parts.hostname or "the local socket"
    return f"{host}:{parts.port or 5432}{parts.path}"


async def _why(database_url: str, given: PoolTimeout) -> DependencyDown:
    """Connect once by hand: the pool hides the reason."""
    where = _where(database_url)
    reason = str(given)
    try:
        async with await AsyncConnection.connect(database_url, connect_timeout=3):
            pass
    except psycopg.Error as error:
        reason = str(error)
    return DependencyDown(
        f"PostgreSQL at {where} cannot be reached; is it running, and is DATABASE_URL right?",
        code="database_down",
        detail=reason,
    )
