"""Consent flows with a real sandbox and database: both roads, and everything that can fail."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from schemas.access import Caller
from schemas.errors import Conflict, DependencyDown, NotFound, SecretUnavailable
from schemas.ids import WorkspaceId
from schemas.settings import ProviderOverride, Secret
from tests.integration.refresh_parts import READS
from tests.integration.sandbox_parts import CATALOGUE, CUSTOMER
from tests.integration.vault_parts import Site, new_workspace, open_site
from token_vault.keys import KeyRing
from token_vault.oauth import Wish
from token_vault.root import open_provider
from token_vault.store import Owner
from token_vault.vault import Vault

VENDORS = [spec.slug for spec in CATALOGUE if spec.auth.ways_by_consent]
AUTH_URL = "/api/v1/integrations/auth-url"
EXCHANGE = "/api/v1/integrations/exchange"
OWN_CALLBACK = "https://acme.example/oauth/back"


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as opened:
        yield opened


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@pytest.mark.parametrize("slug", VENDORS)
async def test_hosted_road_connects_and_the_token_works(site: Site, slug: str) -> None:
    made = await site.connect(slug)
    assert made.state == "active"
    assert made.account_id
    spec = CATALOGUE.get(slug)
    assert set(made.scopes) == set(spec.auth.default_scopes)
    assert set(CUSTOMER.get(slug, {}).items()) <= set(made.variables.items())
    credential = await site.vault.tokens.resolve(site.workspace, "test", slug, "u1")
    token = credential.header_value.reveal().removeprefix("Bearer ")
    name = next(iter(spec.actions))
    outcome = await site.sandbox.act(slug, name, spec.actions[name].example.params, token=token)
    assert outcome.kind == "succeeded"


@pytest.mark.parametrize("slug", VENDORS)
async def test_own_callback_exchanges(site: Site, slug: str) -> None:
    body = {
        "workspace_id": site.workspace,
        "provider": slug,
        "user_id": "u7",
        "redirect_uri": OWN_CALLBACK,
        "variables": CUSTOMER.get(slug, {}),
    }
    offer = (await site.call("POST", AUTH_URL, json=body)).json()
    location = await site.consent(offer["url"])
    assert location.startswith(OWN_CALLBACK)
    back = query(location)
    assert back["state"] == offer["state"]
    sent = {"code": back["code"], "state": back["state"], "user_id": "u7"}
    answer = await site.call("POST", EXCHANGE, json=sent)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["provider"], made["user_id"], made["state"]) == (slug, "u7", "active")
    assert made["missing_scopes"] == []
    assert "credential" not in made


@pytest.mark.parametrize("slug", VENDORS)
async def test_pkce_is_used_where_the_vendor_takes_it(site: Site, slug: str) -> None:
    asked = query(await site.offer(slug))
    if CATALOGUE.get(slug).auth.pkce == "unsupported":
        assert "code_challenge" not in asked
    else:
        assert asked["code_challenge_method"] == "S256"
        assert len(asked["code_challenge"]) == 43


async def test_success_page_says_what_to_do(site: Site) -> None:
    page = await site.come_back(await site.consent(await site.offer("slack"), account="A<b>c"[:1]))
    assert page.status_code == 200
    assert "Slack is connected" in page.text
    assert "close this window" in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_browser_is_sent_on_to_the_return_url(site: Site) -> None:
    url = await site.offer("slack", return_url="https://acme.example/done?tab=2")
    answer = await site.come_back(await site.consent(url))
    assert answer.status_code == 303
    told = query(answer.headers["location"])
    assert (told["tab"], told["status"], told["provider"]) == ("2", "connected", "slack")
    assert told["connection_id"].startswith("conn_")


# ---- what can fail, each with its own answer


async def test_denied_consent_is_told(site: Site) -> None:
    page = await site.come_back(await site.consent(await site.offer("slack"), "deny"))
    assert page.status_code == 409
    assert "consent_denied" in page.text
    assert await site.vault.store.find(site.workspace, "test", "slack", "u1") == []


async def test_denied_consent_goes_to_the_return_url(site: Site) -> None:
    url = await site.offer("slack", return_url="https://acme.example/done")
    answer = await site.come_back(await site.consent(url, "deny"))
    assert query(answer.headers["location"]) == {
        "provider": "slack",
        "status": "failed",
        "error": "consent_denied",
    }


async def test_replayed_callback_is_refused(site: Site) -> None:
    location = await site.consent(await site.offer("slack"))
    assert (await site.come_back(location)).status_code == 200
    again = await site.come_back(location)
    assert again.status_code == 409
    assert "state_used" in again.text


async def test_expired_state_is_refused(site: Site) -> None:
    location = await site.consent(await site.offer("slack"))
    await site.sql("UPDATE oauth_states SET expires_at = now() - interval '1 s'")
    late = await site.come_back(location)
    assert late.status_code == 409
    assert "state_expired" in late.text


@pytest.mark.parametrize("query_string", ["", "?code=x", "?code=x&state=made-up", "?error=x"])
async def test_unknown_state_is_refused(site: Site, query_string: str) -> None:
    page = await site.api.get(f"/oauth/callback/slack{query_string}")
    assert page.status_code == 404
    assert "state_unknown" in page.text


async def test_state_of_another_provider_is_foreign(site: Site) -> None:
    location = await site.consent(await site.offer("slack"))
    page = await site.come_back(location.replace("/callback/slack", "/callback/jira"))
    assert page.status_code == 403
    assert "state_foreign" in page.text


async def test_state_of_another_workspace_mode_or_user_is_foreign(site: Site) -> None:
    back = query(await site.consent(await site.offer("slack", redirect_uri=OWN_CALLBACK)))
    stranger = await new_workspace(site.pool)
    site.callers["stranger"] = Caller(WorkspaceId(stranger), "test", "key_3")
    sent = {"code": back["code"], "state": back["state"], "user_id": "u1"}
    for key, body in (("stranger", sent), ("live", sent), ("test", sent | {"user_id": "u2"})):
        answer = await site.call("POST", EXCHANGE, key, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "state_foreign")
    assert (await site.call("POST", EXCHANGE, json=sent)).status_code == 200  # none used it up


async def test_code_that_the_vendor_does_not_take_is_told(site: Site) -> None:
    back = query(await site.consent(await site.offer("zendesk", redirect_uri=OWN_CALLBACK)))
    body = {"code": "guess", "state": back["state"], "user_id": "u1"}
    answer = await site.call("POST", EXCHANGE, json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "exchange_refused")
    assert "guess" not in answer.text


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "body": {}},
        {"status": 200, "body": "<html>maintenance</html>"},
        {"status": 502, "body": "<html>bad gateway</html>"},
        {"truncate": True},
        {"reset": True},
        {"status": 200, "body_bytes": 11_000_000},
    ],
)
async def test_vendor_that_does_not_answer_properly_is_told(
    site: Site, fault: dict[str, object]
) -> None:
    location = await site.consent(await site.offer("zendesk"))
    await site.sandbox.fault("zendesk", "oauth.token", fault)
    page = await site.come_back(location)
    assert page.status_code == 503
    assert "vendor_unavailable" in page.text


async def test_grant_without_account_is_told(site: Site) -> None:
    location = await site.consent(await site.offer("jira"))
    await site.sandbox.fault("jira", "oauth.account", {"status": 200, "body": []})
    page = await site.come_back(location)
    assert page.status_code == 409
    assert "no_account" in page.text


async def test_account_that_cannot_be_right_is_not_connected(site: Site) -> None:
    location = await site.consent(await site.offer("jira"))
    wrong = [{"id": "../../admin", "name": "x", "url": "https://x.example"}]
    await site.sandbox.fault("jira", "oauth.account", {"status": 200, "body": wrong})
    page = await site.come_back(location)
    assert page.status_code == 503
    assert "bad_account" in page.text


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"provider": "zendesk"}, "subdomain"),
        ({"provider": "zendesk", "variables": {"subdomain": "evil.example/"}}, "subdomain"),
        ({"provider": "zendesk", "variables": {"subdomain": "a", "host": "b"}}, "host"),
        ({"provider": "slack", "redirect_uri": "javascript:alert(1)"}, "redirect_uri"),
        ({"provider": "slack", "redirect_uri": "https://a.example/#f"}, "redirect_uri"),
        ({"provider": "slack", "return_url": "//evil.example"}, "return_url"),
        ({"provider": "slack", "return_url": "https://u@evil.example"}, "return_url"),
        ({"provider": "slack", "scopes": ["a b"]}, "scopes"),
        ({"provider": "slack", "user": "u1"}, "user"),
        ({"provider": "slack", "user_id": ""}, "user_id"),
    ],
)
async def test_wrong_request_names_the_place(
    site: Site, body: dict[str, object], place: str
) -> None:
    answer = await site.call("POST", AUTH_URL, json={"user_id": "u1"} | body)
    assert answer.status_code == 422
    assert place in [problem["place"] for problem in answer.json()["problems"]]


async def test_live_mode_without_an_app_says_what_to_set(site: Site) -> None:
    answer = await site.call("POST", AUTH_URL, "live", json={"provider": "slack", "user_id": "u1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "oauth_app_missing")
    assert "NHOOD_PROVIDER_SLACK_CLIENT_ID" in answer.json()["detail"]
    assert "NHOOD_PROVIDER_SLACK_CLIENT_SECRET" in answer.json()["detail"]


async def test_live_mode_goes_to_the_vendor_or_where_settings_say(
    database: str, tmp_path: Path
) -> None:
    app = ProviderOverride(client_id="c1", client_secret=Secret("live secret"))
    moved = ProviderOverride(
        client_id="c2",
        client_secret=Secret("live secret"),
        authorize_url="https://gateway.internal/auth",
    )
    changes = {"providers": {"slack": app, "jira": moved}}
    async with open_site(database, tmp_path, **changes) as site:
        for slug, start in (
            ("slack", "https://slack.com/oauth/v2/authorize?"),
            ("jira", "https://gateway.internal/auth?"),
        ):
            owner = Owner(site.workspace, "live", slug, "u1")
            offer = await site.vault.oauth.auth_url(owner, Wish())
            assert offer.url.startswith(start)
            assert "secret" not in offer.url


async def test_unknown_provider_suggests_the_nearest(site: Site) -> None:
    answer = await site.call("POST", AUTH_URL, json={"provider": "slak", "user_id": "u1"})
    assert answer.status_code == 404
    assert "'slack'" in answer.json()["detail"]


# ---- connections


async def test_connecting_again_keeps_the_connection(site: Site) -> None:
    first = await site.connect("zendesk")
    second = await site.connect("zendesk")
    assert first.id == second.id
    assert second.credential_version == first.credential_version + 1


async def test_label_tells_accounts_of_one_user_apart(site: Site) -> None:
    first = await site.connect("slack")
    second = await site.connect("slack", label="support", account="Support")
    assert first.id != second.id
    with pytest.raises(Conflict) as caught:
        await site.vault.tokens.resolve(site.workspace, "test", "slack", "u1")
    assert caught.value.code == "ambiguous_connection"
    named = await site.vault.tokens.resolve(site.workspace, "test", "slack", "u1", second.id)
    assert named.connection_id == second.id


async def test_connections_are_listed_by_pages_and_shown(site: Site) -> None:
    for user in ("a", "b", "c"):
        await site.connect("slack", user)
    base = f"/api/v1/workspaces/{site.workspace}/connections"
    first = (await site.call("GET", base, params={"limit": 2})).json()
    rest = (
        await site.call("GET", base, params={"limit": 2, "cursor": first["next_cursor"]})
    ).json()
    assert [c["user_id"] for c in first["items"] + rest["items"]] == ["c", "b", "a"]
    assert rest["next_cursor"] is None
    one = (await site.call("GET", f"{base}/{first['items'][0]['id']}")).json()
    assert one == first["items"][0]
    only = (await site.call("GET", base, params={"user_id": "b"})).json()
    assert [c["user_id"] for c in only["items"]] == ["b"]
    assert (await site.call("GET", base, "live")).json()["items"] == []


async def test_other_workspaces_connection_is_not_there(site: Site) -> None:
    made = await site.connect("slack")
    stranger = await new_workspace(site.pool)
    site.callers["stranger"] = Caller(WorkspaceId(stranger), "test", "key_3")
    for workspace in (stranger, site.workspace):
        path = f"/api/v1/workspaces/{workspace}/connections/{made.id}"
        assert (await site.call("GET", path, "stranger")).status_code == 404
        assert (await site.call("DELETE", path, "stranger")).status_code == 404
    with pytest.raises(NotFound):
        await site.vault.tokens.resolve(stranger, "test", "slack", "u1", made.id)


@pytest.mark.parametrize("slug", [spec.slug for spec in CATALOGUE if spec.auth.kind == "oauth2"])
async def test_deleted_connection_is_revoked_at_the_vendor(site: Site, slug: str) -> None:
    receipt = "revoked" if CATALOGUE.get(slug).auth.revoke else "not_offered"
    made = await site.connect(slug)
    credential = await site.vault.tokens.resolve(site.workspace, "test", slug, "u1")
    path = f"/api/v1/workspaces/{site.workspace}/connections/{made.id}"
    answer = await site.call("DELETE", path)
    assert (answer.status_code, answer.json()["vendor"]) == (200, receipt)
    assert (await site.call("GET", path)).status_code == 404
    with pytest.raises(NotFound) as caught:
        await site.vault.tokens.resolve(site.workspace, "test", slug, "u1")
    assert caught.value.code == "no_connection"
    if receipt == "revoked":
        token = credential.header_value.reveal().removeprefix("Bearer ")
        spec = CATALOGUE.get(slug)
        name = READS.get(slug) or next(iter(spec.actions))
        outcome = await site.sandbox.act(slug, name, spec.actions[name].example.params, token=token)
        assert outcome.kind == "unauthorised"


async def test_pasted_token_connects(site: Site) -> None:
    path = f"/api/v1/workspaces/{site.workspace}/connections"
    body = {"provider": "slack", "user_id": "u1", "credentials": {"bot_token": "sandbox_token"}}
    answer = await site.call("POST", path, json=body)
    assert answer.status_code == 201, answer.text
    assert "sandbox_token" not in answer.text
    credential = await site.vault.tokens.resolve(site.workspace, "test", "slack", "u1")
    assert credential.header_value.reveal() == "Bearer sandbox_token"
    wrong = await site.call("POST", path, json=body | {"credentials": {"token": "x"}})
    assert wrong.status_code == 422
    places = [problem["place"] for problem in wrong.json()["problems"]]
    assert places == ["credentials.token", "credentials.bot_token"]


async def test_browser_side_flow_needs_the_workspaces_leave(site: Site) -> None:
    body = {"workspace_id": site.workspace, "user_id": "u1", "mode": "test"}
    closed = await site.api.post("/api/integrations/slack/connect", json=body)
    assert (closed.status_code, closed.json()["code"]) == (403, "client_integrations_off")
    open_one = await new_workspace(
        site.pool, allow_client_integrations=True, custom_domains=["acme.example"]
    )
    body["workspace_id"] = open_one
    body["return_url"] = "https://evil.example/"
    foreign = await site.api.post("/api/integrations/slack/connect", json=body)
    assert foreign.status_code == 422
    body["return_url"] = "https://acme.example/"
    answer = await site.api.post("/api/integrations/slack/connect", json=body)
    back = await site.come_back(await site.consent(answer.json()["authUrl"]))
    assert back.headers["location"].startswith("https://acme.example/?")


async def test_browser_side_flow_cannot_replace_another_account(site: Site) -> None:
    await site.sql(
        "UPDATE workspaces SET settings = '{\"allow_client_integrations\": true}' WHERE id = %s",
        site.workspace,
    )
    made = await site.connect("slack")
    body = {"workspace_id": site.workspace, "user_id": "u1", "mode": "test"}
    for account, status in (("Mallory", 409), ("Acme", 200)):
        answer = await site.api.post("/api/integrations/slack/connect", json=body)
        back = await site.consent(answer.json()["authUrl"], account=account)
        assert (await site.come_back(back)).status_code == status
        assert (await site.row(made)).account_name == "Acme"


async def test_nothing_secret_is_logged(
    site: Site, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    url = await site.offer("zendesk")
    location = await site.consent(url)
    await site.come_back(location)
    await site.come_back(location)
    old = await site.vault.tokens.resolve(site.workspace, "test", "zendesk", "u1")
    new = await site.vault.tokens.refreshed(old)
    await site.sandbox.fault("zendesk", "oauth.token", {"status": 503, "body": {}})
    with pytest.raises(DependencyDown) as caught:
        await site.vault.tokens.refreshed(new)
    out = capsys.readouterr()
    # pytest listens to loggers that the stages switch off
    off = ("httpx", "uvicorn.access")
    ours = [record.getMessage() for record in caplog.records if record.name not in off]
    told = repr((out, ours, caught.value.public, caught.value.detail))
    assert "vault.connected" in told
    for secret in (
        query(url)["state"],
        query(location)["code"],
        old.header_value.reveal().removeprefix("Bearer "),
        new.header_value.reveal().removeprefix("Bearer "),
        "sandbox_secret",
    ):
        assert secret not in told


# ---- secrets at rest


async def test_nothing_secret_is_in_the_database(site: Site) -> None:
    url = await site.offer("zendesk")
    state = query(url)["state"]
    location = await site.consent(url)
    await site.come_back(location)
    credential = await site.vault.tokens.resolve(site.workspace, "test", "zendesk", "u1")
    token = credential.header_value.reveal().removeprefix("Bearer ")
    rows = []
    for table in ("connections", "oauth_states", "vault_keys"):
        rows += await site.sql(f"SELECT to_jsonb(t)::text FROM {table} t")
    dump = repr(rows)
    for secret in (token, state, query(location)["code"]):
        assert secret not in dump
        assert secret.encode().hex() not in dump


async def test_row_copied_to_another_tenant_does_not_open(site: Site) -> None:
    made = await site.connect("slack")
    stranger = await new_workspace(site.pool)
    await site.sql("UPDATE connections SET workspace_id = %s WHERE id = %s", stranger, made.id)
    with pytest.raises(SecretUnavailable):
        await site.vault.tokens.resolve(stranger, "test", "slack", "u1")
    fresh = await site.another()
    await site.sql(
        "UPDATE vault_keys SET workspace_id = %s WHERE workspace_id = %s", stranger, site.workspace
    )
    with pytest.raises(SecretUnavailable):
        await fresh.tokens.resolve(stranger, "test", "slack", "u1")


async def test_destroyed_key_shreds_the_credential(site: Site) -> None:
    await site.connect("slack", "u1")
    await site.connect("slack", "u2")
    assert await site.vault.keys.destroy_user_key(site.workspace, "u1") == 1
    with pytest.raises(SecretUnavailable) as caught:
        await site.vault.tokens.resolve(site.workspace, "test", "slack", "u1")
    assert caught.value.code == "key_destroyed"
    assert await site.vault.tokens.resolve(site.workspace, "test", "slack", "u2")


async def test_vault_without_a_usable_key_does_not_start(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    good = path.read_text()
    path.chmod(0o644)
    with pytest.raises(SecretUnavailable, match="chmod 600"):
        await Vault.open(site.settings, site.pool)
    path.chmod(0o600)
    path.write_text("c2hvcnQ=")
    with pytest.raises(SecretUnavailable, match="32 bytes"):
        await Vault.open(site.settings, site.pool)
    path.unlink()
    with pytest.raises(SecretUnavailable, match="nhood up"):
        await Vault.open(site.settings, site.pool)
    path.touch(mode=0o600)
    path.write_text(good)
    assert (await open_provider(site.settings).current()).startswith("file:")


async def test_another_root_key_is_told(site: Site, tmp_path: Path) -> None:
    await site.connect("slack")
    path = tmp_path / "master.key"
    path.write_text("A" * 43 + "=")
    other = KeyRing(open_provider(site.settings), site.pool)
    with pytest.raises(SecretUnavailable) as caught:
        await other.workspace_key(site.workspace)
    assert caught.value.code == "wrong_master_key"
    with pytest.raises(SecretUnavailable, match="in force is file:") as caught:
        await Vault.open(site.settings, site.pool)
    assert caught.value.code == "wrong_master_key"


async def test_webhook_secrets_come_back_and_old_ones_end(site: Site) -> None:
    from psycopg.types.json import Jsonb

    new = await site.vault.seal_webhook_secret(site.workspace, Secret("whsec_new"))
    old = await site.vault.seal_webhook_secret(site.workspace, Secret("whsec_old"))
    rows = [
        {"ciphertext": new, "expires_at": None},
        {"ciphertext": old, "expires_at": "2999-01-01T00:00:00+00:00"},
        {"ciphertext": old, "expires_at": "2001-01-01T00:00:00+00:00"},
    ]
    await site.sql(
        "UPDATE workspaces SET webhook_secrets = %s WHERE id = %s", Jsonb(rows), site.workspace
    )
    found = await site.vault.webhook_secrets(site.workspace)
    assert [secret.reveal() for secret in found] == ["whsec_new", "whsec_old"]
    assert repr(found) == "[***, ***]"
    with pytest.raises(NotFound):
        await site.vault.webhook_secrets("ws_00000000000000000000000000")


async def test_text_is_sealed_in_the_callers_transaction(site: Site) -> None:
    """A workspace that is rolled back leaves no key in memory that would seal what is lost."""
    workspace = await new_workspace(site.pool)
    async with site.pool.connection() as on:
        sealed = await site.vault.seal_text(workspace, "f", Secret("x"), on)
        await on.rollback()
    again = await site.vault.seal_text(workspace, "f", Secret("x"))
    assert (await site.vault.open_text(workspace, "f", again)).reveal() == "x"
    with pytest.raises(SecretUnavailable):
        await site.vault.open_text(workspace, "f", sealed)
    with pytest.raises(SecretUnavailable):
        await site.vault.open_text(workspace, "g", again)
