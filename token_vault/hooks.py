"""Addresses at which vendors' webhooks come in, and the secrets that the vendors sign with.

An address belongs to a workspace, a mode and a provider, and to one connection where the vendor
makes subscriptions per account. Its id is 130 random bits: some vendors sign nothing, and then the
address is all that vouches for them. A changed secret leaves the old one good for a while.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from schemas.errors import Conflict, NotFound
from schemas.ids import derived_id, is_id
from schemas.settings import Secret
from token_vault.store import require
from wire.database import Pool, connection

OVERLAP_H: Final = 24
# Per workspace; more than anybody can keep an eye on.
ENDPOINTS_MAX: Final = 500
# Connections of one account that an event goes to.
OWNERS_MAX: Final = 100
ROW: Final = (
    "id, workspace_id, mode, provider, label, connection_id, secret, old_secret, old_until,"
    " created_at, updated_at, params, subscription, renew_at, renew_error"
)


@dataclass(frozen=True, slots=True)
class HookRow:
    """One address; secrets sealed.

    Attributes:
        params: What the platform is to subscribe to; None: the subscription is made by hand.
        subscription: `{"id": …}` as the vendor gave it; None: not subscribed.
        renew_at: When it must be renewed; None: it never ends.
        renew_error: Why it could not be, last time.
    """

    id: str
    workspace_id: str
    mode: str
    provider: str
    label: str
    connection_id: str | None
    secret: bytes | None
    old_secret: bytes | None
    old_until: datetime | None
    created_at: datetime
    updated_at: datetime
    params: Mapping[str, Any] | None
    subscription: Mapping[str, Any] | None
    renew_at: datetime | None
    renew_error: str | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address as ingest needs it.

    Attributes:
        user: Whose connection it is for; None: the account in each event tells.
        secrets: The live ones, newest first.
    """

    id: str
    workspace_id: str
    mode: str
    provider: str
    connection_id: str | None
    user: str | None
    secrets: tuple[Secret, ...]


class TextSealer(Protocol):
    """Seals secrets of a workspace; the vault is one."""

    async def seal_text(self, workspace: str, field: str, text: Secret) -> bytes:
        """Seal a secret."""
        ...

    async def open_text(self, workspace: str, field: str, sealed: bytes) -> Secret:
        """Open what `seal_text` sealed under the same workspace and field."""
        ...


