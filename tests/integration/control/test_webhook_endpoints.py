"""Vendors' webhooks over real HTTP: address, handshake, signature, events on the log."""

import base64
import hashlib
import hmac
import json
import time

import pytest

from schemas.codec import decode_as
from schemas.events import QUARANTINE_NOTE, Event
from tests.integration.control.people_parts import V1
from wire.clock import mint

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
EVENTS = "nhood.events.v1"


@pytest.fixture
async def site(gateway):
    """A workspace with a test key: (gateway, path, headers)."""
    made = await gateway.client.post(V1, json={"name": "A", "email": "a@b.example", "plan": "free"})
    made.raise_for_status()
    body = made.json()
    key = {"authorization": f"Bearer {body['test_api_key']}"}
    return gateway, f"{V1}/{body['workspace_id']}", key


async def endpoint(site, provider, **more):
    gateway, path, key = site
    answer = await gateway.client.post(
        f"{path}/webhook-endpoints", json={"provider": provider} | more, headers=key
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def connect(site, provider, account, user="u1"):
    gateway, path, _ = site
    name = mint("conn")
    async with gateway.ports.pool.connection() as on:
        await on.execute(
            "INSERT INTO connections (id, workspace_id, mode, provider, user_id, state, account_id)"
            " VALUES (%s, %s, 'test', %s, %s, 'active', %s)",
            (name, path.rpartition("/")[2], provider, user, account),
        )
    return name


def slack(body, secret=SECRET, at=None):
    """Sign as Slack does."""
    content = json.dumps(body).encode()
    now = str(int(time.time()) if at is None else at)
    signed = f"v0:{now}:".encode() + content
    signature = "v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return {
        "content": content,
        "headers": {
            "content-type": "application/json",
            "x-slack-request-timestamp": now,
            "x-slack-signature": signature,
        },
    }


MENTION = {
    "type": "event_callback",
    "team_id": "T1",
    "event_id": "Ev1",
    "event": {"type": "app_mention", "text": "<@U1> hi", "channel": "C1"},
}


async def events(gateway):
    logs = [await gateway.bus.read(EVENTS, partition, 0, 100) for partition in range(3)]
    return [
        (dict(stored.headers), decode_as(Event, stored.value)) for log in logs for stored in log
    ]


async def send(site, made, **request):
    gateway, _, _ = site
    name = made["url"].rpartition("/")[2]
    return await gateway.client.post(f"/hooks/{name}", **request)


async def test_signed_event_of_a_connected_account_is_put_on_the_log(site):
    await connect(site, "slack", "T1")
    made = await endpoint(site, "slack", secret=SECRET)
    answer = await send(site, made, **slack(MENTION))
    assert answer.status_code == 200, answer.text
    ((headers, event),) = await events(site[0])
    assert headers["ce_type"] == b"nhood.provider"
    assert headers["ce_subject"] == b"slack/app_mention"
    assert (event.user, event.mode) == ("u1", "test")
    assert json.loads(event.data.data) == MENTION["event"]
    assert event.headers["nhood-signature"] == "valid"
    assert QUARANTINE_NOTE not in event.headers


async def test_same_delivery_gets_the_same_event_id(site):
    await connect(site, "slack", "T1")
    made = await endpoint(site, "slack", secret=SECRET)
    for _ in range(2):
        await send(site, made, **slack(MENTION))
    first, second = (headers["ce_id"] for headers, _ in await events(site[0]))
    assert first == second


async def test_account_that_several_users_connected_gives_each_an_event(site):
    for user in ("u1", "u2"):
        await connect(site, "slack", "T1", user)
    made = await endpoint(site, "slack", secret=SECRET)
    await send(site, made, **slack(MENTION))
    found = await events(site[0])
    assert sorted(event.user for _, event in found) == ["u1", "u2"]
    assert len({headers["ce_id"] for headers, _ in found}) == 2


async def test_account_that_nobody_connected_is_quarantined_and_visible(site):
    await connect(site, "slack", "T2")
    made = await endpoint(site, "slack", secret=SECRET)
    assert (await send(site, made, **slack(MENTION))).status_code == 200
    ((_, event),) = await events(site[0])
    assert "T1" in event.headers[QUARANTINE_NOTE]
    assert event.user is None


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda: slack(MENTION, "another"), "wrong_signature"),
        (lambda: slack(MENTION, at=int(time.time()) - 400), "stale_timestamp"),
        (lambda: {"content": b"{}", "headers": {}}, "signature_required"),
    ],
)
async def test_forged_event_is_refused_and_not_on_the_log(site, request_of, code):
    made = await endpoint(site, "slack", secret=SECRET)
    answer = await send(site, made, **request_of())
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert await events(site[0]) == []


async def test_challenge_is_answered_exactly(site):
    made = await endpoint(site, "slack")
    challenge = {"type": "url_verification", "token": "x", "challenge": "3eZbrw1aB"}
    answer = await send(site, made, json=challenge)
    assert (answer.status_code, answer.text) == (200, "3eZbrw1aB")
    assert answer.headers["content-type"].startswith("text/plain")
    assert await events(site[0]) == []


