"""Ingest as a real HTTP server on a real Kafka."""

import asyncio
import base64
import contextlib
import gzip
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer
from fastapi import FastAPI
from standardwebhooks import Webhook

from ingest.app import IngestPorts, build_router
from ingest.definitions import FollowedListeners, Hook
from ingest.directory import Directory
from schemas.access import Caller
from schemas.codec import encode
from schemas.errors import NotFound
from schemas.events import WorkflowVersion
from schemas.ids import derived_id
from schemas.incoming import EVENT_BYTES_MAX, event_id, read_event
from schemas.settings import Secret
from schemas.topics import DEFINITIONS, EVENTS
from wire.bus import KafkaLog, KafkaPublisher, Record, publish_all
from wire.clock import now_us
from wire.problems import install
from wire.serving import bind, build_server

WS = derived_id("ws", "ingest")
SECRET = "whsec_" + base64.b64encode(b"i" * 24).decode()
PAYLOADS = Path(__file__).parent.parent / "fixtures" / "github" / "payloads.tsv.gz"


async def secrets_of(workspace):
    if workspace != WS:
        raise NotFound("no such workspace")
    return [Secret(SECRET)]


async def authenticate(_scope):
    return Caller(WS, "live", "key_1")


@contextlib.asynccontextmanager
async def served(publisher, definitions):
    """Serve ingest on loopback; gives its address."""
    app = FastAPI()
    install(app)
    directory = Directory(secrets_of, now_us)
    app.include_router(build_router(IngestPorts(publisher, directory, definitions, authenticate)))
    listening = bind("127.0.0.1", 0, "NHOOD_PORT")
    server = build_server(app)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield "http://{}:{}".format(*listening.getsockname())
    finally:
        server.stop()
        await running


@pytest.fixture
async def publisher(kafka_topics):
    found = KafkaPublisher(kafka_topics, "test-ingest")
    await found.start()
    yield found
    await found.close()


def open_client(url):
    # hundreds of posts at once wait for one of its connections
    return httpx.AsyncClient(base_url=url, timeout=60)


@pytest.fixture
async def listeners(kafka_topics):
    found = FollowedListeners(kafka_topics, "test-ingest")
    await found.start()
    yield found
    await found.close()


@pytest.fixture
async def client(publisher, listeners):
    async with served(publisher, listeners) as url, open_client(url) as found:
        yield found


@pytest.fixture
def log(kafka_topics):
    return KafkaLog(kafka_topics, "test-ingest")


def github_payloads():
    lines = gzip.decompress(PAYLOADS.read_bytes()).splitlines()
    return [(name.decode(), body) for name, _, body in (line.partition(b"\t") for line in lines)]


async def test_recorded_github_webhooks_come_out_of_kafka_byte_for_byte(client, log):
    payloads = github_payloads()
    assert len(payloads) > 300

    async def send(number, name, body):
        headers = {
            "content-type": "application/json",
            "user-agent": "GitHub-Hookshot/044aadd",
            "x-github-event": name,
            "x-github-delivery": f"72d3162e-cc78-11e3-81ab-{number:012d}",
            "x-hub-signature-256": "sha256=" + "0" * 64,
        }
        answer = await client.post(f"/webhooks/{WS}/github", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    receipts = await asyncio.gather(*(send(n, *item) for n, item in enumerate(payloads)))
    by_place = {(r["partition"], r["offset"]): n for n, r in enumerate(receipts)}
    assert len(by_place) == len(payloads)
    for partition in {place for place, _ in by_place}:
        offsets = [offset for place, offset in by_place if place == partition]
        span = max(offsets) - min(offsets) + 1
        for stored in await log.read(EVENTS, partition, min(offsets), span):
            number = by_place.get((partition, stored.place.offset))
            if number is None:
                continue
            name, body = payloads[number]
            envelope, event = read_event(stored.value, stored.headers, stored.place, 0)
            assert event.data.data == body
            assert (envelope.id, envelope.subject) == (receipts[number]["event_id"], "/github")
            assert event.headers["x-github-event"] == name
            assert "x-hub-signature-256" not in event.headers
            del by_place[partition, stored.place.offset]
    assert by_place == {}


async def test_signature_of_the_reference_library_is_taken(client):
    moment = datetime.now(UTC)
    body = '{"customer": "Zoë"}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", moment, body),
        "content-type": "application/json",
    }
    url = f"/webhooks/{WS}/signed"
    assert (await client.post(url, content=body, headers=headers)).status_code == 202
    tampered = await client.post(url, content=body.replace("Zoë", "Eve"), headers=headers)
    assert (tampered.status_code, tampered.json()["code"]) == (401, "wrong_signature")


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_refused_while_it_arrives(client, chunked):
    async def endless():
        for _ in range(64):
            yield b"x" * 65_536

    content = endless() if chunked else b"x" * (EVENT_BYTES_MAX + 1)
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        # The server hangs up as soon as it knows: a sender may see that before the answer.
        answer = await client.post(f"/webhooks/{WS}/a", content=content)
        assert answer.status_code == 413
    assert (await client.post(f"/webhooks/{WS}/a", json={})).status_code == 202


