"""The events endpoint on the bus in memory."""

import orjson
import pytest
from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent

from ingest.core.batch import CALL_BYTES_MAX
from schemas import codec
from schemas.errors import RateLimited
from schemas.events import Envelope
from schemas.incoming import EVENT_BYTES_MAX, event_id
from tests.unit.ingest.conftest import OTHER_WS, WS

URL = f"/api/v1/workspaces/{WS}/events"
KEY = {"authorization": "Bearer live"}
TYPED = {"type": "order.created"}


async def send(client, body, **headers):
    return await client.post(URL, json=body, headers=KEY | headers)


async def test_single_event_is_taken(client, world):
    answer = await send(client, TYPED | {"data": {"total": 3}, "user_id": "c7", "subject": "17"})
    (stored,) = await world.stored()
    envelope, event = Envelope.parse(stored.headers), codec.decode(stored.value)
    assert answer.status_code == 202
    assert answer.json() == {
        "accepted": 1,
        "refused": 0,
        "results": [
            {
                "status": 202,
                "event_id": envelope.id,
                "topic": "nhood.events.v1",
                "partition": stored.place.partition,
                "offset": stored.place.offset,
                "accepted_at": "2026-01-31T08:00:00.000000Z",
            }
        ],
    }
    assert (envelope.type, envelope.subject, envelope.source) == (
        "order.created",
        "17",
        f"/api/{WS}",
    )
    assert (event.data.data, event.user, event.mode) == (b'{"total":3}', "c7", "live")


async def test_mode_is_that_of_the_key(client, world):
    await send(client, TYPED, authorization="Bearer test")
    (stored,) = await world.stored()
    assert codec.decode(stored.value).mode == "test"


async def test_each_event_gets_its_own_result(client, world):
    events = [TYPED, {"data": 1}, "x", TYPED | {"user": "c7"}, TYPED]
    answer = await send(client, {"events": events})
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["refused"]) == (207, 2, 3)
    assert [r["status"] for r in body["results"]] == [202, 422, 422, 422, 202]
    places = [r["problems"][0]["place"] for r in body["results"] if r["status"] == 422]
    assert places == ["events[1].type", "events[2]", "events[3].user"]
    assert "user_id" in body["results"][3]["detail"]
    assert len(await world.stored()) == 2


async def test_call_without_a_usable_event_is_refused(client, world):
    answer = await send(client, {"events": [{}, {}]})
    assert (answer.status_code, answer.json()["accepted"]) == (422, 0)
    assert await world.stored() == []


async def test_same_id_is_the_same_event(client):
    answers = [await send(client, TYPED | {"id": "order-17"}) for _ in range(2)]
    first, second = [answer.json()["results"][0]["event_id"] for answer in answers]
    assert first == second == event_id(WS, "live", f"/api/{WS}", "order-17")


async def test_event_says_whether_its_id_can_come_again(client, world):
    await send(client, {"events": [TYPED, TYPED | {"id": "order-18"}]})
    stored = [record.headers for record in await world.stored()]
    named = {headers["ce_id"].decode(): "ce_minted" in headers for headers in stored}
    assert sorted(named.values()) == [False, True]
    assert named[event_id(WS, "live", f"/api/{WS}", "order-18")] is False


async def test_nothing_is_taken_while_kafka_is_away(client, world):
    world.kafka_down = True
    answer = await send(client, {"events": [TYPED, {}]})
    assert (answer.status_code, answer.json()["code"]) == (503, "kafka_down")
    assert "retry-after" in answer.headers


async def test_order_key_keeps_events_on_one_partition(client, world):
    await send(client, {"events": [TYPED | {"order_key": "c7"} for _ in range(9)]})
    assert len({stored.place.partition for stored in await world.stored()}) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"events": []}, "no_events"),
        ({"events": [TYPED] * 1_001}, "too_many_events"),
        ({"events": {}}, "wrong_type"),
        ({"events": [TYPED], "x": 1}, "too_many_fields"),
        ("x", "wrong_type"),
    ],
)
async def test_call_that_is_no_list_of_events_is_refused(client, body, code):
    answer = await send(client, body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_thousand_events_go_into_a_call(client, world):
    answer = await send(client, {"events": [TYPED] * 1_000})
    assert (answer.status_code, len(await world.stored())) == (202, 1_000)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({}, "missing_type"),
        ({"type": "nhood.webhook"}, "reserved_type"),
        ({"type": 7.5}, "wrong_type"),
        (TYPED | {"data": "x" * EVENT_BYTES_MAX}, "event_too_large"),
        (TYPED | {"time": "now"}, "bad_time"),
        (TYPED | {"order_key": []}, "wrong_type"),
        (TYPED | {"mode": "live"}, "unknown_field"),
    ],
)
async def test_unusable_event_is_told_why(client, event, code):
    (result,) = (await send(client, event)).json()["results"]
    assert (result["status"], result["code"]) == (422, code)


async def test_broken_json_is_told_where(client):
    answer = await client.post(URL, content=b'{"a"', headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


async def test_call_over_the_limit_is_refused(client):
    answer = await client.post(URL, content=b" " * (CALL_BYTES_MAX + 1), headers=KEY)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        (URL, {}, 401),
        (URL, {"authorization": "Bearer wrong"}, 401),
        (URL.replace(WS, OTHER_WS), KEY, 404),
    ],
)
async def test_events_need_a_key_of_this_workspace(client, world, url, headers, status):
    answer = await client.post(url, json=TYPED, headers=headers)
    assert answer.status_code == status
    assert await world.stored() == []


def cloud_event(**attributes):
    base = {"id": "1", "source": "/shop", "type": "order.created", "specversion": "1.0"}
    return CloudEvent({**base, "datacontenttype": "text/plain", **attributes}, "héllo")


async def test_cloudevent_of_an_independent_client_is_taken(client, world):
    message = to_structured_event(cloud_event(user="c7", subject="s"))
    answer = await client.post(URL, content=message.body, headers={**message.headers, **KEY})
    (stored,) = await world.stored()
    envelope, event = Envelope.parse(stored.headers), codec.decode(stored.value)
    assert answer.status_code == 202
    assert envelope.id == event_id(WS, "live", "/shop", "1")
    assert (envelope.source, envelope.subject, event.user) == ("/shop", "s", "c7")
    assert (event.data.data, event.data.content_type) == ("héllo".encode(), "text/plain")


async def test_batch_of_cloudevents_is_taken_one_by_one(client):
    events = [orjson.loads(to_structured_event(cloud_event(id=str(n))).body) for n in range(3)]
    events += [
        events[0] | {"specversion": "0.3"},
        {k: v for k, v in events[0].items() if k != "source"},
        events[0] | {"workspace": OTHER_WS},
        events[0] | {"mode": "test"},
    ]
    headers = {**KEY, "content-type": "application/cloudevents-batch+json; charset=utf-8"}
    answer = await client.post(URL, content=orjson.dumps(events), headers=headers)
    assert [r["status"] for r in answer.json()["results"]] == [202, 202, 202, 422, 422, 422, 422]


async def test_call_over_a_limit_is_refused_whole(world, client):
    asked = []

    async def full(workspace, events):
        asked.append((workspace, events))
        raise RateLimited("Slow down.", retry_after_s=7, code="event_rate_exceeded")

    world.admit = full
    body = {"events": [{"type": "a.b"}, {"type": "a.b"}, {"no": "type"}]}
    headers = {"Authorization": "Bearer live"}
    answer = await client.post(f"/api/v1/workspaces/{WS}/events", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "event_rate_exceeded")
    assert asked == [(WS, 2)]
    assert await world.stored() == []