async def test_challenge_that_wants_a_signed_answer_gets_it(site):
    asked = {"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vlvZRS6"}}
    made = await endpoint(site, "zoom")
    assert (await send(site, made, json=asked)).json()["code"] == "no_secret"
    made = await endpoint(site, "zoom", secret="zoom-secret-token")
    answer = await send(site, made, json=asked)
    expected = hmac.new(b"zoom-secret-token", b"qgg8vlvZRS6", hashlib.sha256).hexdigest()
    assert answer.json() == {"plainToken": "qgg8vlvZRS6", "encryptedToken": expected}


async def test_batch_is_split_and_each_item_must_bear_the_secret(site):
    made = await endpoint(site, "microsoft_teams")
    secret = made["secret"]
    assert secret

    def item(number, state):
        return {
            "subscriptionId": "s1", "clientState": state, "changeType": "created",
            "resource": f"chats('1')/messages('{number}')",
            "resourceData": {"@odata.type": "#microsoft.graph.chatMessage", "id": str(number)},
        }  # fmt: skip

    bad = {"value": [item(1, secret), item(2, "guessed")]}
    assert (await send(site, made, json=bad)).status_code == 401
    assert await events(site[0]) == []
    answer = await send(site, made, json={"value": [item(1, secret), item(2, secret)]})
    assert answer.status_code == 202
    subjects = [headers["ce_subject"] for headers, _ in await events(site[0])]
    assert subjects == [b"microsoft_teams/chatMessage.created"] * 2
    assert len({headers["ce_id"] for headers, _ in await events(site[0])}) == 2


async def test_new_secret_is_good_at_once_and_the_old_one_for_a_while(site):
    gateway, path, key = site
    made = await endpoint(site, "slack", secret=SECRET)
    await send(site, made, **slack(MENTION))  # known in memory with the old secret
    url = f"{path}/webhook-endpoints/{made['endpoint_id']}"
    answer = await gateway.client.put(f"{url}/secret", json={"secret": "newer"}, headers=key)
    assert answer.status_code == 200
    assert answer.json()["old_secret_until"] is not None
    for secret in ("newer", SECRET):
        assert (await send(site, made, **slack(MENTION, secret))).status_code == 200
    await gateway.client.put(
        f"{url}/secret", json={"secret": "newest", "overlap_hours": 0}, headers=key
    )
    assert (await send(site, made, **slack(MENTION, "newest"))).status_code == 200
    assert (await send(site, made, **slack(MENTION, "newer"))).status_code == 401


async def test_endpoints_are_listed_by_pages_without_secrets_and_deleted(site):
    gateway, path, key = site
    made = [await endpoint(site, "slack", secret=SECRET, label=str(n)) for n in range(3)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        answer = await gateway.client.get(f"{path}/webhook-endpoints", params=query, headers=key)
        assert SECRET not in answer.text
        seen += [item["endpoint_id"] for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(item["endpoint_id"] for item in made)
    for provider, number in (("slack", 3), ("github", 0)):
        query = {"provider": provider}
        answer = await gateway.client.get(f"{path}/webhook-endpoints", params=query, headers=key)
        assert len(answer.json()["items"]) == number
    one = f"{path}/webhook-endpoints/{seen[0]}"
    assert (await gateway.client.delete(one, headers=key)).status_code == 204
    assert (await gateway.client.get(one, headers=key)).status_code == 404


async def test_address_that_nobody_made_is_not_there(site):
    gateway, _, _ = site
    for name in ("hook_" + "0" * 26, "x", "hook_é"):
        answer = await gateway.client.post(f"/hooks/{name}", json={})
        assert (answer.status_code, answer.json()["code"]) == (404, "endpoint_not_found")
    other = (await gateway.client.post(
        V1, json={"name": "B", "email": "b@b.example", "plan": "free"})).json()  # fmt: skip
    made = await endpoint(site, "slack")
    theirs = {"authorization": f"Bearer {other['test_api_key']}"}
    one = f"{V1}/{other['workspace_id']}/webhook-endpoints/{made['endpoint_id']}"
    assert (await gateway.client.get(one, headers=theirs)).status_code == 404


async def test_wrong_endpoint_is_told_what_to_mend(site):
    gateway, path, key = site
    many = f"{path}/webhook-endpoints"
    for body, status, code in (
        ({"provider": "slak"}, 404, "unknown_provider"),
        ({"provider": "salesforce"}, 422, "no_triggers"),
        ({"provider": "slack", "connection_id": "conn_x"}, 404, "connection_not_found"),
        ({"provider": "slack", "secret": ""}, 422, "invalid_input"),
    ):
        answer = await gateway.client.post(many, json=body, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_event_of_a_connections_own_address_is_for_its_user(site):
    connection = await connect(site, "zendesk", "acme", "u7")
    made = await endpoint(site, "zendesk", connection_id=connection)
    body = b'{"type": "zen:event-type:ticket.created", "id": "1"}'
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    digest = hmac.new(made["secret"].encode(), now.encode() + body, hashlib.sha256).digest()
    answer = await send(
        site,
        made,
        content=body,
        headers={
            "content-type": "application/json",
            "x-zendesk-webhook-signature": base64.b64encode(digest).decode(),
            "x-zendesk-webhook-signature-timestamp": now,
            "x-zendesk-webhook-invocation-id": "inv-1",
        },
    )
    assert answer.status_code == 200, answer.text
    ((_, event),) = await events(site[0])
    assert (event.user, event.data.data) == ("u7", body)
