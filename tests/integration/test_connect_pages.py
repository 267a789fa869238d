"""The connect pages over HTTP, without a browser: links, cookies, forms, headers."""

import re
from dataclasses import replace
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.integration.vault_parts import open_site
from token_vault.connect.flow import form_token
from token_vault.connect.sessions import digest

VISIT = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "none"}
RETURN = "https://acme.example/settings?tab=apps"


@pytest.fixture
async def site(database, tmp_path):
    async with open_site(database, tmp_path) as site:
        yield site


async def _link(site, key="test", **body):
    asked = {"user_id": "u1", **body}
    path = f"/api/v1/workspaces/{site.workspace}/connect-sessions"
    answer = await site.call("POST", path, key, json=asked)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _open(site, link, **headers):
    """Open a link as a browser does; the client keeps the cookie."""
    path = urlsplit(link["url"]).path
    return await site.api.get(path, headers={**VISIT, **headers})


def _token(page):
    return re.search(r'name="token" value="([^"]+)"', page.text)[1]


async def _send(site, link, slug, **form):
    here = f"/connect/{link['id']}/to/{slug}"
    page = await site.api.get(here)
    assert page.status_code == 200, page.text
    data = {"token": _token(page), **{name.replace("__", "."): v for name, v in form.items()}}
    return await site.api.post(here, data=data)


def _vendor(page):
    """The vendor's address that a page leads to."""
    assert page.status_code == 200, page.text
    return unescape(re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page.text)[1])


async def _consents(site):
    query = "SELECT count(*) FROM oauth_states WHERE workspace_id = %s"
    return (await site.sql(query, site.workspace))[0][0]


async def _status(site, link):
    path = f"/api/v1/workspaces/{site.workspace}/connect-sessions/{link['id']}"
    return (await site.call("GET", path)).json()


async def test_link_leads_from_list_to_consent_to_return_url(site):
    link = await _link(site, providers=["slack", "jira"], return_url=RETURN)
    opened = await _open(site, link)
    assert (opened.status_code, opened.headers["location"]) == (303, f"/connect/{link['id']}")
    listed = await site.api.get(f"/connect/{link['id']}")
    assert "Slack" in listed.text
    assert "Zendesk" not in listed.text
    vendor = _vendor(await _send(site, link, "slack"))
    back = await site.come_back(await site.consent(vendor))
    assert (back.status_code, back.headers["location"]) == (303, f"/connect/{link['id']}/result")
    done = await site.api.get(back.headers["location"])
    assert "Slack is connected" in done.text
    (made,) = await site.vault.store.find(site.workspace, "test", "slack", "u1")
    onward = urlsplit(unescape(re.search(r'href="(https://acme[^"]+)"', done.text)[1]))
    told = {name: value for name, (value,) in parse_qs(onward.query).items()}
    assert told == {
        "tab": "apps",
        "status": "connected",
        "provider": "slack",
        "connection_id": made.id,
        "session_id": link["id"],
    }
    assert await _status(site, link) | {"expires_at": None} == {
        "id": link["id"],
        "status": "connected",
        "user_id": "u1",
        "provider": "slack",
        "connection_id": made.id,
        "error": None,
        "expires_at": None,
    }


async def test_link_works_in_one_browser_only_and_there_again(site):
    link = await _link(site)
    await _open(site, link)
    again = await _open(site, link)
    assert (again.status_code, again.headers["location"]) == (303, f"/connect/{link['id']}")
    reloaded = await site.api.get(f"/connect/{link['id']}")
    assert reloaded.status_code == 200
    site.api.cookies.clear()
    stolen = await _open(site, link)
    assert (stolen.status_code, "session_used" in stolen.text) == (409, True)
    assert "set-cookie" not in stolen.headers
    peeped = await site.api.get(f"/connect/{link['id']}")
    assert (peeped.status_code, "session_used" in peeped.text) == (403, True)