async def test_nothing_is_accepted_while_the_broker_is_away(listeners, unused_tcp_port):
    away = KafkaPublisher(f"127.0.0.1:{unused_tcp_port}", "test-away", delivery_timeout_ms=500)
    await away.start()
    try:
        async with served(away, listeners) as url, open_client(url) as client:
            one = await client.post(f"/webhooks/{WS}/a", json={})
            many = await client.post(
                f"/api/v1/workspaces/{WS}/events", json={"events": [{"type": "a"}] * 3}
            )
        for answer in (one, many):
            assert (answer.status_code, answer.json()["code"]) == (503, "kafka_down")
            assert int(answer.headers["retry-after"]) > 0
    finally:
        await away.close(0.1)


def version(number, path, **changes):
    trigger = {"type": "webhook", "path": path, "verify": "required"}
    fields = {
        "workspace_id": WS,
        "workflow_id": derived_id("wf", "ingest", number),
        "version": 1,
        "mode": "live",
        "name": "a",
        "status": "active",
        "definition": orjson.dumps({"name": "a", "trigger": trigger, "steps": []}),
        "saved_at_us": 1,
    }
    return WorkflowVersion(**(fields | changes))


def definition_record(saved):
    return Record(DEFINITIONS, saved.workflow_id.encode(), encode(saved))


async def test_workflow_counts_from_the_moment_its_saving_was_acknowledged(client, publisher):
    for number in range(10):
        path = f"/race-{number}"
        await publish_all(publisher, [definition_record(version(number, path))])
        answer = await client.post(f"/webhooks/{WS}{path}", json={})
        assert (answer.status_code, answer.json()["code"]) == (401, "signature_required")


async def test_definitions_of_before_the_start_are_known_at_once(publisher, kafka_topics):
    saved = version("early", "/early")
    await publish_all(publisher, [definition_record(saved)])
    found = FollowedListeners(kafka_topics, "test-early")
    await found.start()
    try:
        assert found.ready
        assert found.on_path(WS, "/early") == (Hook(saved.workflow_id, "live", verify=True),)
    finally:
        await found.close()


async def test_unknown_paths_ask_the_broker_together(client):
    """A hundred posts at once to a path that nobody listens on take no hundred round trips."""
    began = time.monotonic()
    posts = (client.post(f"/webhooks/{WS}/nobody", json={}) for _ in range(100))
    answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {202}
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
async def test_record_of_an_independent_cloudevents_client_is_read(kafka_topics, log, write):
    sent = CloudEvent(
        {
            "id": "o-1",
            "source": "/shop",
            "type": "order.created",
            "specversion": "1.0",
            "datacontenttype": "text/plain",
            "workspace": WS,
            "partitionkey": "c7",
        },
        "héllo",
    )
    message = write(sent)
    placed = []
    producer = Producer({"bootstrap.servers": kafka_topics})
    producer.produce(
        EVENTS,
        message.value,
        message.key,
        headers=list(message.headers.items()),
        on_delivery=lambda error, stored: placed.append((error, stored)),
    )
    assert producer.flush(20) == 0
    ((error, place),) = placed
    assert error is None
    (stored,) = await log.read(EVENTS, place.partition(), place.offset(), 1)
    envelope, event = read_event(stored.value, stored.headers, stored.place, 7)
    assert envelope.id == event_id(WS, "any", "/shop", "o-1")
    assert event.data.data == "héllo".encode()
