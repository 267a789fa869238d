"""The vault against an OAuth server that others wrote: Keycloak, which is as strict as vendors.

Everything goes over HTTP: the person's browser fills in Keycloak's own forms, the vault speaks to
its token, revocation and user-info endpoints by the addresses that the settings name.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from schemas.errors import Conflict, DependencyDown
from schemas.provider import Catalogue, load_catalogue
from schemas.settings import ProviderOverride, Secret, Settings
from tests import oauth_server
from tests.integration.vault_parts import new_workspace
from tests.oauth_server import Browser, OAuthServer
from tests.root_keys import write_root_key
from token_vault.core.grants import App, Granted, Held, Refused, code_request, refresh_request
from token_vault.exchange import ask
from token_vault.oauth import Landing, Wish
from token_vault.store import Connection, Owner
from token_vault.tokens import Credential
from token_vault.vault import Vault
from wire.clock import now
from wire.database import Pool, open_pool

pytestmark = pytest.mark.download

SLUG = "independent"
OUR_CALLBACK = f"{Settings().gateway_url}/oauth/callback/{SLUG}"
OWN_CALLBACK = "https://acme.example/oauth/back"
_HOST = "https://id.example"  # moved to the server's address by the settings, as operators do it


def _provider(realm: str, client_auth: str, pkce: str) -> dict[str, Any]:
    """Write a provider file: whatever is Keycloak's own is data."""
    there = f"{_HOST}/realms/{realm}/protocol/openid-connect"
    return {
        "slug": SLUG,
        "name": "Independent",
        "category": "communication",
        "status": "live",
        "resources": ["people"],
        "auth": {
            "kind": "oauth2",
            "authorize_url": f"{there}/auth",
            "token_url": f"{there}/token",
            "revoke": {
                "method": "POST",
                "url": f"{there}/revoke",
                "form": {"token": "${refresh_token}", "token_type_hint": "refresh_token"},
                "client_auth": client_auth,
                "token_header": False,
            },
            "default_scopes": ["openid", "email"],
            "pkce": pkce,
            "client_auth": client_auth,
            "token_body": "form",
            "refresh": "rotating",
            "account": {
                "request": {"method": "GET", "url": f"{there}/userinfo"},
                "id": "${body.sub}",
                "name": "${body.email}",
            },
            "token_header": "Authorization: Bearer ${token}",
        },
        "api": {"base_url": _HOST},
        "errors": [],
        "actions": {
            "get_person": {
                "resource": "people",
                "summary": "Tell who is connected",
                "doc": "https://www.keycloak.org/securing-apps/oidc-layers",
                "params": {"type": "object", "properties": {}, "additionalProperties": False},
                "request": {
                    "method": "GET",
                    "path": f"/realms/{realm}/protocol/openid-connect/userinfo",
                },
                "example": {"params": {}, "response": {"status": 200, "body": {"sub": "1"}}},
            }
        },
    }


