"""Rows of `signing_keys`: keys of access tokens, sealed."""

from datetime import datetime

from control.store.query import Borrowed, Row, rows, run


async def lock(on: Borrowed) -> None:
    """Let no other process make a key until the transaction ends."""
    await run(on, "SELECT pg_advisory_xact_lock(hashtextextended('signing_keys', 4))")


async def live(on: Borrowed, since: datetime) -> list[Row]:
    """Give the keys that were made since then and are not retired, newest first."""
    return await rows(
        on,
        "SELECT id, sealed, created_at FROM signing_keys"
        " WHERE retired_at IS NULL AND created_at > %s ORDER BY created_at DESC, id DESC",
        (since,),
    )


async def insert(on: Borrowed, kid: str, sealed: bytes, now: datetime) -> None:
    """Add a key."""
    sql = "INSERT INTO signing_keys (id, sealed, created_at) VALUES (%s, %s, %s)"
    await run(on, sql, (kid, sealed, now))


async def retire_all(on: Borrowed) -> int:
    """Let no token be good that was signed until now; say how many keys there were."""
    return await run(on, "UPDATE signing_keys SET retired_at = now() WHERE retired_at IS NULL")


async def forget_old(on: Borrowed, before: datetime) -> int:
    """Drop keys that sign and verify nothing any more."""
    return await run(on, "DELETE FROM signing_keys WHERE created_at < %s", (before,))
