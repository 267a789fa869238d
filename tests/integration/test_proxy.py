"""The authenticated proxy against the sandbox and against vendors that misbehave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from executors.proxy.calls import BODY_BYTES_MAX, Proxy
from executors.proxy.routes import build_router
from executors.runtime.limits import Limits
from schemas.access import Caller
from schemas.ids import WorkspaceId
from schemas.settings import ProviderOverride
from tests.integration.vault_parts import Site, open_site
from wire import problems
from wire.http import allowed_by, open_client
from wire.serving import bind, build_server

SECRET = "xoxb-a-very-secret-token"


@pytest.fixture
async def site(database, tmp_path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as found:
        yield found
        await found.pool.close()


@contextlib.asynccontextmanager
async def gateway(site: Site, **changes) -> AsyncIterator[httpx.AsyncClient]:
    """The proxy's route behind the site's callers."""
    settings = replace(site.settings, **changes)
    site.vault.settings = settings
    async with open_client(allow_private=allowed_by(settings)) as out:
        proxy = Proxy(site.vault, Limits(settings), out)

        async def authenticate(scope):
            headers = dict(scope["headers"])
            return site.callers[headers[b"authorization"].decode().removeprefix("Bearer ")]

        app = FastAPI()
        problems.install(app)
        app.include_router(build_router(proxy, authenticate))
        base = f"http://gateway/api/v1/workspaces/{site.workspace}/proxy/"
        headers = {"Authorization": "Bearer test"}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as api:
            yield api


@pytest.fixture
async def api(site) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(site) as found:
        yield found


async def test_call_goes_to_the_vendor_with_the_connections_token(site, api):
    row = await site.connect("slack")
    sent = await api.post(
        "slack/chat.postMessage",
        json={"channel": "#general", "text": "hello"},
        headers={"Nhood-User-Id": "u1", "Cookie": "a=b"},
    )
    assert sent.status_code == 200
    assert sent.json()["ok"] is True
    assert sent.headers["nhood-provider"] == "slack"
    received = await site.sandbox.received("slack")
    (entry,) = [item for item in received if item["action"] == "send_message"]
    assert entry["body"]["text"] == "hello"
    assert "nhood" not in str(entry).lower()
    held = await site.vault.sealer.open_credential(await site.row(row))
    assert held.access_token.reveal() not in sent.text + str(sent.headers)


@pytest.mark.parametrize("how", ["header", "query", "connection header", "connection query"])
async def test_account_is_chosen(site, api, how):
    await site.connect("slack", "u1", account="One")
    other = await site.connect("slack", "u2", account="Two")
    asked = {
        "header": {"headers": {"Nhood-User-Id": "u2"}},
        "query": {"params": {"user_id": "u2"}},
        "connection header": {"headers": {"Nhood-Connection-Id": other.id}},
        "connection query": {"params": {"connection_id": other.id}},
    }[how]
    answer = await api.get("slack/conversations.list", **asked)
    assert answer.status_code == 200
    assert await _uses(site) == [(other.id, 1)]
    refused = await api.get("slack/conversations.list")
    assert (refused.status_code, refused.json()["code"]) == (409, "ambiguous_connection")


async def test_vendor_that_was_shut_down_is_called_with_test_keys_only(site, api):
    await site.connect("height")
    assert (await api.get("height/workspace")).status_code == 200
    live = await api.get("height/workspace", headers={"Authorization": "Bearer live"})
    assert (live.status_code, live.json()["code"]) == (404, "provider_shut_down")


async def test_vendors_own_refusal_passes_through(site, api):
    await site.connect("zendesk")
    answer = await api.get("zendesk/api/v2/tickets/987654321", headers={"Nhood-User-Id": "u1"})
    assert answer.status_code == 404
    assert answer.headers["nhood-provider"] == "zendesk"
    assert answer.json() != {}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nobody/x", 404, "unknown_provider"),
        ("slack/x", 404, "no_connection"),
    ],
)
async def test_what_is_not_there_is_our_problem(api, path, status, code):
    answer = await api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "nhood-provider" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "slack/https://evil.example/",
        "slack//evil.example/",
        "slack/%2e%2e/secret",
        "slack/a/%2e%2e%2f%2e%2e/secret",
    ],
)
async def test_path_cannot_leave_the_provider(site, api, path):
    await site.connect("slack")
    base = str(api.base_url)
    answer = await api.get(httpx.URL(base + path))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_proxy_path")
    assert not [item for item in await site.sandbox.received("slack") if "secret" in str(item)]


async def test_another_workspace_and_mode_see_nothing(site, api):
    await site.connect("slack")
    site.callers["other"] = Caller(WorkspaceId("ws_" + "0" * 26), "test", "key_9")
    answer = await api.get("slack/x", headers={"Authorization": "Bearer other"})
    assert answer.status_code == 404
    answer = await api.get("slack/x", headers={"Authorization": "Bearer live"})
    assert (answer.status_code, answer.json()["code"]) == (404, "no_connection")


async def test_expired_token_is_refreshed_once_and_the_call_repeated(site, api):
    await site.connect("zendesk")
    await site.sandbox.fault("zendesk", "list_tickets", {"unauthorised": True}, times=1)
    answer = await api.get("zendesk/api/v2/tickets", headers={"Nhood-User-Id": "u1"})
    assert answer.status_code == 200
    assert [version for _, version in await _uses(site)] == [1, 2]


async def _uses(site: Site) -> list[tuple[str, int]]:
    """Connection and credential version of what the audit says of the proxy."""
    await site.vault.audit.close()
    return await site.sql(
        "SELECT connection_id, credential_version FROM token_uses WHERE purpose = 'proxy'"
        " AND workspace_id = %s ORDER BY id",
        site.workspace,
    )


async def _make_live(site: Site) -> None:
    await site.sql("UPDATE connections SET mode = 'live' WHERE workspace_id = %s", site.workspace)


class Vendor:
    """Plays Slack in live mode as a test wants it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer = Response("{}", media_type="application/json")

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        raw = scope["raw_path"].decode() + "?" + scope["query_string"].decode()
        self.seen.append((request.method, raw, dict(request.headers), body))
        await self.answer(scope, receive, send)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    listening = bind("127.0.0.1", 0, "")
    server = build_server(app)  # type: ignore[arg-type]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.stop()
        await task
        listening.close()


