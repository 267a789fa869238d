"""Rows of `people`, `sessions` and `refresh_tokens`.

Of passwords only argon2id hashes are kept, of tokens only digests. These rows belong to persons and
not to workspaces: every query names the person or holds a token of theirs.
"""

from datetime import datetime
from typing import Any

from control.store.query import Borrowed, Row, row, rows, run


async def insert(on: Borrowed, person: str, email: str, name: str, password: str) -> bool:
    """Add a person; False where the address is taken.

    Args:
        on: The transaction.
        person: Their id.
        email: In its normal form.
        name: May be empty.
        password: The hash.
    """
    sql = (
        "INSERT INTO people (id, email, name, password) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (email) DO NOTHING"
    )
    return await run(on, sql, (person, email, name, password)) == 1


async def by_email(on: Borrowed, email: str) -> Row | None:
    """Find who logs in, with the hash of their password."""
    return await row(on, "SELECT id, email, name, password FROM people WHERE email = %s", (email,))


async def get(on: Borrowed, person: str, *, lock: bool = False) -> Row | None:
    """Give a person, with the hash; `lock` makes others who change it wait."""
    sql = "SELECT id, email, name, password, created_at FROM people WHERE id = %s"
    return await row(on, sql + (" FOR UPDATE" if lock else ""), (person,))


async def set_password(on: Borrowed, person: str, password: str) -> None:
    """Write another hash."""
    sql = "UPDATE people SET password = %s, password_changed_at = now() WHERE id = %s"
    await run(on, sql, (password, person))


async def rehash(on: Borrowed, person: str, old: str, new: str) -> None:
    """Write the same password hashed with newer parameters, unless it was changed meanwhile."""
    sql = "UPDATE people SET password = %s WHERE id = %s AND password = %s"
    await run(on, sql, (new, person, old))


async def insert_session(on: Borrowed, values: dict[str, Any]) -> None:
    """Add a session.

    Args:
        on: The transaction.
        values: id, person, user_agent, address, now, expires_at.
    """
    await run(
        on,
        "INSERT INTO sessions"
        " (id, person_id, user_agent, address, created_at, refreshed_at, expires_at) VALUES"
        " (%(id)s, %(person)s, %(user_agent)s, %(address)s, %(now)s, %(now)s, %(expires_at)s)",
        values,
    )


async def insert_token(on: Borrowed, digest: bytes, session: str, expires_at: datetime) -> None:
    """Add the refresh token that is good from now on."""
    sql = "INSERT INTO refresh_tokens (digest, session_id, expires_at) VALUES (%s, %s, %s)"
    await run(on, sql, (digest, session, expires_at))


async def session_of_token(on: Borrowed, digest: bytes) -> Row | None:
    """Find a refresh token and its session; both are locked until the transaction ends."""
    return await row(
        on,
        "SELECT t.used_at, t.expires_at, s.id, s.person_id, s.created_at, s.revoked_at"
        " FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id"
        " WHERE t.digest = %s FOR UPDATE",
        (digest,),
    )


async def use_token(on: Borrowed, digest: bytes, now: datetime) -> None:
    """Note that a refresh token was used: it is good no more."""
    await run(on, "UPDATE refresh_tokens SET used_at = %s WHERE digest = %s", (now, digest))


async def extend_session(on: Borrowed, session: str, now: datetime, expires_at: datetime) -> None:
    """Note that a session goes on."""
    sql = "UPDATE sessions SET refreshed_at = %s, expires_at = %s WHERE id = %s"
    await run(on, sql, (now, expires_at, session))


async def revoke_session(
    on: Borrowed, person: str, session: str, now: datetime, reason: str
) -> bool:
    """End a session; False where it is not theirs or has ended."""
    sql = (
        "UPDATE sessions SET revoked_at = %s, revoked_for = %s"
        " WHERE id = %s AND person_id = %s AND revoked_at IS NULL"
    )
    return await run(on, sql, (now, reason, session, person)) == 1


async def revoke_sessions(
    on: Borrowed, person: str, now: datetime, reason: str, but: str = ""
) -> int:
    """End all sessions of a person but one; say how many there were."""
    sql = (
        "UPDATE sessions SET revoked_at = %s, revoked_for = %s"
        " WHERE person_id = %s AND id <> %s AND revoked_at IS NULL"
    )
    return await run(on, sql, (now, reason, person, but))


async def revoke_oldest(on: Borrowed, person: str, now: datetime, most: int) -> None:
    """End what is beyond the newest `most` sessions of a person."""
    await run(
        on,
        "UPDATE sessions SET revoked_at = %(now)s, revoked_for = 'too_many' WHERE id IN"
        " (SELECT id FROM sessions WHERE person_id = %(person)s AND revoked_at IS NULL"
        " AND expires_at > %(now)s ORDER BY created_at DESC, id DESC OFFSET %(most)s)",
        {"now": now, "person": person, "most": most},
    )


async def live(on: Borrowed, session: str, workspace: str | None, now: datetime) -> Row | None:
    """Give who is in a session that lives, and their role in a workspace (None: not a member)."""
    return await row(
        on,
        "SELECT s.person_id, m.role FROM sessions s LEFT JOIN memberships m"
        " ON m.person_id = s.person_id AND m.workspace_id = %s"
        " WHERE s.id = %s AND s.revoked_at IS NULL AND s.expires_at > %s",
        (workspace, session, now),
    )


async def sessions_page(
    on: Borrowed, person: str, now: datetime, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List the sessions of a person that live, newest first."""
    micros, identity = after or (None, None)
    return await rows(
        on,
        "SELECT id AS session_id, user_agent, address, created_at, refreshed_at, expires_at,"
        " (extract(epoch FROM created_at) * 1000000)::bigint AS sort_us FROM sessions"
        " WHERE person_id = %(person)s AND revoked_at IS NULL AND expires_at > %(now)s"
        " AND (%(us)s::bigint IS NULL OR (created_at, id) <"
        " ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond', %(after)s::text))"
        " ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
        {"person": person, "now": now, "us": micros, "after": identity, "limit": limit},
    )


async def forget_old(on: Borrowed) -> int:
    """Drop sessions and tokens that ended a day ago: nobody can be told more about them."""
    dropped = await run(on, "DELETE FROM sessions WHERE expires_at < now() - interval '1 day'")
    dropped += await run(
        on, "DELETE FROM refresh_tokens WHERE expires_at < now() - interval '1 day'"
    )
    return dropped
