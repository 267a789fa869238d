"""The gateway whole, on a real Kafka and PostgreSQL."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import pytest

from nhood.gateway import build_app, opened
from schemas.errors import StackError
from schemas.incoming import read_event
from schemas.topics import EVENTS
from wire.serving import bind

WORKFLOW = {
    "name": "Hello",
    "trigger": {"type": "webhook", "path": "/hello"},
    "steps": [
        {"provider": "slack", "action": "send_message", "config": {"channel": "#x", "text": "hi"}}
    ],
}


@pytest.fixture
async def parts(settings):
    async with opened(settings) as parts:
        yield parts


@pytest.fixture
async def client(settings, parts):
    transport = httpx.ASGITransport(build_app(settings, parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def _workspace(client):
    body = {"name": "Acme", "email": "dev@acme.example", "plan": "free"}
    made = (await client.post("/api/v1/workspaces", json=body)).json()
    client.headers["Authorization"] = f"Bearer {made['test_api_key']}"
    return made, f"/api/v1/workspaces/{made['workspace_id']}"


async def test_workflow_webhook_and_execute_reach_the_log(client, parts):
    made, base = await _workspace(client)
    saved = (await client.post(f"{base}/workflows", json=WORKFLOW)).json()
    hook = await client.post(f"/webhooks/{made['workspace_id']}/hello", json={"n": 1})
    assert hook.status_code == 202, hook.text
    begun = await client.post(f"{base}/workflows/{saved['workflow_id']}/execute", json={"input": 2})
    assert begun.status_code == 202, begun.text
    for receipt, body in ((hook.json(), b'{"n":1}'), (begun.json(), b"2")):
        (stored,) = await parts.ports.log.read(EVENTS, receipt["partition"], receipt["offset"], 1)
        envelope, event = read_event(stored.value, stored.headers, stored.place, 0)
        assert (envelope.id, event.data.data) == (receipt["event_id"], body)


async def test_batch_of_events_larger_than_a_control_body_is_taken(client):
    _, base = await _workspace(client)
    events = [{"type": "order.created", "data": "x" * 3_000} for _ in range(500)]
    answer = await client.post(f"{base}/events", json={"events": events})
    assert (answer.status_code, answer.json()["accepted"]) == (202, 500)


async def test_readiness_asks_the_servers(client, parts):
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "database": True, "kafka": True, "definitions": True}
    assert (await client.get("/healthz")).text == "ok\n"


async def test_readiness_tells_that_the_database_is_away(client, parts):
    await parts.ports.pool.close()
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, False)


async def test_metrics_count_requests_by_route_and_never_by_workspace(client):
    made, base = await _workspace(client)
    await client.get(base)
    text = (await client.get("/metrics")).text
    assert 'route="/api/v1/workspaces/{workspace_id}"' in text
    assert made["workspace_id"] not in text


async def test_portal_and_documentation_come_from_here_alone(client):
    for page in ("/", "/docs"):
        answer = await client.get(page)
        assert answer.status_code == 200
        addresses = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
        assert addresses
        for address in addresses:
            assert address.startswith("/"), address
            assert (await client.get(address)).status_code == 200, address
    assert "default-src 'none'" in (await client.get("/")).headers["content-security-policy"]


async def test_openapi_names_every_address_of_the_platform(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    base = "/api/v1/workspaces"
    one = f"{base}/{{workspace_id}}"
    assert {
        base,
        one,
        f"{one}/events",
        f"{one}/events/{{event_id}}",
        f"{one}/workflows/{{workflow_id}}/execute",
        f"{one}/executions/{{execution_id}}/cancel",
        f"{one}/connections",
        "/api/v1/integrations",
        "/api/v1/integrations/auth-url",
        "/webhooks/{workspace_id}/{path}",
    } <= paths.keys()


async def test_pages_of_other_origins_may_begin_a_connection_and_nothing_else(client):
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    allowed = await client.options("/api/integrations/slack/connect", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "*"
    refused = await client.options("/api/v1/workspaces", headers=asked)
    assert "access-control-allow-origin" not in refused.headers


async def test_post_to_the_vault_is_done_once_too(client):
    made, _ = await _workspace(client)
    body = {
        "provider": "slack",
        "user_id": "cust_1",
        "workspace_id": made["workspace_id"],
    }
    key = {"Idempotency-Key": "connect-1"}
    first = await client.post("/api/v1/integrations/auth-url", json=body, headers=key)
    again = await client.post("/api/v1/integrations/auth-url", json=body, headers=key)
    assert first.status_code == 200, first.text
    assert first.json() == again.json()


def test_port_that_is_taken_is_told_with_the_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port} .* NHOOD_PORT"):
            bind("127.0.0.1", port, "NHOOD_PORT")


@pytest.fixture
def process(settings, tmp_path):
    """A running gateway process and its address."""
    with bind("127.0.0.1", 0, "") as free:
        port = free.getsockname()[1]
    env = {**os.environ, **replace(settings, port=port).to_env()}
    code = "import asyncio; from nhood.gateway import serve; from schemas.settings import Settings;"
    code += "asyncio.run(serve(Settings.from_env()))"
    with (tmp_path / "gateway.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=log)
    yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


async def test_stop_answers_what_is_under_way_and_exits_with_0(process):
    running, address = process
    async with httpx.AsyncClient(base_url=address) as client:
        deadline = time.monotonic() + 30
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert running.poll() is None
            await asyncio.sleep(0.1)
        _, base = await _workspace(client)
        waiting = asyncio.create_task(
            client.get(f"{base}/executions/ex_{'0' * 26}", params={"wait": 2}, timeout=10)
        )
        await asyncio.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        assert (await waiting).status_code == 404
    assert await asyncio.to_thread(running.wait, 20) == 0
