"""Workspaces, keys and secrets over HTTP."""

from dataclasses import replace

import httpx
import pytest

from control.app import build_app
from schemas.settings import Secret

V1 = "/api/v1/workspaces"
ACME = {"name": "Acme", "email": "dev@acme.example", "plan": "professional"}


async def test_sign_up_gives_keys_and_secret_of_the_promised_form(client):
    answer = await client.post(V1, json=ACME)
    assert answer.status_code == 201
    made = answer.json()
    assert made.keys() == {"workspace_id", "api_key", "test_api_key", "webhook_secret"}
    assert made["workspace_id"].startswith("ws_")
    assert made["api_key"].startswith("nhood_sk_live_")
    assert made["test_api_key"].startswith("nhood_sk_test_")
    assert made["webhook_secret"].startswith("whsec_")
    assert answer.headers["location"] == f"{V1}/{made['workspace_id']}"


async def test_workspace_shows_its_plan_settings_and_keys_but_no_secret(api):
    answer = await api.call("GET", "")
    shown = answer.json()
    assert (shown["name"], shown["plan"]) == ("Acme", "free")
    assert shown["settings"]["max_workflows"] == 20
    assert {key["mode"] for key in shown["keys"]} == {"live", "test"}
    for secret in ("api_key", "test_api_key", "webhook_secret"):
        assert api.workspace[secret] not in answer.text


async def test_keys_and_secrets_are_not_in_the_database_in_clear(api):
    async with api.ports.pool.connection() as on:
        for table in ("workspaces", "api_keys", "vault_keys", "idempotency_keys"):
            cursor = await on.execute(f"SELECT t::text FROM {table} t")
            text = str(await cursor.fetchall())
            for secret in ("api_key", "test_api_key", "webhook_secret"):
                assert api.workspace[secret] not in text
                assert api.workspace[secret].split("_")[-1] not in text


async def test_unknown_key_is_refused_with_a_challenge(client, api):
    for header in ({}, {"Authorization": "Bearer nhood_sk_live_" + "x" * 43}):
        answer = await client.get(api.base, headers=header)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_another_workspaces_key_is_told_nothing(api, other):
    foreign = await other.call("GET", api.base)
    missing = await other.call("GET", f"{V1}/ws_{'0' * 26}")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json()["code"] == missing.json()["code"] == "workspace_not_found"


async def test_changes_keep_what_they_do_not_name(api):
    change = {"webhook_url": "https://acme.example/hooks", "settings": {"max_workflows": 3}}
    assert (await api.call("PATCH", "", change)).status_code == 200
    domains = {"settings": {"custom_domains": ["App.Acme.example"]}, "name": "Acme Ltd"}
    shown = (await api.call("PATCH", "", domains)).json()
    assert shown["name"] == "Acme Ltd"
    assert shown["webhook_url"] == "https://acme.example/hooks"
    assert shown["settings"]["max_workflows"] == 3
    assert shown["settings"]["custom_domains"] == ["app.acme.example"]
    cleared = {"webhook_url": None, "settings": {"max_workflows": None}}
    shown = (await api.call("PATCH", "", cleared)).json()
    assert shown["webhook_url"] is None
    assert shown["settings"]["max_workflows"] == 20


@pytest.mark.parametrize(
    ("change", "place", "code"),
    [
        ({"nmae": "x"}, "nmae", "unknown_field"),
        ({"settings": {"max_workflow": 3}}, "settings.max_workflow", "unknown_field"),
        ({"settings": {"max_workflows": 1000}}, "settings.max_workflows", "over_plan"),
        ({"settings": {"custom_domains": ["no domain"]}}, "settings.custom_domains[0]", None),
        ({"webhook_url": "ftp://x"}, "webhook_url", "invalid"),
        ({"webhook_url": "https://user:pw@x.example/"}, "webhook_url", "invalid"),
        ({"name": None}, "body", "invalid"),
        ({"email": "nobody"}, "email", None),
    ],
)
async def test_wrong_changes_name_their_place(api, change, place, code):
    answer = await api.call("PATCH", "", change)
    assert answer.status_code == 422
    problem = answer.json()["problems"][0]
    assert problem["place"] == place
    assert code is None or problem["code"] == code


async def test_unknown_field_gets_a_suggestion(api):
    problem = (await api.call("PATCH", "", {"nmae": "x"})).json()["problems"][0]
    assert problem["mend"] == "Did you mean 'name'?"


async def test_rotated_key_works_on_for_the_overlap_and_no_longer(api):
    answer = await api.call("POST", "/keys/rotate", {"mode": "test", "overlap_hours": 1})
    assert answer.status_code == 201
    assert (await api.call("GET", "")).status_code == 200
    fresh = {"Authorization": f"Bearer {answer.json()['api_key']}"}
    assert (await api.call("GET", "", headers=fresh)).status_code == 200
    again = await api.call("POST", "/keys/rotate", {"mode": "test", "overlap_hours": 0})
    assert (await api.call("GET", "", headers=fresh)).status_code == 401
    newest = {"Authorization": f"Bearer {again.json()['api_key']}"}
    assert (await api.call("GET", "", headers=newest)).status_code == 200


async def test_rotation_of_one_mode_leaves_the_other_alone(api):
    await api.call("POST", "/keys/rotate", {"mode": "live", "overlap_hours": 0})
    assert (await api.call("GET", "")).status_code == 200


async def test_two_webhook_secrets_are_live_during_the_overlap(api):
    workspace = api.workspace["workspace_id"]
    rotated = (await api.call("POST", "/webhook-secret/rotate")).json()
    live = [secret.reveal() for secret in await api.ports.sealer.webhook_secrets(workspace)]
    assert live == [rotated["webhook_secret"], api.workspace["webhook_secret"]]
    last = (await api.call("POST", "/webhook-secret/rotate", {"overlap_hours": 0})).json()
    live = [secret.reveal() for secret in await api.ports.sealer.webhook_secrets(workspace)]
    assert live == [last["webhook_secret"]]


async def test_use_of_a_key_is_noted(api):
    keys = (await api.call("GET", "")).json()["keys"]
    used = {key["mode"]: key["last_used_at"] for key in keys}
    assert used["test"] is not None
    assert used["live"] is None


async def test_production_takes_the_operators_token_only(ports):
    async def sign_up(token, header):
        settings = replace(ports.settings, environment="production", signup_token=Secret(token))
        app = build_app(replace(ports, settings=settings))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.post(V1, json=ACME, headers=header)

    assert (await sign_up("", {})).json()["code"] == "sign_up_closed"
    assert (await sign_up("s3cret", {})).status_code == 401
    assert (await sign_up("s3cret", {"Authorization": "Bearer wrong"})).status_code == 401
    assert (await sign_up("s3cret", {"Authorization": "Bearer s3cret"})).status_code == 201