@dataclass
class Desk:
    """A vault whose one live provider is the independent server."""

    server: OAuthServer
    realm: str
    vault: Vault
    settings: Settings
    catalogue: Catalogue
    pool: Pool
    workspace: str
    user: str = "u1"

    @property
    def owner(self) -> Owner:
        return Owner(self.workspace, "live", SLUG, self.user)

    async def consent(self, *, allow: bool = True, **wish: Any) -> dict[str, str]:
        """Begin a consent, let the person decide, and give what comes back in the address."""
        offer = await self.vault.oauth.auth_url(self.owner, Wish(**wish))
        assert offer.url.startswith(self.server.endpoint(self.realm, "auth"))
        location = await Browser(self.server).consent(offer.url, allow=allow)
        assert location.startswith(wish.get("redirect_uri", OUR_CALLBACK))
        return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}

    async def land(self, back: dict[str, str]) -> Landing:
        return await self.vault.oauth.callback(SLUG, back)

    async def connect(self) -> Connection:
        landing = await self.land(await self.consent())
        assert landing.error is None, landing.error
        assert landing.connection is not None
        return landing.connection

    async def credential(self, vault: Vault | None = None) -> Credential:
        tokens = (vault or self.vault).tokens
        return await tokens.resolve(self.workspace, "live", SLUG, self.user)

    async def row(self, connection: Connection) -> Connection:
        found = await self.vault.store.get(connection.workspace_id, connection.id)
        assert found is not None
        return found

    async def held(self, connection: Connection) -> Held:
        return await self.vault.sealer.open_credential(await self.row(connection))

    async def put_back(self, connection: Connection, old: Held) -> None:
        """Store an older grant, as a database restored from a backup would hold it."""
        sealed = await self.vault.sealer.seal_credential(
            connection.workspace_id, connection.id, connection.user_id, old
        )
        async with self.pool.connection() as on:
            await on.execute(
                "UPDATE connections SET credential = %s WHERE id = %s", (sealed, connection.id)
            )
        self.vault.tokens.forget(connection.id)

    async def who(self, credential: Credential) -> int:
        """Ask who is connected; gives the status."""
        headers = {"Authorization": credential.header_value.reveal()}
        return (await self._ask_who(headers)).status_code

    async def _ask_who(self, headers: dict[str, str]) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.get(self.server.endpoint(self.realm, "userinfo"), headers=headers)

    async def present(self, refresh_token: Secret) -> Granted | Refused:
        """Use a refresh token behind the vault's back, as a thief would."""
        auth = self.catalogue.get(SLUG).auth
        request = refresh_request(auth, _app(self.settings), refresh_token)
        return await self._ask(request)

    async def present_code(self, code: str, verifier: str | None) -> Granted | Refused:
        """Use a code behind the vault's back."""
        auth = self.catalogue.get(SLUG).auth
        app = _app(self.settings)
        return await self._ask(
            code_request(auth, app, code=code, redirect_uri=OUR_CALLBACK, verifier=verifier)
        )

    async def _ask(self, request: Any) -> Granted | Refused:
        auth = self.catalogue.get(SLUG).auth
        async with httpx.AsyncClient() as client:
            url = self.server.endpoint(self.realm, "token")
            return await ask(client, url, auth, request, now)


def _app(settings: Settings) -> App:
    override = settings.providers[SLUG]
    assert override.client_id is not None
    assert override.client_secret is not None
    return App(override.client_id, override.client_secret)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServer]:
    server = oauth_server.start(
        tmp_path_factory.mktemp("keycloak"), redirects=[OUR_CALLBACK, OWN_CALLBACK]
    )
    yield server
    server.stop()


@asynccontextmanager
async def open_desk(
    database: str,
    folder: Path,
    server: OAuthServer,
    *,
    realm: str = "vendor",
    client_auth: str = "basic",
    pkce: str = "required",
    secret: str = oauth_server.SECRET,
) -> AsyncIterator[Desk]:
    """Open a vault with a provider file and settings made for the server."""
    file = folder / "providers" / SLUG / "provider.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(_provider(realm, client_auth, pkce)))
    catalogue = load_catalogue(file.parents[1])
    write_root_key(folder / "master.key", database)
    override = ProviderOverride(
        base_url=server.url,
        authorize_url=server.endpoint(realm, "auth"),
        token_url=server.endpoint(realm, "token"),
        client_id=oauth_server.APP,
        client_secret=Secret(secret),
    )
    settings = replace(
        Settings(),
        database_url=Secret(database),
        state_dir=str(folder),
        providers={SLUG: override},
    )
    async with AsyncExitStack() as stack:
        pool = await open_pool(database, max_size=8)
        stack.push_async_callback(pool.close)
        vault = await Vault.open(settings, pool, catalogue)
        stack.push_async_callback(vault.close)
        workspace = await new_workspace(pool)
        yield Desk(server, realm, vault, settings, catalogue, pool, workspace)


@pytest.fixture
async def desk(database: str, tmp_path: Path, identity: OAuthServer) -> AsyncIterator[Desk]:
    async with open_desk(database, tmp_path, identity) as opened:
        yield opened


# ---- consent


@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_code_with_pkce_connects_and_the_token_works(
    database: str, tmp_path: Path, identity: OAuthServer, client_auth: str
) -> None:
    async with open_desk(database, tmp_path, identity, client_auth=client_auth) as desk:
        made = await desk.connect()
        assert made.state == "active"
        assert made.account_name == "ada@acme.example"
        assert {"openid", "email"} <= set(made.scopes)
        credential = await desk.credential()
        assert await desk.who(credential) == 200
        # and the same app authenticates when it refreshes
        assert await desk.who(await desk.vault.tokens.refreshed(credential)) == 200


