"""API keys over real HTTP: scopes, rotation, and an end at once."""

import asyncio
from datetime import timedelta

import pytest

from tests.integration.control.people_parts import V1, refused_within, running_gateway
from wire.clock import now


@pytest.fixture
async def acme(gateway):
    """An owner, the path of their workspace, and what making it gave."""
    owner = await gateway.register()
    made = await owner.make_workspace()
    return owner, f"{V1}/{made['workspace_id']}", made


async def _new(caller, path, **more):
    body = {"name": "worker", "mode": "live"} | more
    answer = await caller.call("POST", f"{path}/api-keys", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_key_is_shown_once_and_listed_by_its_prefix(gateway, acme):
    owner, path, made = acme
    new = await _new(owner, path, scopes=["workflows:read"])
    assert new["api_key"].startswith(new["prefix"])
    assert new["created_by"] == owner.id
    listed = await owner.call("GET", f"{path}/api-keys")
    one = await owner.call("GET", f"{path}/api-keys/{new['key_id']}")
    for answer in (listed, one, await owner.call("GET", path)):
        assert new["api_key"] not in answer.text
        assert made["api_key"] not in answer.text
    assert one.json() == listed.json()["items"][0]
    assert one.json() == {name: new[name] for name in one.json()}
    assert [item["scopes"] for item in listed.json()["items"]] == [["workflows:read"], ["*"], ["*"]]


async def test_scope_that_lacks_is_named_in_the_refusal(gateway, acme):
    owner, path, _ = acme
    key = (await _new(owner, path, scopes=["workflows:read"]))["api_key"]
    assert (await gateway.with_key(key, "GET", f"{path}/workflows")).status_code == 200
    refused = await gateway.with_key(key, "POST", f"{path}/workflows", json={})
    assert refused.status_code == 403
    problem = refused.json()
    assert problem["code"] == "missing_permission"
    assert "workflows:write" in problem["detail"]
    assert refused.headers["content-type"] == "application/problem+json"


async def test_events_take_a_key_with_their_scope(gateway, acme):
    owner, path, _ = acme
    event = {"type": "order.created", "data": {}}
    right = (await _new(owner, path, scopes=["events:write"]))["api_key"]
    wrong = (await _new(owner, path, scopes=["events:read", "workflows:*"]))["api_key"]
    assert (await gateway.with_key(right, "POST", f"{path}/events", json=event)).status_code == 202
    refused = await gateway.with_key(wrong, "POST", f"{path}/events", json=event)
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_permission")
    by_hand = await owner.call("POST", f"{path}/events", json=event)
    assert by_hand.status_code == 202


@pytest.mark.parametrize(
    ("change", "place", "code"),
    [
        ({"scopes": ["workflow:read"]}, "scopes[0]", "unknown_scope"),
        ({"scopes": []}, "scopes", "too_short"),
        ({"mode": "prod"}, "mode", "literal_error"),
        ({"name": ""}, "name", "too_short"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "in_the_past"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at", "timezone_aware"),
    ],
)
async def test_wrong_key_body_names_its_place(gateway, acme, change, place, code):
    owner, path, _ = acme
    body = {"name": "worker", "mode": "live"} | change
    answer = await owner.call("POST", f"{path}/api-keys", json=body)
    problem = answer.json()["problems"][0]
    assert (answer.status_code, problem["place"], problem["code"]) == (422, place, code)


async def test_key_makes_no_key_that_may_more_than_itself(gateway, acme):
    owner, path, _ = acme
    narrow = (await _new(owner, path, scopes=["keys:*", "workflows:*"]))["api_key"]

    async def make(key, **more):
        body = {"name": "x", "mode": "live"} | more
        return await gateway.with_key(key, "POST", f"{path}/api-keys", json=body)

    assert (await make(narrow, scopes=["workflows:read"])).status_code == 201
    for scopes in (["*"], ["events:write"], ["workflows:*", "members:read"]):
        answer = await make(narrow, scopes=scopes)
        assert (answer.status_code, answer.json()["code"]) == (403, "beyond_own_rights")
    rotated = await gateway.with_key(narrow, "POST", f"{path}/keys/rotate", json={"mode": "live"})
    assert rotated.json()["code"] == "beyond_own_rights"
    keys = (await owner.call("GET", f"{path}/api-keys")).json()["items"]
    full = next(key for key in keys if key["scopes"] == ["*"] and key["mode"] == "live")
    taken = await gateway.with_key(narrow, "POST", f"{path}/api-keys/{full['key_id']}/rotate")
    assert taken.json()["code"] == "beyond_own_rights"


async def test_test_key_makes_no_live_key(gateway, acme):
    _, path, made = acme
    test = made["test_api_key"]
    body = {"name": "x", "mode": "live", "scopes": ["workflows:read"]}
    answer = await gateway.with_key(test, "POST", f"{path}/api-keys", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "beyond_own_mode")
    rotate = {"mode": "live", "overlap_hours": 0}
    answer = await gateway.with_key(test, "POST", f"{path}/keys/rotate", json=rotate)
    assert answer.status_code == 403
    body |= {"mode": "test"}
    assert (await gateway.with_key(test, "POST", f"{path}/api-keys", json=body)).status_code == 201


async def test_two_keys_are_active_during_a_rotation_and_never_three(gateway, acme):
    owner, path, _ = acme
    old = await _new(owner, path, scopes=["workflows:read"])
    rotate = f"{path}/api-keys/{old['key_id']}/rotate"
    new = (await owner.call("POST", rotate, json={"overlap_hours": 1})).json()
    assert (new["name"], new["scopes"], new["replaces"]) == (
        "worker",
        ["workflows:read"],
        old["key_id"],
    )
    for key in (old, new):
        found = await gateway.with_key(key["api_key"], "GET", f"{path}/workflows")
        assert found.status_code == 200
    again = await owner.call("POST", rotate)
    assert (again.status_code, again.json()["code"]) == (409, "already_rotated")
    third = await owner.call("POST", f"{path}/api-keys/{new['key_id']}/rotate")
    assert (third.status_code, third.json()["code"]) == (409, "rotation_under_way")
    await owner.call("DELETE", f"{path}/api-keys/{old['key_id']}")
    gone = await gateway.with_key(old["api_key"], "GET", f"{path}/workflows")
    assert gone.json()["code"] == "unknown_api_key"
    third = await owner.call("POST", f"{path}/api-keys/{new['key_id']}/rotate")
    assert third.status_code == 201


async def test_old_keys_grace_ends(gateway, acme):
    owner, path, _ = acme
    old = await _new(owner, path)
    rotate = f"{path}/api-keys/{old['key_id']}/rotate"
    assert (await owner.call("POST", rotate, json={"overlap_hours": 0})).status_code == 201
    gone = await gateway.with_key(old["api_key"], "GET", path)
    assert (gone.status_code, gone.json()["code"]) == (401, "unknown_api_key")


async def test_key_that_expires_is_rotated_into_one_of_the_same_lifetime(gateway, acme):
    owner, path, _ = acme
    ends = now() + timedelta(days=10)
    old = await _new(owner, path, expires_at=ends.isoformat())
    new = (await owner.call("POST", f"{path}/api-keys/{old['key_id']}/rotate")).json()
    assert new["expires_at"] > old["expires_at"]
    kept = (await owner.call("GET", f"{path}/api-keys/{old['key_id']}")).json()
    assert kept["expires_at"] < old["expires_at"]  # its grace ends before it would have


async def test_expired_key_is_refused_even_when_it_was_just_used(gateway, acme):
    owner, path, _ = acme
    key = await _new(owner, path, expires_at=(now() + timedelta(days=1)).isoformat())
    assert (await gateway.with_key(key["api_key"], "GET", path)).status_code == 200
    sql = "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = %s"
    await gateway.sql(sql, key["key_id"])
    gateway.ports.keys.forget()
    assert (await gateway.with_key(key["api_key"], "GET", path)).status_code == 401


async def test_revoked_key_is_refused_at_once_here_and_within_a_second_elsewhere(
    gateway, acme, live_settings
):
    owner, path, _ = acme
    new = await _new(owner, path)
    async with running_gateway(live_settings) as other:
        for each in (gateway, other):
            assert (await each.with_key(new["api_key"], "GET", path)).status_code == 200
        revoked = await owner.call("DELETE", f"{path}/api-keys/{new['key_id']}")
        assert revoked.status_code == 204
        elsewhere = asyncio.create_task(
            refused_within(lambda: other.with_key(new["api_key"], "GET", path), 1.0)
        )
        here = await gateway.with_key(new["api_key"], "GET", path)
        assert (here.status_code, here.json()["code"]) == (401, "unknown_api_key")
        await elsewhere


async def test_last_way_into_a_workspace_without_owner_is_not_revoked(gateway):
    made = (await gateway.client.post(V1, json={"name": "Old", "email": "dev@acme.example"})).json()
    path = f"{V1}/{made['workspace_id']}"
    keys = (await gateway.with_key(made["api_key"], "GET", f"{path}/api-keys")).json()["items"]
    live = next(key["key_id"] for key in keys if key["mode"] == "live")
    answer = await gateway.with_key(made["api_key"], "DELETE", f"{path}/api-keys/{live}")
    assert (answer.status_code, answer.json()["code"]) == (409, "last_key")
    body = {"name": "second", "mode": "live"}
    await gateway.with_key(made["api_key"], "POST", f"{path}/api-keys", json=body)
    answer = await gateway.with_key(made["api_key"], "DELETE", f"{path}/api-keys/{live}")
    assert answer.status_code == 204


async def test_owner_may_revoke_every_key(gateway, acme):
    owner, path, _ = acme
    for key in (await owner.call("GET", f"{path}/api-keys")).json()["items"]:
        gone = await owner.call("DELETE", f"{path}/api-keys/{key['key_id']}")
        assert gone.status_code == 204
    assert (await owner.call("GET", f"{path}/api-keys")).json()["items"] == []


async def test_key_of_another_workspace_is_not_there(gateway, acme):
    owner, path, _ = acme
    key_id = (await _new(owner, path))["key_id"]
    stranger = await gateway.register()
    other = f"{V1}/{(await stranger.make_workspace())['workspace_id']}/api-keys/{key_id}"
    for answer in (
        await stranger.call("GET", other),
        await stranger.call("DELETE", other),
        await stranger.call("POST", f"{other}/rotate"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")
    assert (await owner.call("GET", f"{path}/api-keys/{key_id}")).status_code == 200


async def test_use_of_a_key_is_written_once_a_minute_at_most(gateway, acme):
    owner, path, _ = acme
    new = await _new(owner, path)
    sql = "SELECT last_used_at, xmin::text FROM api_keys WHERE id = %s"
    assert (await gateway.sql(sql, new["key_id"]))[0][0] is None
    versions = set()
    for _ in range(3):
        gateway.ports.keys.forget()
        await gateway.with_key(new["api_key"], "GET", path)
        versions.add((await gateway.sql(sql, new["key_id"]))[0])
    assert len(versions) == 1  # the row was written by the first use alone
    await gateway.sql(
        "UPDATE api_keys SET last_used_at = now() - interval '61 seconds' WHERE id = %s",
        new["key_id"],
    )
    gateway.ports.keys.forget()
    await gateway.with_key(new["api_key"], "GET", path)
    assert (await gateway.sql(sql, new["key_id"]))[0][0] > now() - timedelta(seconds=30)


async def test_keys_stay_good_for_events_while_the_database_is_away_and_unknown_ones_do_not(
    gateway, acme
):
    _, path, made = acme
    event = {"type": "order.created", "data": {}}
    first = await gateway.with_key(made["api_key"], "POST", f"{path}/events", json=event)
    assert first.status_code == 202
    await gateway.ports.pool.close()
    again = await gateway.with_key(made["api_key"], "POST", f"{path}/events", json=event)
    assert again.status_code == 202
    unknown = "nhood_sk_live_" + "x" * 43
    answer = await gateway.with_key(unknown, "POST", f"{path}/events", json=event)
    assert answer.status_code == 503
