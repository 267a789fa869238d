"""Stores what was granted or entered: a new connection, or a new credential for one there is."""

from dataclasses import replace
from typing import Final

import structlog

from schemas.errors import Conflict, NotFound
from token_vault.core.grants import Held
from token_vault.core.schedule import refresh_in_s
from token_vault.sealing import Sealer
from token_vault.states import Terms
from token_vault.store import (
    Account,
    Borrowed,
    Connection,
    Owner,
    by_id,
    insert,
    lock_owner,
    owned,
    reconnect,
)
from token_vault.tokens import TokenSource
from wire.clock import mint, rng
from wire.database import Pool, connection

_log = structlog.get_logger("vault")
_UNKNOWN: Final = "an account that the vendor did not name"


class Keeper:
    """Stores connections; one a process."""

    def __init__(self, pool: Pool, sealer: Sealer, tokens: TokenSource) -> None:
        self._pool = pool
        self._sealer = sealer
        self._tokens = tokens

    async def present(self, owner: Owner, terms: Terms) -> Connection | None:
        """Find the connection that would be given a new credential.

        Raises:
            NotFound: The one that is to be connected again is not there.
        """
        async with connection(self._pool) as on:
            return await _present(on, owner, terms)

    async def store(self, owner: Owner, account: Account, held: Held, terms: Terms) -> Connection:
        """Store a connection, or give the one that is there its new credential.

        Raises:
            Conflict: `account_differs`: it is of another account, and that was not allowed.
            NotFound: The connection that was to be connected again was deleted meanwhile.
        """
        account = replace(account, refresh_in_s=refresh_in_s(held, rng.random()))
        async with connection(self._pool) as on:
            await lock_owner(on, owner)
            present = await _present(on, owner, terms)
            if present is not None:
                _check_same(present, account, terms)
            connection_id = present.id if present is not None else mint("conn")
            sealed = await self._sealer.seal_credential(
                owner.workspace, connection_id, owner.user_id, held, on
            )
            if present is not None:
                made = await reconnect(on, owner.workspace, connection_id, account, sealed)
            else:
                made = await insert(on, connection_id, owner, account, sealed)
        self._tokens.forget(made.id)
        self._tokens.forget_missing(owner.workspace, owner.provider)
        _log.info(
            "vault.connected",
            workspace=owner.workspace,
            connection=made.id,
            provider=owner.provider,
            again=present is not None,
        )
        return made


async def _present(on: Borrowed, owner: Owner, terms: Terms) -> Connection | None:
    if terms.connection_id is None:
        return await owned(on, owner)
    present = await by_id(on, owner.workspace, terms.connection_id)
    if present is None or (present.mode, present.provider) != (owner.mode, owner.provider):
        raise no_connection(terms.connection_id)
    return present


def _check_same(present: Connection, account: Account, terms: Terms) -> None:
    """Refuse another account than the one that is connected.

    One that the vendor does not name counts as the same for the developer, who says which
    connection is meant, and as another one for a browser, which may say anything.
    """
    same = present.account_id == account.account_id
    if present.account_id is None or account.account_id is None:
        same = terms.vouched
    if same or (terms.vouched and terms.allow_other_account):
        return
    if not terms.vouched:
        raise Conflict(
            "Another account is connected for this user; only the developer's server can replace"
            " it (POST /api/v1/integrations/auth-url).",
            code="account_differs",
        )
    raise Conflict(
        f"This is {account.account_name or account.account_id or _UNKNOWN}, but the connection"
        f" {present.id} is of {present.account_name or present.account_id}: nothing was changed."
        " Connect with the same account, or allow another one by allow_other_account.",
        code="account_differs",
    )


def no_connection(connection_id: str) -> NotFound:
    """Say that there is no such connection."""
    return NotFound(f"There is no connection {connection_id[:64]!r}.", code="connection_not_found")