@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_wrong_client_secret_connects_nothing(
    database: str, tmp_path: Path, identity: OAuthServer, client_auth: str
) -> None:
    opened = open_desk(database, tmp_path, identity, client_auth=client_auth, secret="guess")
    async with opened as desk:
        landing = await desk.land(await desk.consent())
        assert landing.error is not None
        assert landing.error.code == "exchange_refused"
        assert await desk.vault.store.find(desk.workspace, "live", SLUG, "u1") == []


async def test_own_callback_exchanges(desk: Desk) -> None:
    from schemas.access import Caller
    from schemas.ids import WorkspaceId

    back = await desk.consent(redirect_uri=OWN_CALLBACK)
    caller = Caller(WorkspaceId(desk.workspace), "live", "key_1")
    made = await desk.vault.oauth.exchange(caller, back["code"], back["state"], "u1")
    assert made.state == "active"
    assert await desk.who(await desk.credential()) == 200


async def test_code_of_another_consent_is_refused_by_its_verifier(desk: Desk) -> None:
    # Somebody slips a code of his own into the customer's way back: each state has its verifier.
    customer, thief = await desk.consent(), await desk.consent()
    landing = await desk.land(customer | {"code": thief["code"]})
    assert landing.connection is None
    assert landing.error is not None
    assert landing.error.code == "exchange_refused"
    assert "PKCE" in landing.error.detail


async def test_wrong_verifier_is_refused_and_the_right_one_is_needed(desk: Desk) -> None:
    for verifier in ("w" * 43, None):
        refused = await desk.present_code((await desk.consent())["code"], verifier)
        assert isinstance(refused, Refused)
        assert (refused.kind, refused.code) == ("dead", "invalid_grant")


async def test_server_that_insists_on_pkce_gets_no_consent_without_it(
    database: str, tmp_path: Path, identity: OAuthServer
) -> None:
    async with open_desk(database, tmp_path, identity, pkce="unsupported") as desk:
        back = await desk.consent()
        assert back["error"] == "invalid_request"
        landing = await desk.land(back)
        assert landing.error is not None
        assert landing.error.code == "consent_failed"


async def test_redirect_address_is_compared_exactly(desk: Desk) -> None:
    with pytest.raises(AssertionError, match="redirect_uri"):
        await desk.consent(redirect_uri=f"{OWN_CALLBACK}/more")


async def test_denied_consent_is_told(desk: Desk) -> None:
    desk.server.forget_consents(desk.realm)
    landing = await desk.land(await desk.consent(allow=False))
    assert landing.error is not None
    assert landing.error.code == "consent_denied"


async def test_code_works_once(desk: Desk) -> None:
    back = await desk.consent()
    assert (await desk.land(back)).error is None
    again = await desk.present_code(back["code"], "v" * 43)
    assert isinstance(again, Refused)
    assert again.kind == "dead"
    landing = await desk.land(back)
    assert landing.error is not None
    assert landing.error.code == "state_used"


async def test_expired_code_is_told(database: str, tmp_path: Path, identity: OAuthServer) -> None:
    async with open_desk(database, tmp_path, identity, realm="hasty") as desk:
        back = await desk.consent()
        # The server's own clock has to pass; nothing can be asked that tells without using it up.
        await asyncio.sleep(oauth_server.CODE_LIFE_S + 1.2)
        landing = await desk.land(back)
        assert landing.error is not None
        assert landing.error.code == "exchange_refused"
        assert await desk.vault.store.find(desk.workspace, "live", SLUG, "u1") == []


# ---- refresh


async def test_refresh_rotates_and_each_new_pair_is_kept(desk: Desk) -> None:
    made = await desk.connect()
    credential, seen = await desk.credential(), set()
    for version in (2, 3, 4):
        held = await desk.held(made)
        assert held.refresh_token is not None
        seen.add(held.refresh_token.reveal())
        credential = await desk.vault.tokens.refreshed(credential)
        assert credential.version == version
        assert await desk.who(credential) == 200
    assert len(seen) == 3
    row = await desk.row(made)
    assert row.state == "active"
    assert row.expires_at is not None
    assert 200 < (row.expires_at - now()).total_seconds() <= 300


