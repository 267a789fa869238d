"""Rows of `connect_sessions`: a link for one end customer, opened once, then held by one browser.

    made ──▶ opened ──▶ failed ⇄ connected          (a failure can be tried again until it expires)

The token in the link and the browser's cookie are 256 random bits each; only their digests are kept
here. The id, `cs_…`, is no secret: it names the page and opens nothing.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from wire.clock import mint

Borrowed = AsyncConnection[TupleRow]

# To open the link, and from then on to connect.
LIFE: Final = timedelta(minutes=30)
# How the last try ended can be read a while longer, so that a slow consent is not left hanging.
READ_LIFE: Final = timedelta(hours=1)
TOKEN_BYTES: Final = 32
TOKEN_PREFIX: Final = "nhood_cs_"  # noqa: S105 - says what the token is
_FIELDS: Final = (
    "s.id, s.workspace_id, w.name, s.mode, s.user_id, s.label, s.providers, s.connection_id,"
    " s.return_url, s.browser, s.opened_at, s.provider, s.status, s.error, s.result_id,"
    " s.expires_at"
)
_FROM: Final = "FROM connect_sessions s JOIN workspaces w ON w.id = s.workspace_id"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the developer wants of a link.

    Attributes:
        providers: Which may be connected; None: all of the catalogue.
        connection_id: The connection that is to be connected again.
        return_url: Where the customer goes in the end.
    """

    workspace: str
    mode: str
    user_id: str
    label: str
    providers: Sequence[str] | None
    connection_id: str | None
    return_url: str | None


@dataclass(frozen=True, slots=True)
class Session:
    """A link as it stands.

    Attributes:
        workspace_name: What the customer sees as whom they deal with.
        browser: Digest of the cookie that it belongs to; None: nobody opened it.
        provider, status, error, result_id: How the last try ended: `connected` with the
            connection's id, or `failed` with the error's code.
        expires_at: Until when it can be opened, and once it is, used.
    """

    id: str
    workspace: str
    workspace_name: str
    mode: str
    user_id: str
    label: str
    providers: Sequence[str] | None
    connection_id: str | None
    return_url: str | None
    browser: bytes | None = field(repr=False)
    opened_at: datetime | None
    provider: str | None
    status: str | None
    error: str | None
    result_id: str | None
    expires_at: datetime

    def belongs_to(self, cookie: str | None) -> bool:
        """Say whether the browser that holds this cookie opened it."""
        if cookie is None or self.browser is None:
            return False
        return secrets.compare_digest(digest(cookie), self.browser)


def digest(secret: str) -> bytes:
    """Give what is kept of a token or cookie."""
    return hashlib.sha256(secret.encode()).digest()


def new_token() -> str:
    """Make what stands in a link."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


async def make(on: Borrowed, asked: Asked, token: str, now: datetime) -> tuple[str, datetime]:
    """Store a new link, and forget those of the workspace that ended a day ago.

    Returns:
        Its id, and until when it can be opened.
    """
    await on.execute(
        "DELETE FROM connect_sessions WHERE workspace_id = %s AND expires_at < %s",
        (asked.workspace, now - timedelta(days=1)),
    )
    session_id, expires_at = mint("cs"), now + LIFE
    providers = list(asked.providers) if asked.providers is not None else None
    await on.execute(
        "INSERT INTO connect_sessions (id, digest, workspace_id, mode, user_id, label, providers,"
        " connection_id, return_url, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(session_id, digest(token), asked.workspace, asked.mode, asked.user_id, asked.label),
            *(providers, asked.connection_id, asked.return_url, expires_at),
        ),
    )
    return session_id, expires_at


async def by_token(on: Borrowed, token: str) -> Session | None:
    """Find a link by the token in it; the token names the workspace, nobody else knows it."""
    return await _find(on, "s.digest = %s", (digest(token),))


async def by_id(on: Borrowed, session_id: str) -> Session | None:
    """Find a link by its id; whoever calls looks whether the browser holds its cookie."""
    return await _find(on, "s.id = %s", (session_id,))


async def of_workspace(on: Borrowed, workspace: str, mode: str, session_id: str) -> Session | None:
    """Find a link of a workspace and mode."""
    where = "s.workspace_id = %s AND s.mode = %s AND s.id = %s"
    return await _find(on, where, (workspace, mode, session_id))


async def by_state(on: Borrowed, state: str) -> Session | None:
    """Find the link by which a consent was begun, by the consent's state."""
    where = (
        "s.id = (SELECT connect_session_id FROM oauth_states o"
        " WHERE o.digest = %s AND o.workspace_id = s.workspace_id)"
    )
    return await _find(on, where, (digest(state),))


async def open_once(on: Borrowed, session: Session, cookie: str, now: datetime) -> bool:
    """Give the link to the browser that gets this cookie; False where another one was first."""
    cursor = await on.execute(
        "UPDATE connect_sessions SET opened_at = %s, browser = %s, expires_at = %s"
        " WHERE workspace_id = %s AND id = %s AND opened_at IS NULL AND expires_at > %s",
        (now, digest(cookie), now + LIFE, session.workspace, session.id, now),
    )
    return cursor.rowcount == 1


async def bind_state(on: Borrowed, session: Session, state: str) -> None:
    """Note that a consent was begun by this link, before anybody knows the consent's address."""
    await on.execute(
        "UPDATE oauth_states SET connect_session_id = %s WHERE digest = %s AND workspace_id = %s",
        (session.id, digest(state), session.workspace),
    )


async def note_connected(on: Borrowed, session: Session, provider: str, made: str) -> None:
    """Note that the link did its work."""
    await on.execute(
        "UPDATE connect_sessions SET status = 'connected', provider = %s, result_id = %s,"
        " error = NULL WHERE workspace_id = %s AND id = %s",
        (provider, made, session.workspace, session.id),
    )


async def note_failed(on: Borrowed, session: Session, provider: str, code: str) -> None:
    """Note why a try failed; what is connected stays so."""
    await on.execute(
        "UPDATE connect_sessions SET status = 'failed', provider = %s, error = %s"
        " WHERE workspace_id = %s AND id = %s AND status IS DISTINCT FROM 'connected'",
        (provider, code, session.workspace, session.id),
    )


async def _find(on: Borrowed, where: str, values: tuple[object, ...]) -> Session | None:
    cursor = await on.execute(" ".join(("SELECT", _FIELDS, _FROM, "WHERE", where)), values)
    row = await cursor.fetchone()
    if row is None:
        return None
    found = list(row)
    found[9] = bytes(found[9]) if found[9] is not None else None
    return Session(*found)
