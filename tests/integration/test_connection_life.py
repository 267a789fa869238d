"""What becomes of a connection: labels, reconnecting, scopes, choice of an account, its end."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.integration.vault_parts import Site, new_workspace, open_site
from token_vault.store import Connection

OWN_CALLBACK = "https://acme.example/oauth/back"
AUTH_URL = "/api/v1/integrations/auth-url"
EXCHANGE = "/api/v1/integrations/exchange"
SITES = [
    {"id": "11111111-a1b2-3b33-c444-def123456789", "name": "one",
     "url": "https://one.atlassian.net", "scopes": []},
    {"id": "22222222-a1b2-3b33-c444-def123456789", "name": "two & <co>",
     "url": "https://two.atlassian.net", "scopes": []},
]  # fmt: skip


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as opened:
        yield opened


def path(site: Site, made: Connection | None = None, rest: str = "") -> str:
    one = f"/{made.id}" if made is not None else ""
    return f"/api/v1/workspaces/{site.workspace}/connections{one}{rest}"


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def begin(site: Site, made: Connection, **body: Any) -> dict[str, Any]:
    answer = await site.call("POST", path(site, made, "/reconnect"), json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def own_road(site: Site, slug: str, **body: Any) -> dict[str, str]:
    """Consent with the developer's own callback; gives what comes to it."""
    asked = {"provider": slug, "user_id": "u1", "redirect_uri": OWN_CALLBACK} | body
    offer = (await site.call("POST", AUTH_URL, json=asked)).json()
    back = query(await site.consent(offer["url"]))
    return {"code": back["code"], "state": back["state"], "user_id": "u1"}


async def two_sites(site: Site) -> None:
    """Let the next grant at Jira cover two sites."""
    await site.sandbox.fault("jira", "oauth.account", {"status": 200, "body": SITES})


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# ---- labels


async def test_label_can_be_changed_and_is_the_users_only_one(site: Site) -> None:
    first = await site.connect("slack", account="Acme")
    second = await site.connect("slack", account="Globex", label="second")
    changed = await site.call("PATCH", path(site, first), json={"label": "sales"})
    assert (changed.status_code, changed.json()["label"]) == (200, "sales")
    same = await site.call("PATCH", path(site, first), json={"label": "sales"})
    assert same.status_code == 200
    taken = await site.call("PATCH", path(site, second), json={"label": "sales"})
    assert refused(taken) == (409, "label_taken")
    assert (await site.row(second)).label == "second"


# ---- connecting again


async def test_reconnecting_keeps_the_id_and_what_was_told_before(site: Site) -> None:
    made = await site.connect("zendesk", label="support")
    offer = await begin(site, made)
    page = await site.come_back(await site.consent(offer["url"]))
    assert page.status_code == 200, page.text
    row = await site.row(made)
    assert (row.id, row.label, row.variables) == (made.id, "support", made.variables)
    assert row.credential_version == made.credential_version + 1
    assert len(await site.vault.store.find(site.workspace, "test", "zendesk", None)) == 1


async def test_reconnecting_by_the_developers_own_callback(site: Site) -> None:
    made = await site.connect("slack")
    offer = await begin(site, made, redirect_uri=OWN_CALLBACK)
    back = query(await site.consent(offer["url"]))
    body = {"code": back["code"], "state": back["state"], "user_id": made.user_id}
    done = await site.call("POST", EXCHANGE, json=body)
    assert (done.status_code, done.json()["id"]) == (200, made.id)


async def test_reconnecting_with_another_account_changes_nothing_unless_allowed(
    site: Site,
) -> None:
    made = await site.connect("slack", account="Acme")
    offer = await begin(site, made)
    page = await site.come_back(await site.consent(offer["url"], account="Globex"))
    assert (page.status_code, "account_differs" in page.text) == (409, True)
    row = await site.row(made)
    assert (row.account_id, row.credential_version) == (made.account_id, made.credential_version)
    offer = await begin(site, made, allow_other_account=True)
    page = await site.come_back(await site.consent(offer["url"], account="Globex"))
    assert page.status_code == 200
    row = await site.row(made)
    assert row.id == made.id
    assert row.account_id != made.account_id


async def test_reconnecting_with_entered_credentials_checks_them_first(site: Site) -> None:
    body = {"provider": "slack", "user_id": "u1", "credentials": {"bot_token": "sandbox_token"}}
    made = (await site.call("POST", path(site), json=body)).json()
    again = f"{path(site)}/{made['id']}/reconnect"
    wrong = await site.call("POST", again, json={"credentials": {"bot_token": "xoxb-revoked"}})
    assert refused(wrong) == (422, "credentials_refused")
    other = {"credentials": {"bot_token": "sandbox_token_globex"}}
    assert refused(await site.call("POST", again, json=other)) == (409, "account_differs")
    allowed = await site.call("POST", again, json=other | {"allow_other_account": True})
    assert allowed.json()["connection"]["id"] == made["id"]
    assert allowed.json()["connection"]["account_id"] != made["account_id"]