async def test_token_and_cookie_are_kept_as_digests_only(site):
    link = await _link(site)
    await _open(site, link)
    token = link["url"].rpartition("/")[2]
    (cookie,) = site.api.cookies.values()
    ((row,),) = await site.sql(
        "SELECT row_to_json(s)::text FROM connect_sessions s WHERE id = %s", link["id"]
    )
    assert token not in row
    assert cookie not in row
    ((found, browser),) = await site.sql(
        "SELECT digest, browser FROM connect_sessions WHERE id = %s", link["id"]
    )
    assert (bytes(found), bytes(browser)) == (digest(token), digest(cookie))
    assert len(token.removeprefix("nhood_cs_")) == 43  # 256 bits


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-mode": "no-cors"},
        {"sec-fetch-dest": "iframe"},
        {"sec-purpose": "prefetch;prerender"},
        {"sec-fetch-mode": ""},
    ],
    ids=["script", "frame", "prefetch", "scanner"],
)
async def test_link_is_not_used_up_by_what_only_looks(site, headers):
    link = await _link(site)
    looked = await _open(site, link, **headers)
    assert looked.status_code == 200
    assert "set-cookie" not in looked.headers
    path = re.search(r'action="([^"]+)"', looked.text)[1]
    pressed = await site.api.post(path)
    assert (pressed.status_code, pressed.headers["location"]) == (303, f"/connect/{link['id']}")


