"""Which OAuth app speaks for us: the workspace's own or the operator's; in test mode the sandbox's.

A connection keeps the app that it was made with as long as that one is known: no other app can use
its refresh token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.errors import Conflict, NotFound
from schemas.provider import ProviderSpec
from schemas.settings import Secret, Settings
from token_vault.core.grants import App
from token_vault.holders import app_field
from token_vault.sealing import Sealer
from token_vault.store import Connection
from wire.database import Pool, connection

TEST_APP: Final = App("sandbox_client", Secret("sandbox_secret"))
"""What the sandbox knows us by; it opens nothing but the sandbox."""


@dataclass(frozen=True, slots=True)
class OwnApp:
    """A workspace's own app, as it may be seen.

    Attributes:
        scopes: Instead of the provider's usual ones; None: those.
        redirect_uri: Instead of our callback: another address that leads to it.
        set_by: The API key or session that set it.
    """

    provider: str
    client_id: str
    has_secret: bool
    scopes: Sequence[str] | None
    redirect_uri: str | None
    set_by: str
    set_at: datetime


_SEEN: Final = "provider, client_id, secret IS NOT NULL, scopes, redirect_uri, set_by, set_at"
_LOOK: Final = ("SELECT", _SEEN, "FROM oauth_apps")
_PUT: Final = (
    "INSERT INTO oauth_apps (workspace_id, provider, client_id, secret, scopes, redirect_uri,"
    " set_by, set_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT (workspace_id, provider) DO UPDATE SET client_id = excluded.client_id,"
    " secret = excluded.secret, scopes = excluded.scopes, redirect_uri = excluded.redirect_uri,"
    " set_by = excluded.set_by, set_at = excluded.set_at"
)


class Apps:
    """Finds and keeps apps."""

    def __init__(self, settings: Settings, pool: Pool, sealer: Sealer) -> None:
        self._settings = settings
        self._pool = pool
        self._sealer = sealer

    async def get(
        self, workspace: str, spec: ProviderSpec, mode: str, client_id: str | None = None
    ) -> App:
        """Give the app.

        Args:
            workspace: Whose connection it is for.
            spec: The provider.
            mode: `live` or `test`.
            client_id: This one, where it is still known.

        Raises:
            Conflict: Live mode, and nobody has set one; says what to set.
        """
        if mode == "test":
            return TEST_APP
        platform = self._platform(spec)
        if platform is not None and platform.client_id == client_id:
            return platform
        own = await self._own(workspace, spec)
        if own is not None:
            return own
        if platform is None:
            raise _missing(spec)
        return platform

    async def of_connection(self, row: Connection, spec: ProviderSpec) -> App:
        """Give the app that a connection was made with, else the one in force."""
        return await self.get(row.workspace_id, spec, row.mode, row.client_id)

    async def set_up(self, workspace: str, mode: str, specs: Sequence[ProviderSpec]) -> set[str]:
        """Say for which of these providers there is an app."""
        if mode == "test":
            return {spec.slug for spec in specs}
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT provider FROM oauth_apps WHERE workspace_id = %s", (workspace,)
            )
            own = {row[0] for row in await cursor.fetchall()}
        return {spec.slug for spec in specs if spec.slug in own or self._platform(spec)}

    async def look(self, workspace: str, spec: ProviderSpec) -> OwnApp | None:
        """Give a workspace's own app, without its secret; None: it has none."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                " ".join((*_LOOK, "WHERE workspace_id = %s AND provider = %s")),
                (workspace, spec.slug),
            )
            row = await cursor.fetchone()
        return OwnApp(*row) if row is not None else None

    async def put(  # noqa: PLR0913 - the fields of a row
        self,
        workspace: str,
        spec: ProviderSpec,
        app: App,
        *,
        scopes: Sequence[str] | None,
        redirect_uri: str | None,
        by: str,
        at: datetime,
    ) -> OwnApp:
        """Keep a workspace's own app; the one before is forgotten."""
        async with connection(self._pool) as on:
            sealed = None
            if app.client_secret.reveal():
                sealed = await self._sealer.seal_text(
                    workspace, app_field(spec.slug), app.client_secret, on
                )
            wanted = list(scopes) if scopes is not None else None
            cursor = await on.execute(
                " ".join((_PUT, "RETURNING", _SEEN)),
                (workspace, spec.slug, app.client_id, sealed, wanted, redirect_uri, by, at),
            )
            row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - RETURNING always gives a row here
        return OwnApp(*row)

    async def forget(self, workspace: str, spec: ProviderSpec) -> None:
        """Forget a workspace's own app.

        Raises:
            NotFound: It has none.
        """
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "DELETE FROM oauth_apps WHERE workspace_id = %s AND provider = %s",
                (workspace, spec.slug),
            )
            if not cursor.rowcount:
                raise no_own_app(spec)

    async def _own(self, workspace: str, spec: ProviderSpec) -> App | None:
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT client_id, secret FROM oauth_apps"
                " WHERE workspace_id = %s AND provider = %s",
                (workspace, spec.slug),
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            if row[1] is None:
                return App(row[0], Secret(""))
            secret = await self._sealer.open_text(
                workspace, app_field(spec.slug), bytes(row[1]), on
            )
        return App(row[0], secret)

    def _platform(self, spec: ProviderSpec) -> App | None:
        set_ = self._settings.providers.get(spec.slug)
        if set_ is None or not set_.client_id:
            return None
        if set_.client_secret is None and spec.auth.client_auth != "none":
            return None
        return App(set_.client_id, set_.client_secret or Secret(""))


def no_own_app(spec: ProviderSpec) -> NotFound:
    """Say that the workspace has no app of its own."""
    return NotFound(
        f"This workspace has no OAuth app of its own for {spec.name}.", code="own_app_not_found"
    )


def _missing(spec: ProviderSpec) -> Conflict:
    name = f"NHOOD_PROVIDER_{spec.slug.upper()}"
    return Conflict(
        f"Live connections to {spec.name} need an OAuth app, and there is none: register one at"
        f" {spec.name} and give its id and secret to PUT /api/v1/workspaces/{{workspace_id}}"
        f"/integrations/{spec.slug}/credentials; or, for all workspaces, set {name}_CLIENT_ID and"
        f" {name}_CLIENT_SECRET and start again. With a test key the sandbox needs none.",
        code="oauth_app_missing",
    )
