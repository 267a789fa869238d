"""A workspace's own OAuth app: sealed, used by its live connections, never readable again.

The vendor of live mode is a second sandbox here, which knows one app: `sandbox_client`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from schemas.settings import ProviderOverride, Secret
from tests.integration.sandbox_parts import running_sandbox
from tests.integration.vault_parts import Site, open_site
from token_vault.apps import TEST_APP

SECRET = TEST_APP.client_secret.reveal()
APP = {"client_id": TEST_APP.client_id, "client_secret": SECRET}
AUTH_URL = "/api/v1/integrations/auth-url"
WANTED = {"provider": "zendesk", "user_id": "u1", "variables": {"subdomain": "acme"}}


def place(site: Site, provider: str = "zendesk") -> str:
    return f"/api/v1/workspaces/{site.workspace}/integrations/{provider}/credentials"


@asynccontextmanager
async def live_site(
    database: str, folder: Path, platform: tuple[str, str] | None = None
) -> AsyncIterator[Site]:
    """Open a site whose live Zendesk is a sandbox of its own."""
    async with running_sandbox() as vendor:
        base = f"{vendor.url}/zendesk"
        moved = ProviderOverride(
            base_url=base,
            authorize_url=f"{base}/oauth/authorizations/new",
            token_url=f"{base}/oauth/tokens",
            client_id=platform[0] if platform else None,
            client_secret=Secret(platform[1]) if platform else None,
        )
        async with open_site(database, folder, providers={"zendesk": moved}) as site:
            yield site


async def connect_live(site: Site, **wish: Any) -> dict[str, Any]:
    """Connect an account in live mode from end to end and give the connection."""
    offer = await site.call("POST", AUTH_URL, "live", json=WANTED | wish)
    assert offer.status_code == 200, offer.text
    page = await site.come_back(await site.consent(offer.json()["url"]))
    assert page.status_code == 200, page.text
    path = f"/api/v1/workspaces/{site.workspace}/connections"
    (made,) = (await site.call("GET", path, "live")).json()["items"]
    return made  # type: ignore[no-any-return]


async def refresh(site: Site) -> int:
    """Refresh the live connection; gives the new version."""
    first = await site.vault.tokens.resolve(site.workspace, "live", "zendesk", "u1")
    return (await site.vault.tokens.refreshed(first)).version - first.version


async def test_own_app_connects_and_refreshes(database: str, tmp_path: Path) -> None:
    async with live_site(database, tmp_path) as site:
        missing = await site.call("POST", AUTH_URL, "live", json=WANTED)
        assert (missing.status_code, missing.json()["code"]) == (409, "oauth_app_missing")
        assert "/integrations/zendesk/credentials" in missing.json()["detail"]
        put = await site.call("PUT", place(site), "live", json=APP)
        assert put.status_code == 200, put.text
        made = await connect_live(site)
        assert made["client_id"] == TEST_APP.client_id
        assert await refresh(site) == 1


async def test_secret_of_an_own_app_is_never_readable_again(database: str, tmp_path: Path) -> None:
    async with open_site(database, tmp_path) as site:
        told = APP | {"client_secret": "s3cret-of-acme"}
        put = await site.call("PUT", place(site), "live", json=told)
        got = await site.call("GET", place(site), "live")
        assert "s3cret-of-acme" not in put.text + got.text
        assert got.json() == put.json()
        seen = got.json()
        assert (seen["client_id"], seen["has_secret"]) == (TEST_APP.client_id, True)
        assert (seen["set_by"], bool(seen["set_at"])) == ("key_2", True)
        assert seen["redirect_uri"].endswith("/oauth/callback/zendesk")
        (row,) = await site.sql("SELECT * FROM oauth_apps WHERE workspace_id = %s", site.workspace)
        assert "s3cret-of-acme" not in repr(row)
        sealed = next(bytes(value) for value in row if isinstance(value, bytes | memoryview))
        assert b"s3cret-of-acme" not in sealed


async def test_own_app_goes_before_the_platforms_and_gone_gives_way(
    database: str, tmp_path: Path
) -> None:
    async with live_site(database, tmp_path, ("platform-1", "x")) as site:

        async def client() -> str:
            offer = await site.call("POST", AUTH_URL, "live", json=WANTED)
            return parse_qs(urlsplit(offer.json()["url"]).query)["client_id"][0]

        assert await client() == "platform-1"
        await site.call("PUT", place(site), "live", json=APP)
        assert await client() == TEST_APP.client_id
        assert (await site.call("DELETE", place(site), "live")).status_code == 204
        assert await client() == "platform-1"
        for method in ("GET", "DELETE"):
            gone = await site.call(method, place(site), "live")
            assert (gone.status_code, gone.json()["code"]) == (404, "own_app_not_found")


async def test_connection_keeps_the_app_that_it_was_made_with(
    database: str, tmp_path: Path
) -> None:
    async with live_site(database, tmp_path, (TEST_APP.client_id, SECRET)) as site:
        await connect_live(site)
        other = {"client_id": "own-1", "client_secret": "own-secret"}
        await site.call("PUT", place(site), "live", json=other)
        # The vendor knows nothing of own-1: refreshed with it, the connection would be lost.
        assert await refresh(site) == 1


async def test_own_app_says_scopes_and_redirect_address(database: str, tmp_path: Path) -> None:
    async with live_site(database, tmp_path) as site:
        own = {"scopes": ["read"], "redirect_uri": "https://acme.example/oauth/zendesk"}
        put = await site.call("PUT", place(site), "live", json=APP | own)
        assert put.json()["redirect_uri"] == own["redirect_uri"]
        offer = (await site.call("POST", AUTH_URL, "live", json=WANTED)).json()
        asked = parse_qs(urlsplit(offer["url"]).query)
        assert (asked["scope"], asked["redirect_uri"]) == (["read"], [own["redirect_uri"]])
        named = WANTED | {"scopes": ["read", "write"]}
        offer = (await site.call("POST", AUTH_URL, "live", json=named)).json()
        assert parse_qs(urlsplit(offer["url"]).query)["scope"] == ["read write"]


async def test_test_mode_keeps_the_sandboxs_app(database: str, tmp_path: Path) -> None:
    async with open_site(database, tmp_path) as site:
        other = {"client_id": "own-1", "client_secret": "own-secret"}
        await site.call("PUT", place(site), "live", json=other)
        made = await site.connect("zendesk")
        assert made.client_id == TEST_APP.client_id
        assert (await site.call("GET", place(site))).status_code == 200
        for method, body in (("PUT", APP), ("DELETE", None)):
            refused = await site.call(method, place(site), json=body)
            assert (refused.status_code, refused.json()["code"]) == (403, "beyond_own_mode")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"client_secret": None}, "client_secret"),
        ({"client_secret": " padded "}, "client_secret"),
        ({"client_id": "with space"}, "client_id"),
        ({"redirect_uri": "ftp://acme.example"}, "redirect_uri"),
        ({"redirect_uri": "https://acme.example/#x"}, "redirect_uri"),
        ({"scopes": ["a b"]}, "scopes"),
    ],
)
async def test_own_app_that_cannot_be_right_is_told(
    database: str, tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    async with open_site(database, tmp_path) as site:
        answer = await site.call("PUT", place(site), "live", json=APP | changes)
        assert answer.status_code == 422, answer.text
        assert where in [problem["place"] for problem in answer.json()["problems"]]
        assert (await site.call("GET", place(site), "live")).status_code == 404


async def test_own_app_is_another_workspaces_business(database: str, tmp_path: Path) -> None:
    async with open_site(database, tmp_path) as site:
        await site.call("PUT", place(site), "live", json=APP)
        foreign = place(site).replace(site.workspace, "ws_" + "0" * 26)
        assert (await site.call("GET", foreign, "live")).status_code == 404
        unknown = await site.call("PUT", place(site, "zendsk"), "live", json=APP)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_provider")
