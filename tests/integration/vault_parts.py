"""A vault on a real database beside a running sandbox, with a workspace to work in."""

from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI
from starlette.datastructures import Headers

from schemas.access import Caller
from schemas.errors import Unauthenticated
from schemas.ids import WorkspaceId
from schemas.provider import Catalogue
from schemas.settings import Secret, Settings
from tests.integration.sandbox_parts import CATALOGUE, CUSTOMER, Playground, running_sandbox
from tests.root_keys import write_root_key
from token_vault.oauth import Wish
from token_vault.routes import build_router
from token_vault.store import Connection, Owner
from token_vault.vault import Vault
from wire import problems
from wire.clock import mint
from wire.database import Pool, open_pool


@dataclass
class Site:
    """A vault with its routes, a sandbox, and workspaces.

    Attributes:
        vaults: As many as there are processes; the first has the routes.
    """

    vault: Vault
    pool: Pool
    sandbox: Playground
    api: httpx.AsyncClient
    settings: Settings
    workspace: str
    callers: dict[str, Caller]
    others: list[Vault] = field(default_factory=list)

    async def another(self) -> Vault:
        """Open another vault on the same database, as another process would."""
        vault = await Vault.open(self.settings, self.pool, self.vault.catalogue)
        self.others.append(vault)
        return vault

    def owner(self, slug: str, user: str = "u1", label: str = "") -> Owner:
        return Owner(self.workspace, "test", slug, user, label)

    async def offer(self, slug: str, user: str = "u1", **wish: Any) -> str:
        """Begin a consent and give the consent page's address."""
        asked = {"variables": CUSTOMER.get(slug, {})} | wish
        label = asked.pop("label", "")
        offer = await self.vault.oauth.auth_url(self.owner(slug, user, label), Wish(**asked))
        return offer.url

    async def consent(self, url: str, decision: str = "allow", account: str = "Acme") -> str:
        """Decide on a consent page and give the address that the browser is sent back to."""
        more = f"&sandbox_auto={decision}&sandbox_account={account}"
        answer = await self.sandbox.client.get(url + more)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def come_back(self, location: str) -> httpx.Response:
        """Follow the browser to our callback."""
        parts = urlsplit(location)
        return await self.api.get(f"{parts.path}?{parts.query}")

    async def connect(self, slug: str, user: str = "u1", **wish: Any) -> Connection:
        """Connect an account from end to end."""
        account = wish.pop("account", "Acme")
        back = await self.consent(await self.offer(slug, user, **wish), account=account)
        page = await self.come_back(back)
        assert page.status_code == 200, page.text
        found = await self.vault.store.find(self.workspace, "test", slug, user)
        return next(row for row in found if row.label == wish.get("label", ""))

    async def call(self, method: str, path: str, key: str = "test", **more: Any) -> httpx.Response:
        """Call the API with a key."""
        headers = {"Authorization": f"Bearer {key}"}
        return await self.api.request(method, path, headers=headers, **more)

    async def row(self, connection: Connection) -> Connection:
        found = await self.vault.store.get(connection.workspace_id, connection.id)
        assert found is not None
        return found

    async def sql(self, query: str, *values: Any) -> list[Any]:
        async with self.pool.connection() as on:
            cursor = await on.execute(query, values)
            return await cursor.fetchall() if cursor.description else []


async def new_workspace(pool: Pool, **settings: Any) -> str:
    from psycopg.types.json import Jsonb

    workspace = mint("ws")
    async with pool.connection() as on:
        await on.execute(
            "INSERT INTO workspaces (id, name, email, plan, settings)"
            " VALUES (%s, 'Acme', 'dev@acme.example', 'free', %s)",
            (workspace, Jsonb(settings)),
        )
    return workspace


@asynccontextmanager
async def open_site(
    database: str, folder: Path, catalogue: Catalogue = CATALOGUE, **changes: Any
) -> AsyncIterator[Site]:
    """Open everything."""
    write_root_key(folder / "master.key", database)
    async with running_sandbox(catalogue=catalogue) as sandbox:
        settings = replace(
            Settings(),
            database_url=Secret(database),
            state_dir=str(folder),
            sandbox_url=sandbox.url,
            **changes,
        )
        pool = await open_pool(database, max_size=8)
        workspace = await new_workspace(pool)
        vault = await Vault.open(settings, pool, catalogue)
        callers: dict[str, Caller] = {
            "test": Caller(WorkspaceId(workspace), "test", "key_1"),
            "live": Caller(WorkspaceId(workspace), "live", "key_2"),
        }

        async def authenticate(scope: MutableMapping[str, Any]) -> Caller:
            header = Headers(scope=scope).get("authorization", "")
            caller = callers.get(header.removeprefix("Bearer "))
            if caller is None:
                raise Unauthenticated("Give an API key.")
            return caller

        app = FastAPI()
        problems.install(app)
        app.include_router(build_router(vault, authenticate))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as api:
            site = Site(vault, pool, sandbox, api, settings, workspace, callers)
            yield site
        for other in (vault, *site.others):
            await other.close()
        await pool.close()


def without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}
