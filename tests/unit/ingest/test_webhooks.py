"""The webhook endpoint on the bus in memory."""

import pytest
from prometheus_client import REGISTRY

from ingest.core.signature import parse_secret, sign
from schemas import codec
from schemas.errors import RateLimited
from schemas.events import Envelope
from schemas.incoming import EVENT_BYTES_MAX
from tests.unit.ingest.conftest import NOW, OTHER_WS, SECRET, WS, saved

URL = f"/webhooks/{WS}/new-customer"
JSON = {"content-type": "application/json"}


def signed(body, *, secret=SECRET, at_s=NOW // 1_000_000, name="msg_1"):
    return {
        **JSON,
        "webhook-id": name,
        "webhook-timestamp": str(at_s),
        "webhook-signature": sign(parse_secret(secret), name, at_s, body),
    }


async def test_webhook_is_on_the_log_before_it_is_answered(client, world):
    answer = await client.post(URL, content=b'{ "a": 1}', headers=JSON)
    (stored,) = await world.stored()
    assert answer.status_code == 202
    assert answer.json() == {
        "event_id": Envelope.parse(stored.headers).id,
        "topic": "nhood.events.v1",
        "partition": stored.place.partition,
        "offset": stored.place.offset,
        "accepted_at": "2026-01-31T08:00:00.000000Z",
    }
    envelope, event = Envelope.parse(stored.headers), codec.decode(stored.value)
    assert (envelope.type, envelope.subject, envelope.workspace) == (
        "nhood.webhook",
        "/new-customer",
        WS,
    )
    assert event.data.data == b'{ "a": 1}'
    assert stored.key == envelope.id.encode()


async def test_webhook_is_refused_while_kafka_is_away(client, world):
    world.kafka_down = True
    answer = await client.post(URL, json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "kafka_down")
    assert int(answer.headers["retry-after"]) > 0
    assert await world.stored() == []


async def test_path_on_which_nothing_listens_is_taken(client, world):
    assert (await client.post(f"/webhooks/{WS}/nobody", json={})).status_code == 202
    assert len(await world.stored()) == 1


@pytest.mark.parametrize("workspace", [OTHER_WS, "ws_x", "acme", "ws_" + "u" * 26])
async def test_unknown_workspace_is_not_found(client, world, workspace):
    answer = await client.post(f"/webhooks/{workspace}/a", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "workspace_not_found")
    assert await world.stored() == []


async def test_unknown_workspace_is_asked_for_once_in_five_seconds(client, world):
    for _ in range(3):
        await client.post(f"/webhooks/{OTHER_WS}/a", json={})
    assert world.loads == 1
    world.now_us += 5_000_000
    world.secrets[OTHER_WS] = []
    assert (await client.post(f"/webhooks/{OTHER_WS}/a", json={})).status_code == 202


async def test_known_workspace_is_served_while_the_database_is_away(client, world):
    await client.post(URL, json={})
    world.database_down = True
    world.now_us += 60_000_000
    assert (await client.post(URL, json={})).status_code == 202
    world.now_us += 600_000_000
    assert (await client.post(URL, json={})).status_code == 503


async def test_right_signature_is_taken_and_noted(client, world):
    body = b"\xff\x00 not text"
    headers = {**signed(body), "content-type": "application/octet-stream"}
    answer = await client.post(URL, content=body, headers=headers)
    (stored,) = await world.stored()
    assert answer.status_code == 202
    assert codec.decode(stored.value).headers["nhood-signature"] == "valid"


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{}", signed(b"{ }"), "wrong_signature"),
        (b"{}", signed(b"{}", at_s=NOW // 1_000_000 - 301), "stale_timestamp"),
        (b"{}", signed(b"{}", at_s=NOW // 1_000_000 + 301), "future_timestamp"),
        (b"{}", {**signed(b"{}"), "webhook-id": ""}, "malformed"),
    ],
)
async def test_signature_that_is_present_must_be_right(client, world, body, headers, code):
    answer = await client.post(URL, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert "www-authenticate" in answer.headers
    assert await world.stored() == []


async def test_new_secret_is_good_at_once_and_the_old_one_until_it_goes(client, world):
    new = "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3"
    assert (await client.post(URL, content=b"{}", headers=signed(b"{}"))).status_code == 202
    world.secrets[WS] = [new, SECRET]
    world.now_us += 1_000_000
    at_s = world.now_us // 1_000_000
    for secret in (new, SECRET):
        headers = signed(b"{}", secret=secret, at_s=at_s)
        assert (await client.post(URL, content=b"{}", headers=headers)).status_code == 202
    world.secrets[WS] = [new]
    world.now_us += 10_000_000
    assert (await client.post(URL, content=b"{}", headers=signed(b"{}"))).status_code == 401


async def test_wrong_signatures_ask_the_database_once_a_second(client, world):
    for _ in range(5):
        await client.post(URL, content=b"{}", headers=signed(b"x"))
    assert world.loads == 1
    world.now_us += 1_000_000
    for _ in range(5):
        await client.post(URL, content=b"{}", headers=signed(b"x"))
    assert world.loads == 2


async def test_unsigned_post_is_refused_where_a_trigger_requires_a_signature(client, world):
    world.listeners.take(saved(verify="required"))
    answer = await client.post(URL, json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "signature_required")
    taken = await client.post(URL, content=b"{}", headers=signed(b"{}"))
    assert taken.status_code == 202
    elsewhere = await client.post(f"/webhooks/{WS}/other", json={})
    assert elsewhere.status_code == 202


async def test_workflow_saved_a_moment_ago_is_known(client, world):
    world.on_refresh.append(saved(mode="test", verify="required"))
    assert (await client.post(URL, json={})).status_code == 401
    assert world.refreshes == 1


async def test_mode_is_test_where_only_test_workflows_listen(client, world):
    async def mode(**headers):
        at = (await client.post(URL, json={}, headers=headers)).json()
        (stored,) = await world.bus.read("nhood.events.v1", at["partition"], at["offset"], 1)
        return codec.decode(stored.value).mode

    assert await mode() == "any"
    world.listeners.take(saved(mode="test", number=1))
    assert await mode() == "test"
    assert await mode(**{"x-nhood-mode": "live"}) == "live"
    world.listeners.take(saved(mode="live", number=2))
    assert await mode() == "live"
    assert await mode(**{"x-nhood-mode": "test"}) == "test"


async def test_delivery_that_comes_twice_is_one_event(client):
    headers = {"idempotency-key": "order-17"}
    first, second = [await client.post(URL, json={}, headers=headers) for _ in range(2)]
    assert first.json()["event_id"] == second.json()["event_id"]


async def test_events_of_one_order_key_meet_on_one_partition(client, world):
    for number in range(12):
        await client.post(f"{URL}?order_key=c7", json={"n": number})
    assert len({stored.place.partition for stored in await world.stored()}) == 1


@pytest.mark.parametrize("pieces", [1, 5])
async def test_body_over_the_limit_is_refused(client, world, pieces):
    size = EVENT_BYTES_MAX // pieces + 1

    async def chunks():
        for _ in range(pieces):
            yield b"x" * size

    declared = await client.post(URL, content=b"x" * (EVENT_BYTES_MAX + 1))
    streamed = await client.post(URL, content=chunks())
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert answer.headers["connection"] == "close"
    assert await world.stored() == []


async def test_body_at_the_limit_is_taken_however_it_arrives(client, world):
    async def chunks():
        for _ in range(4):
            yield b"x" * (EVENT_BYTES_MAX // 4)

    assert (await client.post(URL, content=chunks())).status_code == 202
    (stored,) = await world.stored()
    assert codec.decode(stored.value).data.data == b"x" * EVENT_BYTES_MAX


async def test_sender_that_hangs_up_leaves_nothing(client, world):
    messages = iter(
        [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "raw_path": URL.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("ingest", 80),
        "client": None,
    }

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    await client.app(scope, receive, send)
    assert sent[0]["status"] == 499
    assert await world.stored() == []


async def test_request_that_cannot_be_read_is_told_why(client):
    answer = await client.post(URL, content=b'{"a":', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    answer = await client.post(URL, json={}, headers={"x-nhood-mode": "prod"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_mode")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_told_to_post(client, method):
    answer = await client.request(method, URL)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "curl" in answer.json()["detail"]


async def test_path_is_percent_decoded(client, world):
    await client.post(f"/webhooks/{WS}/k%C3%A4se%201/", json={})
    (stored,) = await world.stored()
    assert Envelope.parse(stored.headers).subject == "/käse 1"


async def test_answers_are_counted(client):
    def count():
        labels = {"route": "webhooks", "status": "202"}
        return REGISTRY.get_sample_value("nhood_ingest_requests_total", labels) or 0

    before = count()
    await client.post(URL, json={})
    assert count() == before + 1


async def test_routes_are_documented(client):
    paths = client.app.openapi()["paths"]
    assert set(paths) == {
        "/webhooks/{workspace_id}/{path}",
        "/api/v1/workspaces/{workspace_id}/events",
    }
    assert all(set(operations) == {"post"} for operations in paths.values())


async def test_event_over_a_limit_is_refused_before_anything_is_written(world, client):
    async def full(workspace, events):
        assert (workspace, events) == (WS, 1)
        headers = {"RateLimit": '"events";r=0;t=7'}
        raise RateLimited(
            "Slow down.", retry_after_s=7, code="event_rate_exceeded", headers=headers
        )

    world.admit = full
    answer = await client.post(f"/webhooks/{WS}/new-customer", json={"a": 1})
    assert (answer.status_code, answer.json()["code"]) == (429, "event_rate_exceeded")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["ratelimit"] == '"events";r=0;t=7'
    assert await world.stored() == []
