"""What holds for every request: bodies, errors, Idempotency-Key."""

import asyncio
import json

import pytest

from control.api.border import Border
from control.app import build_app
from control.store import idempotency
from schemas.errors import DependencyDown
from schemas.topics import EVENTS

V1 = "/api/v1/workspaces"
ACME = {"name": "Acme", "email": "dev@acme.example", "plan": "free"}
WORKFLOW = {
    "name": "Hello",
    "trigger": {"type": "webhook", "path": "/hello"},
    "steps": [
        {"provider": "slack", "action": "send_message", "config": {"channel": "#x", "text": "hi"}}
    ],
}


async def _raw(client, body, **headers):
    headers = {"Content-Type": "application/json"} | headers
    return await client.post(V1, content=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"name": ', 400, "malformed_json"),
        (b'{"name": NaN}', 400, "malformed_json"),
        (b'{"name": "\xff"}', 400, "malformed_json"),
        (b'{"name": "\\ud800"}', 400, "malformed_json"),
        (b'{"name": "a\\u0000b"}', 422, "nul_character"),
        (b"[" * 200 + b"]" * 200, 422, "too_deep"),
        (b"[]", 422, "invalid_input"),
        (b"", 422, "invalid_input"),
        (b'"text"', 422, "invalid_input"),
    ],
)
async def test_unusable_body_is_told_as_a_problem(client, body, status, code):
    answer = await _raw(client, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("noun", ["api-keys", "executions", "replays", "workflows"])
async def test_address_with_a_nul_is_not_found(api, noun):
    answer = await api.call("GET", f"/{noun}/a%00b")
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")


async def test_body_of_another_type_is_told_which_one_to_send(client):
    form = "application/x-www-form-urlencoded"
    answer = await _raw(client, json.dumps(ACME).encode(), **{"Content-Type": form})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


async def test_body_over_the_bound_is_refused_declared_or_not(client):
    big = json.dumps(ACME | {"name": "x" * 1_100_000}).encode()

    async def chunks():
        for start in range(0, len(big), 65_536):
            yield big[start : start + 65_536]

    declared = await _raw(client, big)
    streamed = await client.post(V1, content=chunks(), headers={"Content-Type": "application/json"})
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_unknown_address_and_method_are_problems(client, api):
    missing = await client.get("/api/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "route_not_found")
    wrong = await client.delete(V1)
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"]


async def test_problem_has_the_members_of_rfc_9457(client):
    problem = (await _raw(client, b"{}")).json()
    assert problem["type"] == "urn:nhood:problem:invalid_input"
    assert problem["status"] == 422
    assert problem["title"]
    assert problem["instance"].startswith("urn:nhood:request:rq_")
    assert {item["place"] for item in problem["problems"]} == {"name", "email"}


async def test_unforeseen_error_says_nothing_but_its_number(client, api, monkeypatch):
    async def explode(*_):
        raise RuntimeError("secret inner workings")

    monkeypatch.setattr("control.api.workspaces.workspaces.get", explode)
    answer = await api.call("GET", "")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "inner workings" not in answer.text


async def test_database_that_is_away_is_a_503_with_retry_after(client, api, monkeypatch):
    await api.ports.pool.close()
    answer = await client.post(V1, json=ACME)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_same_key_and_request_is_done_once_and_answered_alike(client):
    first = await client.post(V1, json=ACME, headers={"Idempotency-Key": "sign-up-1"})
    again = await client.post(V1, json=ACME, headers={"Idempotency-Key": "sign-up-1"})
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]


async def test_kept_answer_is_sealed(client, ports):
    made = await client.post(V1, json=ACME, headers={"Idempotency-Key": "sign-up-2"})
    async with ports.pool.connection() as on:
        cursor = await on.execute("SELECT answer FROM idempotency_keys")
        answers = b"".join(bytes(row[0]) for row in await cursor.fetchall() if row[0])
    for name in ("api_key", "test_api_key", "webhook_secret"):
        assert made.json()[name].encode() not in answers


async def test_same_key_with_another_body_is_refused(api):
    key = {"Idempotency-Key": "one"}
    assert (await api.call("POST", "/workflows", WORKFLOW, headers=key)).status_code == 201
    answer = await api.call("POST", "/workflows", {**WORKFLOW, "name": "B"}, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_same_key_of_another_workspace_or_mode_is_another_key(api, other):
    key = {"Idempotency-Key": "shared"}
    live = {"Authorization": f"Bearer {api.workspace['api_key']}"}
    answers = [
        await api.call("POST", "/workflows", WORKFLOW, headers=key),
        await api.call("POST", "/workflows", WORKFLOW, headers=key | live),
        await other.call("POST", "/workflows", WORKFLOW, headers=key),
    ]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.json()["workflow_id"] for answer in answers}) == 3


