"""Rows of `connections`; every query names its workspace.

The credential is bytes here, sealed before it comes and opened after it leaves. Each change of
`state` is noted in the transaction that makes it (`token_vault.changes`). Refreshing has its own
queries (`token_vault.leases`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from schemas.errors import Conflict, NotFound
from token_vault.changes import Change, note
from wire.database import Pool, connection

Borrowed = AsyncConnection[TupleRow]

PAGE_MAX: Final = 200

_COLUMNS: Final = (
    "id, workspace_id, mode, provider, user_id, label, state, auth_kind, account_id, account_name,"
    " variables, scopes, credential, credential_version, expires_at, lease_until, last_refresh_at,"
    " last_error, created_at, updated_at, refresh_failures, unsettled_since, proven_version,"
    " asked_scopes, client_id"
)
_OF_C: Final = ", ".join(f"c.{name}" for name in _COLUMNS.split(", "))


@dataclass(frozen=True, slots=True)
class Connection:
    """One account of one end customer.

    Attributes:
        state: active, refreshing, degraded (the last refresh failed, the token may still live),
            needs_reauth.
        variables: What URLs need to know of the account; not secret.
        credential: Sealed.
        credential_version: Counts every change of the credential.
        last_error: `{code, message, at}` of the last failed refresh.
        refresh_failures: In a row.
        unsettled_since: Since when a refresh was under way whose answer nobody stored.
        proven_version: The newest version that the vendor was seen to accept.
        asked_scopes: What the consent asked for; `scopes` is what was granted.
        client_id: The OAuth app that it was made with.
    """

    id: str
    workspace_id: str
    mode: str
    provider: str
    user_id: str
    label: str
    state: str
    auth_kind: str
    account_id: str | None
    account_name: str | None
    variables: Mapping[str, str]
    scopes: Sequence[str]
    credential: bytes | None = field(repr=False)
    credential_version: int
    expires_at: datetime | None
    lease_until: datetime | None
    last_refresh_at: datetime | None
    last_error: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    refresh_failures: int
    unsettled_since: datetime | None
    proven_version: int | None
    asked_scopes: Sequence[str]
    client_id: str | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose connection it is; a user may have several of one provider, told apart by label."""

    workspace: str
    mode: str
    provider: str
    user_id: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """What is stored of a connection besides its credential.

    Attributes:
        refresh_in_s: In how many seconds the clock is to refresh it; None: never.
    """

    auth_kind: str
    account_id: str | None
    account_name: str | None
    variables: Mapping[str, str]
    scopes: Sequence[str]
    expires_at: datetime | None
    refresh_in_s: float | None = None
    asked_scopes: Sequence[str] = ()
    client_id: str | None = None


def _select(where: str) -> str:
    return " ".join(("SELECT", _COLUMNS, "FROM connections WHERE workspace_id = %s AND", where))


def _returning(change: str) -> str:
    return f"{change} RETURNING {_COLUMNS}"


def changing(where: str, change: str) -> str:
    """Write an update that gives the state before it and the row after it."""
    return (
        f"WITH was AS (SELECT workspace_id, id, state FROM connections WHERE {where} FOR UPDATE)"  # noqa: S608
        f" UPDATE connections c SET {change} FROM was"
        f" WHERE c.workspace_id = was.workspace_id AND c.id = was.id RETURNING was.state, {_OF_C}"
    )


async def lock_owner(on: Borrowed, owner: Owner) -> None:
    """Let one transaction at a time connect this account; the lock ends with the transaction."""
    name = f"connections/{owner.workspace}/{owner.mode}/{owner.provider}"
    await on.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
        (f"{name}/{owner.user_id}/{owner.label}",),
    )


async def owned(on: Borrowed, owner: Owner) -> Connection | None:
    """Find the connection of this owner and label."""
    cursor = await on.execute(
        _select("mode = %s AND provider = %s AND user_id = %s AND label = %s ORDER BY id LIMIT 1"),
        (owner.workspace, owner.mode, owner.provider, owner.user_id, owner.label),
    )
    return _one(await cursor.fetchone())