async def test_cookie_is_for_the_server_and_our_pages_only(site):
    plain = (await _open(site, await _link(site))).headers["set-cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=lax" in plain
    assert "Max-Age=3600" in plain


async def test_cookie_over_https_is_secure_and_of_this_host(database, tmp_path):
    async with open_site(database, tmp_path, public_url="https://hooks.acme.example") as site:
        link = await _link(site)
        assert link["url"].startswith("https://hooks.acme.example/connect/nhood_cs_")
        cookie = (await _open(site, link)).headers["set-cookie"]
        assert cookie.startswith(f"__Host-nhood_connect_{link['id']}=")
        assert "Secure" in cookie
        assert "Path=/;" in cookie


async def test_every_page_has_the_headers_that_keep_it_safe(site):
    link = await _link(site)
    await _open(site, link)
    for path in (f"/connect/{link['id']}", f"/connect/{link['id']}/to/slack", "/connect/x"):
        headers = (await site.api.get(path)).headers
        policy = headers["content-security-policy"]
        assert "script" not in policy
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


async def test_form_that_another_page_sends_is_refused(site):
    link = await _link(site)
    await _open(site, link)
    here = f"/connect/{link['id']}/to/slack"
    token = _token(await site.api.get(here))
    for data, headers in (
        ({}, {}),
        ({"token": form_token("another cookie")}, {}),
        ({"token": token}, {"sec-fetch-site": "cross-site"}),
    ):
        refused = await site.api.post(here, data=data, headers=headers)
        assert (refused.status_code, "form_foreign" in refused.text) == (403, True)
    assert await _consents(site) == 0


async def test_consent_of_a_link_comes_back_in_its_own_browser_only(site):
    link = await _link(site)
    await _open(site, link)
    first = _vendor(await _send(site, link, "slack"))
    second = _vendor(await _send(site, link, "slack"))
    mine = dict(site.api.cookies)
    for vendor in (first, second):  # the first one too, which the second one replaced
        back = await site.consent(vendor)
        site.api.cookies.clear()
        victim = await site.come_back(back)
        assert (victim.status_code, "other_browser" in victim.text) == (403, True)
    assert await site.vault.store.find(site.workspace, "test", "slack", "u1") == []
    site.api.cookies.update(mine)
    assert (await site.come_back(back)).headers["location"] == f"/connect/{link['id']}/result"


async def test_denied_consent_can_be_tried_again(site):
    link = await _link(site, return_url=RETURN)
    await _open(site, link)
    back = await site.consent(_vendor(await _send(site, link, "slack")), "deny")
    failed = await site.api.get((await site.come_back(back)).headers["location"])
    assert "Access was declined" in failed.text
    assert f'href="/connect/{link["id"]}/to/slack"' in failed.text
    assert "status=failed" in failed.text
    assert "error=consent_denied" in failed.text
    assert (await _status(site, link))["error"] == "consent_denied"
    back = await site.consent(_vendor(await _send(site, link, "slack")))
    done = await site.api.get((await site.come_back(back)).headers["location"])
    assert "Slack is connected" in done.text
    assert (await _status(site, link))["error"] is None


async def test_expired_link_says_so_before_and_after_it_was_opened(site):
    late = await _link(site)
    link = await _link(site, return_url=RETURN)
    await _open(site, link)
    await site.sql("UPDATE connect_sessions SET expires_at = now() - interval '1 second'")
    never = await _open(site, late)
    assert (never.status_code, "session_expired" in never.text) == (409, True)
    assert "set-cookie" not in never.headers
    for path in (f"/connect/{link['id']}", f"/connect/{link['id']}/to/slack"):
        page = await site.api.get(path)
        assert (page.status_code, "session_expired" in page.text) == (409, True)
        assert "error=session_expired" in page.text
        assert "Try again" not in page.text
    assert (await _status(site, late))["status"] == "expired"


async def test_link_never_made_says_so(site):
    for path in ("/connect/nhood_cs_nothing", f"/connect/cs_{'0' * 26}"):
        page = await site.api.get(path, headers=VISIT)
        assert (page.status_code, "session_unknown" in page.text) == (404, True)


async def test_wrong_subdomain_is_shown_where_it_stands(site):
    link = await _link(site, providers=["zendesk"])
    await _open(site, link)
    page = await _send(site, link, "zendesk", variable__subdomain='evil.com/"><b>')
    assert page.status_code == 422
    assert 'value="evil.com/&#34;&gt;&lt;b&gt;"' in page.text
    assert 'aria-invalid="true"' in page.text
    assert 'aria-describedby="variable.subdomain.error variable.subdomain.help"' in page.text
    assert await _consents(site) == 0
    vendor = _vendor(await _send(site, link, "zendesk", variable__subdomain="acme"))
    await site.come_back(await site.consent(vendor))
    (made,) = await site.vault.store.find(site.workspace, "test", "zendesk", "u1")
    assert made.variables["subdomain"] == "acme"


async def test_pasted_key_is_stored_and_never_shown(site):
    link = await _link(site, providers=["slack"])
    await _open(site, link)
    here = f"/connect/{link['id']}/to/slack"
    form = await site.api.get(here, params={"way": "bot_token"})
    assert 'type="password"' in form.text
    data = {"token": _token(form), "way": "bot_token", "credential.bot_token": ""}
    missing = await site.api.post(here, data=data)
    assert (missing.status_code, "Please fill this in." in missing.text) == (422, True)
    data["credential.bot_token"] = "no tök3n"
    wrong = await site.api.post(here, data=data)
    assert (wrong.status_code, "does not look right" in wrong.text) == (422, True)
    assert "no tök3n" not in wrong.text
    data["credential.bot_token"] = "xoxb-revoked"
    refused = await site.api.post(here, data=data)
    assert (refused.status_code, "was not accepted" in refused.text) == (422, True)
    assert await site.vault.store.find(site.workspace, "test", "slack", None) == []
    data["credential.bot_token"] = "sandbox_token"
    done = await site.api.post(here, data=data)
    assert done.headers["location"] == f"/connect/{link['id']}/result"
    assert "Slack is connected" in (await site.api.get(done.headers["location"])).text


async def test_reconnecting_keeps_the_connection_id(site):
    made = await site.connect("zendesk", label="support")
    link = await _link(site, connection_id=made.id)
    await _open(site, link)
    listed = await site.api.get(f"/connect/{link['id']}")
    assert listed.headers["location"] == f"/connect/{link['id']}/to/zendesk"
    assert "Reconnect Zendesk" in (await site.api.get(listed.headers["location"])).text
    vendor = _vendor(await _send(site, link, "zendesk", variable__subdomain="acme"))
    await site.come_back(await site.consent(vendor))
    assert (await _status(site, link))["connection_id"] == made.id
    assert (await site.row(made)).credential_version > made.credential_version


async def test_reconnecting_is_for_the_same_user_and_workspace(site):
    made = await site.connect("slack")
    path = f"/api/v1/workspaces/{site.workspace}/connect-sessions"
    other = await site.call("POST", path, json={"user_id": "u2", "connection_id": made.id})
    assert (other.status_code, other.json()["problems"][0]["place"]) == (422, "user_id")
    live = await site.call("POST", path, "live", json={"user_id": "u1", "connection_id": made.id})
    assert (live.status_code, live.json()["code"]) == (404, "connection_not_found")


async def test_wrong_wishes_are_told_all_at_once(site):
    path = f"/api/v1/workspaces/{site.workspace}/connect-sessions"
    body = {"user_id": "u1", "providers": ["slack", "slak"], "return_url": "javascript:alert(1)"}
    answer = await site.call("POST", path, json=body)
    assert answer.status_code == 422
    assert [item["place"] for item in answer.json()["problems"]] == ["return_url", "providers[1]"]


async def test_name_of_the_workspace_is_text_and_nothing_else(site):
    await site.sql("UPDATE workspaces SET name = '<script>alert(1)</script>&{{7*7}}'")
    link = await _link(site)
    await _open(site, link)
    page = await site.api.get(f"/connect/{link['id']}", params={"q": "<b>{{7*7}}"})
    assert "<script" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;{{7*7}}" in page.text


async def test_live_mode_offers_what_is_set_up_and_says_what_is_not(site):
    link = await _link(site, "live", providers=["jira"], return_url=RETURN)
    await _open(site, link)
    page = await site.api.get(f"/connect/{link['id']}", follow_redirects=True)
    assert (page.status_code, "oauth_app_missing" in page.text) == (404, True)
    assert "tell Acme" in page.text


async def test_search_finds_by_part_of_a_name(site, monkeypatch):
    monkeypatch.setattr("token_vault.connect.routes.WITHOUT_SEARCH_MAX", 1)
    link = await _link(site)
    await _open(site, link)
    found = await site.api.get(f"/connect/{link['id']}", params={"q": "zEn"})
    assert ("Zendesk" in found.text, "Slack" in found.text) == (True, False)
    nothing = await site.api.get(f"/connect/{link['id']}", params={"q": "qqq"})
    assert "Nothing is called “qqq”" in nothing.text


async def test_provider_outside_the_link_is_refused(site):
    link = await _link(site, providers=["slack"])
    await _open(site, link)
    page = await site.api.get(f"/connect/{link['id']}/to/jira")
    assert (page.status_code, "not_offered" in page.text) == (404, True)


async def test_form_of_more_than_its_bound_is_refused(site):
    link = await _link(site)
    await _open(site, link)
    page = await site.api.post(f"/connect/{link['id']}/to/slack", content=b"x" * 100_001)
    assert page.status_code == 413


async def test_link_of_another_workspace_is_not_seen(site):
    link = await _link(site)
    path = f"/api/v1/workspaces/{site.workspace}/connect-sessions/{link['id']}"
    assert (await site.call("GET", path, "live")).status_code == 404
    site.callers["other"] = replace(site.callers["test"], workspace_id=f"ws_{'0' * 26}")
    assert (await site.call("GET", path, "other")).status_code == 404


async def test_customer_chooses_among_several_accounts_in_the_same_browser_only(site):
    link = await _link(site, providers=["jira"], return_url="https://acme.example/done")
    await _open(site, link)
    sites = [
        {"id": f"{n * 8}-a1b2-3b33-c444-def123456789", "name": name, "scopes": [],
         "url": f"https://{name}.atlassian.net"}
        for n, name in (("1", "one"), ("2", "two"))
    ]  # fmt: skip
    await site.sandbox.fault("jira", "oauth.account", {"status": 200, "body": sites})
    vendor = _vendor(await _send(site, link, "jira"))
    page = await site.come_back(await site.consent(vendor))
    assert (page.status_code, "Which Jira account?" in page.text) == (200, True)
    assert (await _status(site, link))["status"] == "opened"
    chosen = next(part for part in page.text.split('"') if sites[1]["id"] in part)
    kept = site.api.cookies
    site.api.cookies = httpx.Cookies()
    foreign = await site.api.get(chosen.replace("&amp;", "&"))
    assert (foreign.status_code, "other_browser" in foreign.text) == (403, True)
    site.api.cookies = kept
    done = await site.api.get(chosen.replace("&amp;", "&"))
    assert done.headers["location"] == f"/connect/{link['id']}/result"
    assert (await _status(site, link))["status"] == "connected"
    (made,) = await site.vault.store.find(site.workspace, "test", "jira", "u1")
    assert made.account_id == sites[1]["id"]


async def test_link_that_reconnects_takes_the_same_account_only(site):
    made = await site.connect("slack", account="Acme")
    link = await _link(site, connection_id=made.id)
    await _open(site, link)
    vendor = _vendor(await _send(site, link, "slack"))
    await site.come_back(await site.consent(vendor, account="Globex"))
    ended = await _status(site, link)
    assert (ended["status"], ended["error"]) == ("failed", "account_differs")
    assert (await site.row(made)).account_id == made.account_id