async def test_connection_deleted_during_the_consent_is_not_made_anew(site: Site) -> None:
    made = await site.connect("slack")
    offer = await begin(site, made)
    back = await site.consent(offer["url"])
    assert (await site.call("DELETE", path(site, made))).status_code == 200
    page = await site.come_back(back)
    assert (page.status_code, "connection_not_found" in page.text) == (404, True)
    assert await site.vault.store.find(site.workspace, "test", "slack", None) == []


async def test_connection_of_another_workspace_or_mode_cannot_be_changed(site: Site) -> None:
    made = await site.connect("slack")
    stranger = await new_workspace(site.pool)
    for place, key in (
        (path(site, made), "live"),
        (path(site, made).replace(site.workspace, stranger), "test"),
    ):
        for method, rest in (("PATCH", ""), ("POST", "/reconnect"), ("DELETE", "")):
            body = {"json": {"label": "x"}} if method == "PATCH" else {"json": {}}
            more = {} if method == "DELETE" else body
            answer = await site.call(method, place + rest, key, **more)
            assert answer.status_code == 404, (method, place)
    assert (await site.row(made)).label == ""


# ---- scopes


async def less(site: Site) -> None:
    """Let the next grant at Zendesk be for less than was asked for."""
    body = {"access_token": "a" * 20, "refresh_token": "r" * 20, "scope": "read",
            "token_type": "bearer", "expires_in": 7200}  # fmt: skip
    await site.sandbox.fault("zendesk", "oauth.token", {"status": 200, "body": body})


async def test_scopes_that_were_not_granted_are_named(site: Site) -> None:
    await less(site)
    made = await site.connect("zendesk")
    shown = (await site.call("GET", path(site, made))).json()
    assert (shown["scopes"], shown["missing_scopes"]) == (["read"], ["write"])
    whole = await site.connect("zendesk", "u2")
    assert (await site.call("GET", path(site, whole))).json()["missing_scopes"] == []


async def test_scopes_are_compared_with_what_was_asked_for(site: Site) -> None:
    made = await site.connect("zendesk", scopes=("read",))
    shown = (await site.call("GET", path(site, made))).json()
    assert (shown["scopes"], shown["missing_scopes"]) == (["read"], [])


async def test_less_than_all_scopes_connects_nothing_where_all_are_required(site: Site) -> None:
    asked = {"variables": {"subdomain": "acme"}, "require_all_scopes": True}
    await less(site)
    body = await own_road(site, "zendesk", **asked)
    answer = await site.call("POST", EXCHANGE, json=body)
    assert refused(answer) == (409, "scopes_missing")
    assert "write" in answer.json()["detail"]
    assert await site.vault.store.find(site.workspace, "test", "zendesk", None) == []
    body = await own_road(site, "zendesk", **asked)
    assert (await site.call("POST", EXCHANGE, json=body)).status_code == 200


# ---- one grant, several accounts


async def test_own_callback_chooses_among_several_accounts(site: Site) -> None:
    await two_sites(site)
    body = await own_road(site, "jira")
    asked = await site.call("POST", EXCHANGE, json=body)
    assert refused(asked) == (409, "account_choice")
    told = {item["place"]: item["message"] for item in asked.json()["problems"]}
    assert told == {item["id"]: item["name"] for item in SITES}
    choice = {"state": body["state"], "user_id": "u1", "account_id": SITES[1]["id"]}
    wrong = await site.call("POST", EXCHANGE, json=choice | {"account_id": "elsewhere"})
    assert refused(wrong) == (409, "account_choice")
    foreign = await site.call("POST", EXCHANGE, json=choice | {"user_id": "u2"})
    assert refused(foreign) == (403, "state_foreign")
    made = await site.call("POST", EXCHANGE, json=choice)
    assert made.status_code == 200, made.text
    assert made.json()["account_id"] == SITES[1]["id"]
    assert made.json()["variables"]["cloudid"] == SITES[1]["id"]
    given = await site.vault.tokens.resolve(site.workspace, "test", "jira", "u1")
    assert (await site.vault.tokens.refreshed(given)).version > given.version
    again = await site.call("POST", EXCHANGE, json=choice)
    assert refused(again) == (409, "state_used")


async def test_code_of_a_consent_is_not_taken_twice_while_a_choice_is_open(site: Site) -> None:
    await two_sites(site)
    body = await own_road(site, "jira")
    await site.call("POST", EXCHANGE, json=body)
    assert refused(await site.call("POST", EXCHANGE, json=body)) == (409, "state_used")


async def test_choice_that_is_not_made_in_time_is_over(site: Site) -> None:
    await two_sites(site)
    body = await own_road(site, "jira")
    await site.call("POST", EXCHANGE, json=body)
    await site.sql("UPDATE oauth_states SET expires_at = now() - interval '1 second'")
    choice = {"state": body["state"], "user_id": "u1", "account_id": SITES[0]["id"]}
    assert refused(await site.call("POST", EXCHANGE, json=choice)) == (409, "state_expired")


