"""The vault, put together: the only part that sees a credential in clear.

Vault.open    from settings and a pool; refuses to start without a root key
.tokens       credentials for executors (`token_vault.tokens.TokenSource`)
.oauth        consent flows (`token_vault.oauth.OAuth`)
.entered      credentials that customers enter (`token_vault.entered.Entered`)
.keeper       stores what was granted or entered (`token_vault.keeper.Keeper`)
.apps         OAuth apps, the workspaces' own and the platform's (`token_vault.apps.Apps`)
.store        connections as rows
.subscriptions    webhooks that vendors' APIs register (`token_vault.subscriptions.Subscriptions`)
.audit        who was given a credential (`token_vault.audit.AccessLog`)
.seal_text, .open_text, .webhook_secrets    a workspace's own secrets
"""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import httpx
import structlog

from schemas.errors import NeighbourhoodError, NotFound
from schemas.provider import Catalogue, load_catalogue
from schemas.settings import Secret, Settings
from token_vault.account import Visit, revoke
from token_vault.apps import Apps
from token_vault.audit import AccessLog
from token_vault.core.envelope import Place
from token_vault.core.grants import missing_scopes
from token_vault.entered import Entered
from token_vault.hooks import Hooks
from token_vault.keeper import Keeper, no_connection
from token_vault.keys import Borrowed, KeyRing
from token_vault.oauth import OAuth, Parts
from token_vault.root import KeyProvider, check_root, open_provider, prove
from token_vault.sealing import Sealer
from token_vault.store import Connection, ConnectionStore, shared
from token_vault.subscribed import Subscribed
from token_vault.subscriptions import Subscriptions
from token_vault.tokens import TokenSource
from wire.clock import now
from wire.database import Pool, connection
from wire.http import allowed_by, open_client