async def by_id(on: Borrowed, workspace: str, connection_id: str) -> Connection | None:
    """Find a connection by its id, and keep others from changing it in this transaction."""
    cursor = await on.execute(_select("id = %s FOR UPDATE"), (workspace, connection_id))
    return _one(await cursor.fetchone())


async def require(
    on: Borrowed, workspace: str, mode: str, provider: str, connection_id: str
) -> None:
    """See that a connection is of this workspace, mode and provider.

    Raises:
        NotFound: `connection_not_found`.
    """
    where = "id = %s AND mode = %s AND provider = %s"
    cursor = await on.execute(_select(where), (workspace, connection_id, mode, provider))
    if await cursor.fetchone() is None:
        text = f"There is no {mode} {provider} connection {connection_id[:64]!r}."
        raise NotFound(text, code="connection_not_found")


async def shared(on: Borrowed, row: Connection) -> bool:
    """Say whether another connection is of the same account and app.

    In live mode of whatever workspace: the platform's app is everybody's. In test mode the accounts
    are the sandbox's, which all workspaces share without meaning the same.
    """
    cursor = await on.execute(
        "SELECT EXISTS (SELECT FROM connections WHERE mode = %s AND provider = %s"
        " AND account_id = %s AND client_id IS NOT DISTINCT FROM %s AND id <> %s"
        " AND (mode = 'live' OR workspace_id = %s))",
        (row.mode, row.provider, row.account_id, row.client_id, row.id, row.workspace_id),
    )
    found = await cursor.fetchone()
    return found is not None and bool(found[0])


async def insert(
    on: Borrowed, connection_id: str, owner: Owner, account: Account, credential: bytes
) -> Connection:
    """Store a new connection."""
    cursor = await on.execute(
        _returning(
            "INSERT INTO connections (id, workspace_id, mode, provider, user_id, label, state,"
            " auth_kind, account_id, account_name, variables, scopes, credential,"
            " credential_version, expires_at, refresh_at, asked_scopes, client_id)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'active', %s, %s, %s, %s, %s, %s, 1, %s,"
            " now() + make_interval(secs => %s), %s, %s)"
        ),
        (
            *(connection_id, owner.workspace, owner.mode, owner.provider, owner.user_id),
            *(owner.label, account.auth_kind, account.account_id, account.account_name),
            *(Jsonb(dict(account.variables)), list(account.scopes), credential),
            *(account.expires_at, account.refresh_in_s),
            *(list(account.asked_scopes), account.client_id),
        ),
    )
    made = _sure(await cursor.fetchone())
    await note(on, made, Change(None, made.state, "connected"))
    return made


async def reconnect(
    on: Borrowed, workspace: str, connection_id: str, account: Account, credential: bytes
) -> Connection:
    """Give a connection a new credential; a refresh that is under way loses its lease."""
    cursor = await on.execute(
        changing(
            "workspace_id = %s AND id = %s",
            "state = 'active', auth_kind = %s, account_id = %s, account_name = %s, variables = %s,"
            " scopes = %s, credential = %s, expires_at = %s,"
            " credential_version = c.credential_version + 1, lease_owner = NULL,"
            " lease_until = NULL, last_error = NULL, refresh_failures = 0, unsettled_since = NULL,"
            " refresh_at = now() + make_interval(secs => %s), asked_scopes = %s, client_id = %s,"
            " updated_at = now()",
        ),
        (
            *(workspace, connection_id, account.auth_kind, account.account_id),
            *(account.account_name, Jsonb(dict(account.variables)), list(account.scopes)),
            *(credential, account.expires_at, account.refresh_in_s),
            *(list(account.asked_scopes), account.client_id),
        ),
    )
    before, made = with_before(await cursor.fetchone())
    await note(on, made, Change(before, made.state, "reconnected"))
    return made