async def test_grant_that_waits_for_a_choice_is_sealed(site: Site) -> None:
    await two_sites(site)
    await site.call("POST", EXCHANGE, json=await own_road(site, "jira"))
    query_ = "SELECT pending FROM oauth_states WHERE workspace_id = %s"
    ((pending,),) = await site.sql(query_, site.workspace)
    assert pending is not None
    assert b"access_token" not in bytes(pending)


async def test_hosted_road_lets_the_customer_choose(site: Site) -> None:
    await two_sites(site)
    back = await site.consent(await site.offer("jira", return_url="https://acme.example/done"))
    page = await site.come_back(back)
    assert page.status_code == 200
    assert "two &amp; &lt;co&gt;" in page.text
    links = [text.partition('"')[0] for text in page.text.split('href="') if "account=" in text]
    assert len(links) == 2
    sent = await site.api.get(links[1].replace("&amp;", "&"))
    told = query(sent.headers["location"])
    assert told["status"] == "connected"
    (row,) = await site.vault.store.find(site.workspace, "test", "jira", "u1")
    assert (row.id, row.account_id) == (told["connection_id"], SITES[1]["id"])


async def test_reconnecting_takes_the_account_that_is_connected(site: Site) -> None:
    await two_sites(site)
    body = await own_road(site, "jira")
    await site.call("POST", EXCHANGE, json=body)
    choice = {"state": body["state"], "user_id": "u1", "account_id": SITES[1]["id"]}
    made = (await site.call("POST", EXCHANGE, json=choice)).json()
    (row,) = await site.vault.store.find(site.workspace, "test", "jira", "u1")
    offer = await begin(site, row)
    await two_sites(site)
    page = await site.come_back(await site.consent(offer["url"]))
    assert page.status_code == 200, page.text
    row = await site.row(row)
    assert (row.id, row.account_id) == (made["id"], SITES[1]["id"])


# ---- the end


async def test_receipt_says_what_was_revoked_and_when(site: Site) -> None:
    made = await site.connect("zendesk", label="support")
    answer = (await site.call("DELETE", path(site, made))).json()
    assert (answer["id"], answer["provider"], answer["label"]) == (made.id, "zendesk", "support")
    assert (answer["account_id"], answer["scopes"]) == (made.account_id, list(made.scopes))
    assert answer["vendor"] == "revoked"
    at = [datetime.fromisoformat(answer[name]) for name in ("deleted_at", "revoked_at")]
    assert at == sorted(at)


async def test_vendor_that_fails_to_revoke_is_told_in_the_receipt(site: Site) -> None:
    made = await site.connect("zendesk")
    await site.sandbox.fault("zendesk", "oauth.revoke", {"status": 500, "body": {}})
    answer = (await site.call("DELETE", path(site, made))).json()
    assert (answer["vendor"], answer["revoked_at"]) == ("failed", None)
    assert (await site.call("GET", path(site, made))).status_code == 404


async def test_account_that_others_use_is_revoked_with_the_last_of_them(site: Site) -> None:
    """At Slack both hold the same token: revoking one connection's would end the other."""
    first = await site.connect("slack", "u1")
    second = await site.connect("slack", "u2")
    assert first.account_id == second.account_id
    assert (await site.call("DELETE", path(site, first))).json()["vendor"] == "in_use"
    assert (await site.call("DELETE", path(site, second))).json()["vendor"] == "revoked"


async def test_entered_credentials_are_forgotten_and_not_revoked(site: Site) -> None:
    body = {"provider": "slack", "user_id": "u1", "credentials": {"bot_token": "sandbox_token"}}
    made = (await site.call("POST", path(site), json=body)).json()
    answer = (await site.call("DELETE", f"{path(site)}/{made['id']}")).json()
    assert (answer["vendor"], answer["revoked_at"]) == ("not_offered", None)


# ---- states


@pytest.mark.parametrize("road", ["own", "hosted"])
async def test_replayed_state_is_refused_on_both_roads(site: Site, road: str) -> None:
    if road == "own":
        body = await own_road(site, "slack")
        assert (await site.call("POST", EXCHANGE, json=body)).status_code == 200
        assert refused(await site.call("POST", EXCHANGE, json=body)) == (409, "state_used")
        return
    back = await site.consent(await site.offer("slack"))
    assert (await site.come_back(back)).status_code == 200
    page = await site.come_back(back)
    assert (page.status_code, "state_used" in page.text) == (409, True)


async def test_chosen_account_does_not_open_a_consent_that_was_never_exchanged(
    site: Site,
) -> None:
    body = await own_road(site, "jira")
    choice = {"state": body["state"], "user_id": "u1", "account_id": SITES[0]["id"]}
    assert refused(await site.call("POST", EXCHANGE, json=choice)) == (409, "consent_failed")
    assert await site.vault.store.find(site.workspace, "test", "jira", None) == []