@pytest.fixture
async def vendor(site) -> AsyncIterator[Vendor]:
    """With a live Slack connection that has a pasted token."""
    double = Vendor()
    async with serving(double) as url:
        override = {"slack": ProviderOverride(base_url=f"{url}/api")}
        async with gateway(site, providers=override) as api:
            await site.connect("slack")
            await _make_live(site)
            api.headers["Authorization"] = "Bearer live"
            double.api = api
            yield double


async def token_of(site: Site) -> str:
    (row,) = await site.vault.store.find(site.workspace, "live", "slack", "u1")
    return (await site.vault.sealer.open_credential(row)).access_token.reveal()


async def test_path_query_body_and_headers_arrive_as_they_were(site, vendor):
    base = str(vendor.api.base_url)
    url = httpx.URL(f"{base}slack/files/a%20b%2Fc/x:y?q=a+b%26c&q=2&user_id=u1")
    answer = await vendor.api.put(
        url, content=b"\x00\xff raw", headers={"Content-Type": "application/x-own", "X-Own": "1"}
    )
    assert answer.status_code == 200
    ((method, raw, headers, body),) = vendor.seen
    assert (method, raw, body) == ("PUT", "/api/files/a%20b%2Fc/x:y?q=a+b%26c&q=2", b"\x00\xff raw")
    assert (headers["content-type"], headers["x-own"]) == ("application/x-own", "1")
    assert headers["authorization"] == f"Bearer {await token_of(site)}"


async def test_token_that_the_vendor_repeats_is_not_shown(site, vendor):
    token = await token_of(site)

    async def pieces():
        for at in range(0, len(token), 3):
            yield token[at : at + 3].encode()
        yield b" and the rest"

    vendor.answer = StreamingResponse(
        pieces(), 201, {"x-echo": f"Bearer {token}", "set-cookie": "s=1"}
    )
    answer = await vendor.api.get("slack/x")
    assert (answer.status_code, answer.text) == (201, "*** and the rest")
    assert answer.headers["x-echo"] == "Bearer ***"
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-security-policy"] == "sandbox"


