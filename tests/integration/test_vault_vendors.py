"""Ways of single vendors to be connected: a sign-in of their own, and one that is no more."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.vault_parts import Site, open_site

AUTH_URL = "/api/v1/integrations/auth-url"


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as opened:
        yield opened


async def test_sign_in_of_a_vendors_own_is_renewed_and_a_wrong_secret_told(site: Site) -> None:
    path = f"/api/v1/workspaces/{site.workspace}/connections"
    entered = {"token_name": "nhood", "token_secret": "sandbox_token", "site": "acme"}
    body = {"provider": "tableau", "user_id": "u1", "credentials": entered,
            "variables": {"server": "10ax.online.tableau.com"}}  # fmt: skip
    wrong = await site.call(
        "POST", path, json=body | {"credentials": entered | {"token_secret": "not-this"}}
    )
    assert (wrong.status_code, wrong.json()["code"]) == (422, "credentials_refused")
    made = await site.call("POST", path, json=body)
    assert made.status_code == 201, made.text
    assert made.json()["variables"]["site_id"] == made.json()["account_id"]
    asked = (await site.sandbox.received("tableau"))[-1]["body"]["credentials"]
    assert (asked["personalAccessTokenName"], asked["site"]) == ("nhood", {"contentUrl": "acme"})
    first = await site.vault.tokens.resolve(site.workspace, "test", "tableau", "u1")
    assert first.due_at is not None
    newer = await site.vault.tokens.refreshed(first)
    assert newer.header_value.reveal() != first.header_value.reveal()
    assert "Bearer" not in newer.header_value.reveal()
    act = site.sandbox.act("tableau", "list_workbooks", {}, token=newer.header_value.reveal())
    assert (await act).kind == "succeeded"


async def test_vendor_that_was_shut_down_is_connected_in_tests_only(site: Site) -> None:
    assert (await site.connect("height")).state == "active"
    offer = {"provider": "height", "workspace_id": site.workspace, "user_id": "u2"}
    key = {"provider": "height", "user_id": "u2", "credentials": {"api_key": "sandbox_token"}}
    path = f"/api/v1/workspaces/{site.workspace}/connections"
    for address, body in ((AUTH_URL, offer), (path, key)):
        answer = await site.call("POST", address, "live", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "provider_shut_down")
    assert (await site.call("POST", path, json=key)).status_code == 201
