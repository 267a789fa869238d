"""Changes of connections' states: written in the transaction that makes them, read for people.

note       one change, in the caller's transaction; the outbox of `nhood.connections.v1`
page       the changes of a connection, newest first
forget_old what is long told

made ──▶ active ⇄ refreshing ⇄ degraded          degraded: the last refresh failed, the token
                     │                           may still live
                     ▼
                needs_reauth ──▶ active          (connected again)
any ──▶ revoked                                  (deleted)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, dict_row

from schemas.access import Caller
from wire.database import Pool, connection

PAGE_MAX: Final = 200
KEPT_DAYS: Final = 90
# Refreshes that went well are many, and soon of no interest.
ROUTINE_KEPT_DAYS: Final = 7
_ROUTINE: Final = ["due", "refused", "refreshed"]
# The developer is told of these.
NOTIFIED: Final = frozenset({"needs_reauth"})
_FORGET_ROWS: Final = 50_000
_MESSAGE_CHARS_MAX: Final = 500


class Changed(Protocol):
    """A connection's row after the change (`token_vault.store.Connection`)."""

    @property
    def id(self) -> str:
        """`conn_…`."""

    @property
    def workspace_id(self) -> str:
        """Whose."""

    @property
    def mode(self) -> str:
        """`live` or `test`."""

    @property
    def provider(self) -> str:
        """Slug."""

    @property
    def user_id(self) -> str:
        """The end customer."""

    @property
    def label(self) -> str:
        """Tells several accounts of one user apart."""

    @property
    def credential_version(self) -> int:
        """Counts changes of the credential."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one state to another, and why.

    Attributes:
        before: None: it was made.
        reason: connected, reconnected, due, refused, refreshed, deleted, or an error's code.
        message: What the vendor said; no secret.
    """

    before: str | None
    after: str
    reason: str
    message: str = ""


async def note(on: AsyncConnection[TupleRow], row: Changed, change: Change) -> None:
    """Write a change down; one from a state to itself is none."""
    if change.before == change.after:
        return
    await on.execute(
        "INSERT INTO connection_events (workspace_id, connection_id, mode, provider, user_id,"
        " label, before, after, reason, message, version, notify_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
        " CASE WHEN %s THEN now() END)",
        (
            *(row.workspace_id, row.id, row.mode, row.provider, row.user_id, row.label),
            *(change.before, change.after, change.reason, change.message[:_MESSAGE_CHARS_MAX]),
            *(row.credential_version, change.after in NOTIFIED),
        ),
    )


async def page(
    pool: Pool, caller: Caller, connection_id: str, before: int | None, limit: int
) -> Sequence[Mapping[str, Any]]:
    """Give a connection's changes, newest first.

    Args:
        pool: Of the database.
        caller: Who asks; told what is of its workspace and mode.
        connection_id: It may be deleted by now.
        before: Id of the last row that the caller has.
        limit: At most `PAGE_MAX` and one.

    Returns:
        Rows with `id`, `before`, `after`, `reason`, `message`, `version`, `at`, `published_at`,
        `notified_at`, `notify_attempts` and `notify_error`.
    """
    async with connection(pool) as on, on.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            "SELECT id, before, after, reason, message, version, at, published_at, notified_at,"
            " notify_attempts, notify_error FROM connection_events"
            " WHERE workspace_id = %s AND connection_id = %s AND mode = %s"
            " AND (%s::bigint IS NULL OR id < %s) ORDER BY id DESC LIMIT %s",
            (
                *(caller.workspace_id, connection_id, caller.mode, before, before),
                min(limit, PAGE_MAX + 1),
            ),
        )
        return await cursor.fetchall()


async def forget_old(pool: Pool) -> int:
    """Drop what is old and was published, a part at a time; say how many rows went."""
    async with connection(pool) as on:
        cursor = await on.execute(
            "DELETE FROM connection_events WHERE id IN (SELECT id FROM connection_events"
            " WHERE at < now() - make_interval(days => %s) AND published_at IS NOT NULL"
            " AND (reason = ANY(%s) OR at < now() - make_interval(days => %s)) LIMIT %s)",
            (ROUTINE_KEPT_DAYS, _ROUTINE, KEPT_DAYS, _FORGET_ROWS),
        )
        return cursor.rowcount


def micros(at: datetime) -> int:
    """Give a time as microseconds since 1970."""
    return int(at.timestamp() * 1_000_000)