async def test_many_callers_in_many_processes_never_use_a_refresh_token_twice(desk: Desk) -> None:
    # The server kills the whole grant on a second use, so one race would be seen by all.
    made = await desk.connect()
    async with AsyncExitStack() as stack:
        vaults = [desk.vault]
        for _ in range(3):
            vaults.append(await Vault.open(desk.settings, desk.pool, desk.catalogue))
            stack.push_async_callback(vaults[-1].close)
        for version in (2, 3, 4):
            old = [await desk.credential(vault) for vault in vaults]
            found = await asyncio.gather(
                *(
                    vault.tokens.refreshed(credential)
                    for vault, credential in zip(vaults, old, strict=True)
                    for _ in range(25)
                )
            )
            assert {credential.version for credential in found} == {version}
            for vault in vaults:
                vault.tokens.forget(made.id)
        assert await desk.who(await desk.credential()) == 200
    assert (await desk.row(made)).state == "active"


async def test_stolen_refresh_token_kills_the_grant_and_the_customer_is_asked_again(
    desk: Desk,
) -> None:
    made = await desk.connect()
    stolen = (await desk.held(made)).refresh_token
    assert stolen is not None
    credential = await desk.vault.tokens.refreshed(await desk.credential())
    refused = await desk.present(stolen)
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code) == ("dead", "invalid_grant")
    assert "reuse" in refused.message
    # Reuse of the old one has killed the new one too.
    with pytest.raises(Conflict) as caught:
        await desk.vault.tokens.refreshed(credential)
    assert caught.value.code == "needs_reauth"
    row = await desk.row(made)
    assert row.state == "needs_reauth"
    assert row.last_error is not None
    assert row.last_error["code"] == "invalid_grant"
    again = await desk.connect()
    assert (again.id, again.state) == (made.id, "active")
    assert await desk.who(await desk.credential()) == 200


async def test_lost_rotation_ends_in_needs_reauth_never_in_a_wrong_token(desk: Desk) -> None:
    # The vendor rotated, and our store forgot it (a backup was put back, a commit was lost).
    made = await desk.connect()
    before = await desk.held(made)
    await desk.vault.tokens.refreshed(await desk.credential())
    await desk.put_back(made, before)
    with pytest.raises(Conflict) as caught:
        await desk.vault.tokens.refreshed(await desk.credential())
    assert caught.value.code == "needs_reauth"
    assert (await desk.row(made)).state == "needs_reauth"


async def test_app_that_the_server_no_longer_knows_costs_no_connection(
    desk: Desk, tmp_path: Path, database: str, identity: OAuthServer
) -> None:
    # A rotated client secret is the operator's to mend; customers need not consent again.
    made = await desk.connect()
    wrong = replace(desk.settings.providers[SLUG], client_secret=Secret("rotated"))
    settings = replace(desk.settings, providers={SLUG: wrong})
    async with AsyncExitStack() as stack:
        vault = await Vault.open(settings, desk.pool, desk.catalogue)
        stack.push_async_callback(vault.close)
        with pytest.raises(DependencyDown):
            await vault.tokens.refreshed(await desk.credential(vault))
        assert (await desk.row(made)).state == "degraded"
    assert await desk.who(await desk.credential()) == 200
    async with desk.pool.connection() as on:  # the pause after the failure is over
        await on.execute("UPDATE connections SET refresh_at = now() WHERE id = %s", (made.id,))
    assert (await desk.vault.tokens.refreshed(await desk.credential())).version == 2


# ---- the end of a grant


async def test_disconnecting_revokes_at_the_server(desk: Desk) -> None:
    made = await desk.connect()
    credential, held = await desk.credential(), await desk.held(made)
    assert await desk.who(credential) == 200
    receipt = await desk.vault.disconnect(desk.workspace, "live", made.id)
    assert receipt.vendor == "revoked"
    assert await desk.who(credential) == 401
    assert held.refresh_token is not None
    refused = await desk.present(held.refresh_token)
    assert isinstance(refused, Refused)
    assert refused.kind == "dead"


async def test_person_who_takes_access_back_is_asked_again(desk: Desk) -> None:
    made = await desk.connect()
    credential = await desk.credential()
    desk.server.admin("POST", f"/{desk.realm}/users/{made.account_id}/logout")
    assert await desk.who(credential) == 401
    with pytest.raises(Conflict) as caught:
        await desk.vault.tokens.refreshed(credential)
    assert caught.value.code == "needs_reauth"