class ConnectionStore:
    """Reads and changes connections, each call in a transaction of its own."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def get(self, workspace: str, connection_id: str) -> Connection | None:
        """Find a connection by its id."""
        async with connection(self.pool) as on:
            cursor = await on.execute(
                _select("id = %s"),
                (workspace, connection_id),
            )
            return _one(await cursor.fetchone())

    async def find(
        self, workspace: str, mode: str, provider: str, user_id: str | None, limit: int = 10
    ) -> list[Connection]:
        """Find a user's connections of a provider, or everybody's where no user is named."""
        async with connection(self.pool) as on:
            cursor = await on.execute(
                _select(
                    "mode = %s AND provider = %s AND (%s::text IS NULL OR user_id = %s)"
                    " ORDER BY id LIMIT %s"
                ),
                (workspace, mode, provider, user_id, user_id, limit),
            )
            return [_sure(row) for row in await cursor.fetchall()]

    async def page(
        self, workspace: str, mode: str, wanted: Mapping[str, str | None], after: str, limit: int
    ) -> list[Connection]:
        """Give connections by id, newest first.

        Args:
            workspace: Whose.
            mode: `live` or `test`.
            wanted: Filters by `provider`, `user_id` and `state`; None: any.
            after: Id of the last one that the caller has; empty: from the start.
            limit: At most `PAGE_MAX`.
        """
        provider, user = wanted.get("provider"), wanted.get("user_id")
        state = wanted.get("state")
        async with connection(self.pool) as on:
            cursor = await on.execute(
                _select(
                    "mode = %s AND (%s::text IS NULL OR provider = %s)"
                    " AND (%s::text IS NULL OR user_id = %s) AND (%s::text IS NULL OR state = %s)"
                    " AND (%s = '' OR id < %s) ORDER BY id DESC LIMIT %s"
                ),
                (
                    *(workspace, mode, provider, provider, user, user, state, state),
                    *(after, after, min(limit, PAGE_MAX)),
                ),
            )
            return [_sure(row) for row in await cursor.fetchall()]

    async def label(self, workspace: str, connection_id: str, label: str) -> Connection | None:
        """Give a connection another label; None where it is not there.

        Raises:
            Conflict: `label_taken`: the user has one of this provider under this label.
        """
        async with connection(self.pool) as on:
            row = await by_id(on, workspace, connection_id)
            if row is None:
                return None
            owner = Owner(workspace, row.mode, row.provider, row.user_id, label)
            await lock_owner(on, owner)
            present = await owned(on, owner)
            if present is not None and present.id != connection_id:
                raise Conflict(
                    f"The connection {present.id} of this user and provider has this label.",
                    code="label_taken",
                )
            cursor = await on.execute(
                _returning(
                    "UPDATE connections SET label = %s, updated_at = now()"
                    " WHERE workspace_id = %s AND id = %s"
                ),
                (label, workspace, connection_id),
            )
            return _one(await cursor.fetchone())

    async def delete(self, workspace: str, connection_id: str) -> Connection | None:
        """Delete a connection and give what it was."""
        async with connection(self.pool) as on:
            cursor = await on.execute(
                _returning("DELETE FROM connections WHERE workspace_id = %s AND id = %s"),
                (workspace, connection_id),
            )
            gone = _one(await cursor.fetchone())
            if gone is not None:
                await note(on, gone, Change(gone.state, "revoked", "deleted"))
            return gone


def with_before(row: TupleRow | None) -> tuple[str, Connection]:
    """Read what a `changing` statement gave: the state before it and the row after it."""
    assert row is not None  # noqa: S101 - RETURNING always gives a row here
    return row[0], _sure(row[1:])


def _one(row: TupleRow | None) -> Connection | None:
    if row is None:
        return None
    values = list(row)
    values[12] = bytes(values[12]) if values[12] is not None else None
    return Connection(*values)


def _sure(row: TupleRow | None) -> Connection:
    found = _one(row)
    assert found is not None  # noqa: S101 - RETURNING always gives a row here
    return found
