"""Rows of `connections` and `oauth_states`; every query names its workspace.

The credential is bytes here, sealed before it comes and opened after it leaves. A refresh is a
lease on the row and a compare-and-swap on `credential_version`: who does not hold both changes
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from wire.database import Pool, connection

Borrowed = AsyncConnection[TupleRow]

# A refresh that takes longer lost its process; another may try.
LEASE_S: Final = 30
PAGE_MAX: Final = 200

_COLUMNS: Final = (
    "id, workspace_id, mode, provider, user_id, label, state, auth_kind, account_id, account_name,"
    " variables, scopes, credential, credential_version, expires_at, lease_until, last_refresh_at,"
    " last_error, created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class Connection:
    """One account of one end customer.

    Attributes:
        state: active, degraded (the last refresh failed, the token may still live), needs_reauth.
        variables: What URLs need to know of the account; not secret.
        credential: Sealed.
        credential_version: Counts every change of the credential.
        last_error: `{code, message, at}` of the last failed refresh.
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
    """What is stored of a connection besides its credential."""

    auth_kind: str
    account_id: str | None
    account_name: str | None
    variables: Mapping[str, str]
    scopes: Sequence[str]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class State:
    """A consent under way.

    Attributes:
        vouched: The developer's key began it; else a browser did, and anybody may say any user.
    """

    owner: Owner
    redirect_uri: str
    return_url: str | None
    variables: Mapping[str, str]
    scopes: Sequence[str]
    verifier: bytes | None = field(repr=False)
    expires_at: datetime
    vouched: bool


def _select(where: str) -> str:
    return " ".join(("SELECT", _COLUMNS, "FROM connections WHERE workspace_id = %s AND", where))


def _returning(change: str) -> str:
    return f"{change} RETURNING {_COLUMNS}"


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


async def insert(
    on: Borrowed, connection_id: str, owner: Owner, account: Account, credential: bytes
) -> Connection:
    """Store a new connection."""
    cursor = await on.execute(
        _returning(
            "INSERT INTO connections (id, workspace_id, mode, provider, user_id, label, state,"
            " auth_kind, account_id, account_name, variables, scopes, credential,"
            " credential_version, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'active', %s, %s, %s, %s, %s, %s, 1, %s)"
        ),
        (
            *(connection_id, owner.workspace, owner.mode, owner.provider, owner.user_id),
            *(owner.label, account.auth_kind, account.account_id, account.account_name),
            *(Jsonb(dict(account.variables)), list(account.scopes), credential),
            account.expires_at,
        ),
    )
    return _sure(await cursor.fetchone())


async def reconnect(
    on: Borrowed, workspace: str, connection_id: str, account: Account, credential: bytes
) -> Connection:
    """Give a connection a new credential; a refresh that is under way loses its lease."""
    cursor = await on.execute(
        _returning(
            "UPDATE connections SET state = 'active', auth_kind = %s, account_id = %s,"
            " account_name = %s, variables = %s, scopes = %s, credential = %s, expires_at = %s,"
            " credential_version = credential_version + 1, lease_owner = NULL, lease_until = NULL,"
            " last_error = NULL, updated_at = now() WHERE workspace_id = %s AND id = %s"
        ),
        (
            *(account.auth_kind, account.account_id, account.account_name),
            *(Jsonb(dict(account.variables)), list(account.scopes), credential),
            *(account.expires_at, workspace, connection_id),
        ),
    )
    return _sure(await cursor.fetchone())