WEBHOOK_SECRET: Final = "webhook_secret"  # noqa: S105 - the name of a field
_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a connection that was deleted.

    Attributes:
        connection: As it was.
        vendor: `revoked`, `not_offered` (the vendor has no such call, or what was entered is to be
            ended there by hand), `in_use` (the vendor would end another connection of the same
            account with it) or `failed`; it is deleted here all the same.
        revoked_at: When the vendor confirmed it.
    """

    connection: Connection
    deleted_at: datetime
    vendor: str
    revoked_at: datetime | None


class Vault:
    """Connections, credentials and keys of all workspaces; open one a process."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        pool: Pool,
        provider: KeyProvider,
        client: httpx.AsyncClient,
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.pool = pool
        self.keys = KeyRing(provider, pool)
        self.sealer = Sealer(self.keys)
        self.store = ConnectionStore(pool)
        self.apps = Apps(settings, pool, self.sealer)
        self.audit = AccessLog(pool)
        self._client = client
        self._root = provider
        self.tokens = TokenSource(
            settings, catalogue, self.store, self.sealer, client, self.apps, now
        )
        self.keeper = Keeper(pool, self.sealer, self.tokens)
        parts = Parts(settings, catalogue, pool, self.sealer, self.keeper, client, self.apps, now)
        self.oauth = OAuth(parts)
        self.entered = Entered(parts)
        hooks, rows = Hooks(pool, self.sealer), Subscribed(pool)
        self.subscriptions = Subscriptions(
            settings, catalogue, self.tokens, hooks, rows, client, now
        )

    @classmethod
    async def open(
        cls, settings: Settings, pool: Pool, catalogue: Catalogue | None = None
    ) -> "Vault":
        """Open the vault.

        Args:
            settings: The stage's.
            pool: Of the migrated database; it stays the caller's.
            catalogue: The providers, loaded without overrides; None: as installed.

        Raises:
            SecretUnavailable: No usable root key, or not this database's; the sentence says how to
                mend it.
            DependencyDown: The root key's keeper does not answer.
        """
        provider = open_provider(settings)
        await prove(provider)
        await check_root(provider, pool)
        client = open_client(allow_private=allowed_by(settings))
        return cls(settings, catalogue or load_catalogue(), pool, provider, client)

    async def close(self) -> None:
        """Finish refreshes under way, write the audit, close the connections to vendors."""
        await self.tokens.close()
        await self.audit.close()
        await self._client.aclose()

    async def seal_text(
        self, workspace: str, field: str, text: Secret, on: Borrowed | None = None
    ) -> bytes:
        """Seal a secret of a workspace; see `Sealer.seal_text`.

        Give `on`, the transaction, where the workspace was made in it and is not committed yet.
        """
        return await self.sealer.seal_text(workspace, field, text, on)

    async def open_text(
        self, workspace: str, field: str, sealed: bytes, on: Borrowed | None = None
    ) -> Secret:
        """Open what `seal_text` sealed under the same workspace and field."""
        return await self.sealer.open_text(workspace, field, sealed, on)

    async def seal_own(self, field: str, text: Secret) -> bytes:
        """Seal a short secret of the platform itself, under the root: it belongs to no workspace.

        For what can be made anew: where the root is changed and the old one is gone, it is lost.
        """
        return await self._root.wrap(text.reveal().encode(), Place("-", "-", field))

    async def open_own(self, field: str, sealed: bytes) -> Secret:
        """Open what `seal_own` sealed under the same field.

        Raises:
            SecretUnavailable: Another root sealed it, another field's, or tampered with.
        """
        return Secret((await self._root.unwrap(sealed, Place("-", "-", field))).decode())

    async def seal_webhook_secret(
        self, workspace: str, secret: Secret, on: Borrowed | None = None
    ) -> str:
        """Seal a `whsec_…` for `workspaces.webhook_secrets`.

        Returns:
            The text that goes under `ciphertext`.
        """
        sealed = await self.seal_text(workspace, WEBHOOK_SECRET, secret, on)
        return base64.b64encode(sealed).decode()

    async def webhook_secrets(self, workspace: str) -> list[Secret]:
        """Give the workspace's live webhook secrets, newest first; two during a rotation.

        Raises:
            NotFound: No such workspace.
            SecretUnavailable: One does not open.
        """
        async with connection(self.pool) as on:
            cursor = await on.execute(
                "SELECT webhook_secrets FROM workspaces WHERE id = %s", (workspace,)
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound(
                    f"There is no workspace {workspace[:64]!r}.", code="workspace_not_found"
                )
            return [
                await self.open_text(
                    workspace, WEBHOOK_SECRET, base64.b64decode(item["ciphertext"]), on
                )
                for item in row[0]
                if _is_live(item.get("expires_at"))
            ]

    async def disconnect(self, workspace: str, mode: str, connection_id: str) -> Receipt:
        """Delete a connection and take its grant back at the vendor.

        Raises:
            NotFound: There is none of this id in this workspace and mode.
        """
        row = await self.store.get(workspace, connection_id)
        if row is None or row.mode != mode:
            raise no_connection(connection_id)
        # While the grant is still good, and the rows are there that go with the connection.
        await self.subscriptions.remove_all(workspace, connection_id)
        # Deleted first: a refresh that is under way can then store nothing any more.
        deleted = await self.store.delete(workspace, connection_id)
        self.tokens.forget(connection_id)
        if deleted is None:
            raise no_connection(connection_id)
        deleted_at = now()
        outcome = await self._revoke(deleted)
        _log.info(
            "vault.disconnected", workspace=workspace, connection=connection_id, vendor=outcome
        )
        return Receipt(deleted, deleted_at, outcome, now() if outcome == "revoked" else None)

    async def _revoke(self, row: Connection) -> str:
        spec = self.catalogue.get(row.provider).connected_by(row.auth_kind)
        if spec.auth.revoke is None or spec.auth.credentials:
            return "not_offered"
        if spec.auth.revoke_ends == "account":
            async with connection(self.pool) as on:
                if await shared(on, row):
                    return "in_use"
        try:
            held = await self.sealer.open_credential(row)
            app = None
            if spec.auth.revoke.names_app:
                app = await self.apps.of_connection(row, spec)
        except NeighbourhoodError as error:  # it is deleted: what is left is to say so
            _log.warning("vault.not_revoked", connection=row.id, code=error.code)
            return "failed"
        visit = Visit(spec, row.mode, self.settings, app, row.variables, held)
        return await revoke(self._client, visit)

    def missing_scopes(self, row: Connection) -> tuple[str, ...]:
        """Name what was asked for and not granted."""
        return missing_scopes(row.asked_scopes, row.scopes)


def _is_live(expires_at: str | None) -> bool:
    if expires_at is None:
        return True
    at = datetime.fromisoformat(expires_at)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) > now()