class Hooks:
    """Keeps the addresses.

    Args:
        pool: Of the database.
        sealer: Of the vault.
    """

    def __init__(self, pool: Pool, sealer: TextSealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def create(  # noqa: PLR0913 - a row, column by column
        self,
        workspace: str,
        mode: str,
        provider: str,
        label: str,
        connection_id: str | None,
        secret: Secret | None,
        params: Mapping[str, Any] | None = None,
    ) -> HookRow:
        """Make an address.

        Args:
            workspace: Whose.
            mode: `live` or `test`.
            provider: Its slug.
            label: For people.
            connection_id: Whose account its events are of.
            secret: What the vendor signs with.
            params: What is to be subscribed to (`token_vault.subscriptions` does it).

        Raises:
            NotFound: `connection_not_found`: not of this workspace, mode and provider.
            Conflict: `too_many_endpoints`.
        """
        name = derived_id("hook", os.urandom(32).hex())
        async with connection(self._pool) as on, on.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT count(*) AS count FROM webhook_endpoints WHERE workspace_id = %s",
                (workspace,),
            )
            found = await cursor.fetchone()
            if found is not None and found["count"] >= ENDPOINTS_MAX:
                raise Conflict(
                    f"A workspace has up to {ENDPOINTS_MAX} webhook endpoints; delete one.",
                    code="too_many_endpoints",
                )
            if connection_id is not None:
                await require(on, workspace, mode, provider, connection_id)
            sealed = await self._seal(workspace, name, secret) if secret is not None else None
            await cursor.execute(
                "INSERT INTO webhook_endpoints"
                " (id, workspace_id, mode, provider, label, connection_id, secret, params)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    *(name, workspace, mode, provider, label, connection_id, sealed),
                    None if params is None else Jsonb(params),
                ),
            )
        return await self.get(workspace, mode, name)

    async def page(
        self, workspace: str, mode: str, provider: str | None, after: str, limit: int
    ) -> list[HookRow]:
        """List addresses by id, from behind `after`."""
        async with (
            connection(self._pool) as on,
            on.cursor(row_factory=class_row(HookRow)) as cursor,
        ):
            await cursor.execute(
                f"SELECT {ROW} FROM webhook_endpoints WHERE workspace_id = %s AND mode = %s"  # noqa: S608 - columns of ours
                " AND (%s::text IS NULL OR provider = %s) AND id > %s ORDER BY id LIMIT %s",
                (workspace, mode, provider, provider, after, limit),
            )
            return await cursor.fetchall()

    async def get(self, workspace: str, mode: str, name: str) -> HookRow:
        """Give one.

        Raises:
            NotFound: `endpoint_not_found`.
        """
        async with (
            connection(self._pool) as on,
            on.cursor(row_factory=class_row(HookRow)) as cursor,
        ):
            await cursor.execute(
                f"SELECT {ROW} FROM webhook_endpoints"  # noqa: S608 - columns of ours
                " WHERE workspace_id = %s AND mode = %s AND id = %s",
                (workspace, mode, name),
            )
            row = await cursor.fetchone()
        if row is None:
            raise _not_found(name)
        return row

    async def delete(self, workspace: str, mode: str, name: str) -> None:
        """Delete one; what the vendor sends there is refused from then on.

        Raises:
            NotFound: `endpoint_not_found`.
        """
        async with connection(self._pool) as on:
            done = await on.execute(
                "DELETE FROM webhook_endpoints WHERE workspace_id = %s AND mode = %s AND id = %s",
                (workspace, mode, name),
            )
            if not done.rowcount:
                raise _not_found(name)

    async def set_secret(
        self, workspace: str, name: str, secret: Secret, overlap_h: int = OVERLAP_H
    ) -> None:
        """Change the secret; the one before stays good for a while.

        Args:
            workspace: Whose.
            name: `hook_…`
            secret: The new one.
            overlap_h: Hours.

        Raises:
            NotFound: `endpoint_not_found`.
        """
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT secret FROM webhook_endpoints WHERE workspace_id = %s AND id = %s"
                " FOR UPDATE",
                (workspace, name),
            )
            row = await cursor.fetchone()
            if row is None:
                raise _not_found(name)
            old: Secret | None = None
            if row[0] is not None:
                old = await self._open(workspace, name, bytes(row[0]))
            if old is not None and old.reveal() == secret.reveal():
                return
            await on.execute(
                "UPDATE webhook_endpoints SET secret = %s, old_secret = %s, old_until = now() + %s,"
                " updated_at = now() WHERE workspace_id = %s AND id = %s",
                (
                    await self._seal(workspace, name, secret),
                    await self._seal(workspace, name, old) if old is not None else None,
                    timedelta(hours=overlap_h) if old is not None else None,
                    workspace,
                    name,
                ),
            )

    async def find(self, name: str) -> Endpoint:
        """Give the address that a request came to, whosever it is.

        Raises:
            NotFound: `endpoint_not_found`.
            SecretUnavailable: Its secret does not open.
        """
        if not is_id("hook", name):
            raise _not_found(name)
        async with connection(self._pool) as on, on.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT e.id, e.workspace_id, e.mode, e.provider, e.connection_id, e.secret,"
                " CASE WHEN e.old_until > now() THEN e.old_secret END AS old_secret, c.user_id"
                " FROM webhook_endpoints e LEFT JOIN connections c"
                " ON c.id = e.connection_id AND c.workspace_id = e.workspace_id WHERE e.id = %s",
                (name,),
            )
            row = await cursor.fetchone()
        if row is None:
            raise _not_found(name)
        secrets = [
            await self._open(row["workspace_id"], name, bytes(sealed))
            for sealed in (row["secret"], row["old_secret"])
            if sealed is not None
        ]
        return Endpoint(
            id=row["id"],
            workspace_id=row["workspace_id"],
            mode=row["mode"],
            provider=row["provider"],
            connection_id=row["connection_id"],
            user=row["user_id"],
            secrets=tuple(secrets),
        )

    async def owners(
        self, workspace: str, mode: str, provider: str, account: str
    ) -> Sequence[tuple[str, str]]:
        """Give connection and user of everybody who connected this account, oldest first."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT id, user_id FROM connections WHERE workspace_id = %s AND mode = %s"
                " AND provider = %s AND account_id = %s ORDER BY id LIMIT %s",
                (workspace, mode, provider, account, OWNERS_MAX),
            )
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return [(row[0], row[1]) for row in rows]

    async def _seal(self, workspace: str, name: str, secret: Secret) -> bytes:
        return await self._sealer.seal_text(workspace, f"webhook_endpoint/{name}", secret)

    async def _open(self, workspace: str, name: str, sealed: bytes) -> Secret:
        return await self._sealer.open_text(workspace, f"webhook_endpoint/{name}", sealed)


def _not_found(name: str) -> NotFound:
    return NotFound(
        f"There is no webhook endpoint {name[:64]!r}; copy its address again.",
        code="endpoint_not_found",
    )