class ConnectionStore:
    """Reads and changes connections, each call in a transaction of its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, workspace: str, connection_id: str) -> Connection | None:
        """Find a connection by its id."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                _select("id = %s"),
                (workspace, connection_id),
            )
            return _one(await cursor.fetchone())

    async def find(
        self, workspace: str, mode: str, provider: str, user_id: str | None, limit: int = 10
    ) -> list[Connection]:
        """Find a user's connections of a provider, or everybody's where no user is named."""
        async with connection(self._pool) as on:
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
        async with connection(self._pool) as on:
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

    async def delete(self, workspace: str, connection_id: str) -> Connection | None:
        """Delete a connection and give what it was."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                _returning("DELETE FROM connections WHERE workspace_id = %s AND id = %s"),
                (workspace, connection_id),
            )
            return _one(await cursor.fetchone())

    async def lease(
        self, workspace: str, connection_id: str, version: int, owner: str
    ) -> Connection | None:
        """Take the right to refresh; None where it changed meanwhile or another holds the lease."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                _returning(
                    "UPDATE connections SET lease_owner = %s,"
                    " lease_until = now() + make_interval(secs => %s)"
                    " WHERE workspace_id = %s AND id = %s AND credential_version = %s"
                    " AND (lease_until IS NULL OR lease_until < now())"
                ),
                (owner, LEASE_S, workspace, connection_id, version),
            )
            return _one(await cursor.fetchone())

    async def commit_refresh(
        self, held: Connection, owner: str, account: Account, credential: bytes
    ) -> Connection | None:
        """Store a refreshed credential; None where the lease or the version is no longer ours."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                _returning(
                    "UPDATE connections SET state = 'active', variables = %s, scopes = %s,"
                    " credential = %s, credential_version = credential_version + 1,"
                    " expires_at = %s, lease_owner = NULL, lease_until = NULL,"
                    " last_refresh_at = now(), last_error = NULL, updated_at = now()"
                    " WHERE workspace_id = %s AND id = %s AND credential_version = %s"
                    " AND lease_owner = %s"
                ),
                (
                    *(Jsonb(dict(account.variables)), list(account.scopes), credential),
                    *(account.expires_at, held.workspace_id, held.id, held.credential_version),
                    owner,
                ),
            )
            return _one(await cursor.fetchone())

    async def fail_refresh(
        self, held: Connection, owner: str, state: str, error: Mapping[str, str]
    ) -> Connection | None:
        """Note a failed refresh and give the lease back; None where it is no longer ours."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                _returning(
                    "UPDATE connections SET state = %s, lease_owner = NULL, lease_until = NULL,"
                    " last_error = %s || jsonb_build_object('at', now()), updated_at = now()"
                    " WHERE workspace_id = %s AND id = %s AND credential_version = %s"
                    " AND lease_owner = %s"
                ),
                (
                    *(state, Jsonb(dict(error)), held.workspace_id, held.id),
                    *(held.credential_version, owner),
                ),
            )
            return _one(await cursor.fetchone())


async def put_state(on: Borrowed, digest: bytes, state: State) -> None:
    """Store a consent under way, and forget those that ended a day ago."""
    owner = state.owner
    await on.execute(
        "DELETE FROM oauth_states"
        " WHERE workspace_id = %s AND expires_at < now() - interval '1 day'",
        (owner.workspace,),
    )
    await on.execute(
        "INSERT INTO oauth_states (digest, workspace_id, mode, provider, user_id, label,"
        " redirect_uri, return_url, variables, scopes, verifier, expires_at, vouched)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(digest, owner.workspace, owner.mode, owner.provider, owner.user_id, owner.label),
            *(state.redirect_uri, state.return_url, Jsonb(dict(state.variables))),
            *(list(state.scopes), state.verifier, state.expires_at, state.vouched),
        ),
    )


async def look_at_state(on: Borrowed, digest: bytes) -> tuple[State, bool] | None:
    """Find a consent by its state's digest and say whether it was used.

    The state is 256 random bits that only its workspace was given: it names the workspace.
    """
    cursor = await on.execute(
        "SELECT workspace_id, mode, provider, user_id, label, redirect_uri, return_url, variables,"
        " scopes, verifier, expires_at, vouched, used_at FROM oauth_states WHERE digest = %s",
        (digest,),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    state = State(
        owner=Owner(*row[0:5]),
        redirect_uri=row[5],
        return_url=row[6],
        variables=row[7],
        scopes=row[8],
        verifier=bytes(row[9]) if row[9] is not None else None,
        expires_at=row[10],
        vouched=row[11],
    )
    return state, row[12] is not None


async def use_state(on: Borrowed, workspace: str, digest: bytes) -> bool:
    """Use a state up; False where somebody else just did."""
    cursor = await on.execute(
        "UPDATE oauth_states SET used_at = now()"
        " WHERE digest = %s AND workspace_id = %s AND used_at IS NULL",
        (digest, workspace),
    )
    return cursor.rowcount == 1


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