async def test_requests_at_the_same_time_do_the_work_once(api):
    key = {"Idempotency-Key": "burst"}
    answers = await asyncio.gather(
        *(api.call("POST", "/workflows", WORKFLOW, headers=key) for _ in range(5))
    )
    codes = {answer.status_code for answer in answers}
    assert codes <= {201, 409}
    assert 201 in codes
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["code"] == "idempotency_in_progress"
    assert len((await api.call("GET", "/workflows")).json()["items"]) == 1


async def test_failed_request_frees_its_key(api):
    key = {"Idempotency-Key": "mended"}
    broken = await api.call("POST", "/workflows", {**WORKFLOW, "steps": []}, headers=key)
    assert broken.status_code == 422
    assert (await api.call("POST", "/workflows", WORKFLOW, headers=key)).status_code == 201


async def test_claim_whose_holder_died_is_taken_over_and_makes_the_same_things(api, ports):
    created = await api.call("POST", "/workflows", WORKFLOW, headers={"Idempotency-Key": "dead-1"})
    path = f"/workflows/{created.json()['workflow_id']}/execute"
    started = await api.call("POST", path, {"input": {}}, headers={"Idempotency-Key": "dead-2"})
    async with ports.pool.connection() as on:  # as if the process had died before keeping it
        await on.execute(
            "UPDATE idempotency_keys SET status = NULL, answer = NULL,"
            " created_at = now() - %s * interval '1 second'",
            (idempotency.CLAIM_S + 1,),
        )
    again = await api.call("POST", "/workflows", WORKFLOW, headers={"Idempotency-Key": "dead-1"})
    assert again.status_code == 201
    assert again.json()["workflow_id"] == created.json()["workflow_id"]
    restarted = await api.call("POST", path, {"input": {}}, headers={"Idempotency-Key": "dead-2"})
    assert restarted.json()["event_id"] == started.json()["event_id"]
    assert restarted.json()["execution_id"] == started.json()["execution_id"]


async def test_execute_with_a_key_writes_one_event(api):
    created = await api.call("POST", "/workflows", WORKFLOW)
    path = f"/workflows/{created.json()['workflow_id']}/execute"
    key = {"Idempotency-Key": "once"}
    first = (await api.call("POST", path, {"input": {}}, headers=key)).json()
    again = (await api.call("POST", path, {"input": {}}, headers=key)).json()
    assert first == again
    assert len(await api.bus.read(EVENTS, first["partition"], 0, 10)) == 1


@pytest.mark.parametrize("key", ["", "with space", "x" * 256])
async def test_unusable_key_is_refused(api, key):
    answer = await api.call("POST", "/workflows", WORKFLOW, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_idempotency_key")


async def test_old_answers_are_forgotten(api, ports):
    await api.call("POST", "/workflows", WORKFLOW, headers={"Idempotency-Key": "old"})
    async with ports.pool.connection() as on:
        await on.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
        assert await idempotency.forget_old(on) >= 1


async def test_answer_that_cannot_be_kept_is_given_all_the_same(api, ports, monkeypatch):
    async def away(*_):
        raise DependencyDown("The database does not answer.")

    monkeypatch.setattr(idempotency, "keep", away)
    key = {"Idempotency-Key": "unkept"}
    assert (await api.call("POST", "/workflows", WORKFLOW, headers=key)).status_code == 201


async def test_catalogue_needs_no_key_and_shows_params_and_connect_fields(client):
    listed = (await client.get("/api/v1/integrations")).json()["items"]
    by_slug = {item["slug"]: item for item in listed}
    assert {"slack", "salesforce", "jira", "zendesk"} <= by_slug.keys()
    zendesk = by_slug["zendesk"]
    assert [field["name"] for field in zendesk["connect"]] == ["subdomain"]
    actions = {action["action"]: action for action in by_slug["slack"]["actions"]}
    assert "channel" in actions["send_message"]["params"]["properties"]
    assert (await client.get("/api/v1/integrations/zendesk")).json() == zendesk
    unknown = await client.get("/api/v1/integrations/zendsk")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_provider")
    assert "zendesk" in unknown.json()["detail"]


async def test_openapi_describes_every_route_with_problems_and_security(client):
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            assert operation["tags"], (method, path)


async def test_client_that_hangs_up_in_its_body_is_survived(ports):
    told = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        told.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": V1,
        "raw_path": V1.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await Border(build_app(ports), ports)(scope, receive, send)
    assert told == []