@pytest.mark.parametrize("status", [200, 204, 304, 302, 418, 500])
async def test_status_passes_through_and_redirects_are_not_followed(vendor, status):
    vendor.answer = Response(None, status, {"location": "http://169.254.169.254/"})
    answer = await vendor.api.get("slack/x")
    assert answer.status_code == status
    assert len(vendor.seen) == 1


async def test_bodies_are_bounded(vendor):
    answer = await vendor.api.post("slack/x", content=b"x" * (BODY_BYTES_MAX + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert vendor.seen == []
    vendor.answer = Response(b"x" * (BODY_BYTES_MAX + 1))
    answer = await vendor.api.get("slack/x")
    assert (answer.status_code, answer.json()["code"]) == (502, "answer_too_large")
    vendor.answer = Response(b"x" * BODY_BYTES_MAX)
    answer = await vendor.api.get("slack/x")
    assert len(answer.content) == BODY_BYTES_MAX


async def test_refused_token_that_cannot_be_refreshed_gives_the_vendors_answer(site, vendor):
    await site.sql(
        "UPDATE connections SET auth_kind = 'api_key' WHERE workspace_id = %s", site.workspace
    )
    vendor.answer = Response('{"no": 1}', 401, {"www-authenticate": "Bearer"})
    answer = await vendor.api.get("slack/x")
    assert (answer.status_code, answer.json()) == (401, {"no": 1})
    assert "www-authenticate" not in answer.headers


async def test_retry_after_holds_for_the_next_call(vendor, monkeypatch):
    monkeypatch.setattr("executors.proxy.calls.GATE_WAIT_S", 0.01)
    vendor.answer = Response("slow down", 429, {"retry-after": "30"})
    first = await vendor.api.get("slack/x")
    assert (first.status_code, first.text, first.headers["retry-after"]) == (429, "slow down", "30")
    second = await vendor.api.get("slack/x")
    assert (second.status_code, second.json()["code"]) == (429, "provider_throttled")
    assert int(second.headers["retry-after"]) in (29, 30)
    assert len(vendor.seen) == 1


async def test_vendor_that_fails_is_left_alone(vendor, monkeypatch):
    monkeypatch.setattr("executors.proxy.calls.GATE_WAIT_S", 0.01)
    vendor.answer = Response("broken", 503)
    for _ in range(5):
        assert (await vendor.api.get("slack/x")).text == "broken"
    refused = await vendor.api.get("slack/x")
    assert (refused.status_code, refused.json()["code"]) == (503, "provider_unavailable")
    assert len(vendor.seen) == 5


async def test_vendor_that_is_not_there_is_a_502(site):
    async with serving(Vendor()) as url:
        pass
    override = {"slack": ProviderOverride(base_url=f"{url}/api")}
    async with gateway(site, providers=override) as api:
        await site.connect("slack")
        await _make_live(site)
        answer = await api.get("slack/x", headers={"Authorization": "Bearer live"})
    assert (answer.status_code, answer.json()["code"]) == (502, "provider_unreachable")
    assert "127.0.0.1" not in answer.text


async def test_private_address_is_not_called(site):
    # A connection whose own host is inside our network; no setting of the operator names it.
    await site.connect("zendesk")
    await _make_live(site)
    spec = site.vault.catalogue.get("zendesk")
    inside = replace(spec.api, base_url=type(spec.api.base_url)("http://127.0.0.1:9/api"))
    site.vault.catalogue = replace(
        site.vault.catalogue,
        providers={**site.vault.catalogue.providers, "zendesk": replace(spec, api=inside)},
    )
    async with gateway(site) as api:
        answer = await api.get("zendesk/x", headers={"Authorization": "Bearer live"})
    assert (answer.status_code, answer.json()["code"]) == (502, "provider_unreachable")
    assert "address_refused" in answer.json()["detail"]
