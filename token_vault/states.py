"""Rows of `oauth_states`: consents under way, found by the digest of their state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from token_vault.store import Borrowed, Owner


@dataclass(frozen=True, slots=True)
class Terms:
    """What making a connection has to keep to.

    Attributes:
        vouched: The developer's key began it; else a browser did, and anybody may say any user.
        connection_id: The connection that is to be connected again; None: the owner's, or a new.
        allow_other_account: False: only the account that it is of will do.
        require_all_scopes: Store nothing where less was granted than was asked for.
    """

    vouched: bool = True
    connection_id: str | None = None
    allow_other_account: bool = True
    require_all_scopes: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A consent under way.

    Attributes:
        client_id: The OAuth app that it was begun with.
        pending: A grant, sealed, that waits for one of its accounts to be chosen.
        choices: These accounts: `{id, name, variables}`.
    """

    owner: Owner
    redirect_uri: str
    return_url: str | None
    variables: Mapping[str, str]
    scopes: Sequence[str]
    verifier: bytes | None = field(repr=False)
    expires_at: datetime
    terms: Terms
    client_id: str | None = None
    pending: bytes | None = field(default=None, repr=False)
    choices: Sequence[Mapping[str, Any]] = ()


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
        " redirect_uri, return_url, variables, scopes, verifier, expires_at, vouched,"
        " connection_id, allow_other_account, require_all_scopes, client_id)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(digest, owner.workspace, owner.mode, owner.provider, owner.user_id, owner.label),
            *(state.redirect_uri, state.return_url, Jsonb(dict(state.variables))),
            *(list(state.scopes), state.verifier, state.expires_at, state.terms.vouched),
            *(state.terms.connection_id, state.terms.allow_other_account),
            *(state.terms.require_all_scopes, state.client_id),
        ),
    )


async def look_at_state(on: Borrowed, digest: bytes) -> tuple[State, bool] | None:
    """Find a consent by its state's digest and say whether it was used.

    The state is 256 random bits that only its workspace was given: it names the workspace.
    """
    cursor = await on.execute(
        "SELECT workspace_id, mode, provider, user_id, label, redirect_uri, return_url, variables,"
        " scopes, verifier, expires_at, vouched, connection_id, allow_other_account,"
        " require_all_scopes, client_id, pending, choices, used_at"
        " FROM oauth_states WHERE digest = %s",
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
        terms=Terms(*row[11:15]),
        client_id=row[15],
        pending=bytes(row[16]) if row[16] is not None else None,
        choices=row[17] or (),
    )
    return state, row[18] is not None


async def keep_pending(
    on: Borrowed,
    workspace: str,
    digest: bytes,
    pending: bytes,
    choices: Sequence[Mapping[str, Any]],
    expires_at: datetime,
) -> None:
    """Keep a grant of several accounts until one is chosen."""
    await on.execute(
        "UPDATE oauth_states SET pending = %s, choices = %s, expires_at = %s"
        " WHERE digest = %s AND workspace_id = %s",
        (pending, Jsonb([dict(choice) for choice in choices]), expires_at, digest, workspace),
    )


async def take_pending(on: Borrowed, workspace: str, digest: bytes) -> bool:
    """Take such a grant out; False where somebody else just did."""
    cursor = await on.execute(
        "UPDATE oauth_states SET pending = NULL, choices = NULL"
        " WHERE digest = %s AND workspace_id = %s AND pending IS NOT NULL",
        (digest, workspace),
    )
    return cursor.rowcount == 1


async def use_state(on: Borrowed, workspace: str, digest: bytes) -> bool:
    """Use a state up; False where somebody else just did."""
    cursor = await on.execute(
        "UPDATE oauth_states SET used_at = now()"
        " WHERE digest = %s AND workspace_id = %s AND used_at IS NULL",
        (digest, workspace),
    )
    return cursor.rowcount == 1
