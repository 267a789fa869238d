"""Polls over the API: made, listed, paused, looked, deleted; only by their own workspace."""

from typing import Any

import pytest

from tests.integration.control.people_parts import V1
from wire.clock import mint

CHANNEL = {"channel_id": "290926798999357250"}


class Home:
    """A workspace, its key, and one connection."""

    def __init__(self, gateway: Any, body: dict[str, Any]) -> None:
        self.gateway = gateway
        self.workspace = body["workspace_id"]
        self.key = body["test_api_key"]
        self.live_key = body["api_key"]
        self.path = f"{V1}/{self.workspace}/polls"

    async def call(self, method: str, path: str = "", key: str = "", **more: Any) -> Any:
        headers = {"authorization": f"Bearer {key or self.key}"}
        return await self.gateway.client.request(
            method, f"{self.path}{path}", headers=headers, **more
        )

    async def connect(self, provider: str = "discord") -> str:
        name = mint("conn")
        async with self.gateway.ports.pool.connection() as on:
            await on.execute(
                "INSERT INTO connections (id, workspace_id, mode, provider, user_id, state)"
                " VALUES (%s, %s, 'test', %s, 'u1', 'active')",
                (name, self.workspace, provider),
            )
        return name

    async def make(self, **more: Any) -> Any:
        body = {"provider": "discord", "event": "message_sent", "params": CHANNEL}
        if "connection_id" not in more:
            body["connection_id"] = await self.connect()
        return await self.call("POST", json=body | more)

    async def row(self, poll: str, change: str) -> None:
        async with self.gateway.ports.pool.connection() as on:
            await on.execute(f"UPDATE polls SET {change} WHERE id = %s", (poll,))


async def home_of(gateway: Any) -> Home:
    made = await gateway.client.post(V1, json={"name": "A", "email": "a@b.example", "plan": "free"})
    made.raise_for_status()
    return Home(gateway, made.json())


@pytest.fixture
async def home(gateway: Any) -> Home:
    return await home_of(gateway)


async def test_poll_is_made_changed_and_deleted(home: Home) -> None:
    answer = await home.make(label="general")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    name = made["poll_id"]
    assert made["state"] == "starting"
    assert (made["every_seconds"], made["label"], made["found"]) == (60, "general", 0)
    changed = await home.call("PATCH", f"/{name}", json={"paused": True, "every_seconds": 600})
    assert (changed.json()["state"], changed.json()["every_seconds"]) == ("paused", 600)
    assert (await home.call("POST", f"/{name}/look")).json()["code"] == "paused"
    resumed = (await home.call("PATCH", f"/{name}", json={"paused": False})).json()
    assert (resumed["state"], resumed["label"]) == ("starting", "general")
    await home.row(name, "state = '{}', next_at = now() + interval '1 hour'")
    looking = await home.call("POST", f"/{name}/look")
    assert (looking.status_code, looking.json()["state"]) == (202, "active")
    await home.row(name, "error_code = 'http_403', error = 'Discord does not allow this.'")
    assert (await home.call("GET", f"/{name}")).json()["state"] == "failing"
    assert (await home.call("DELETE", f"/{name}")).status_code == 204
    assert (await home.call("GET", f"/{name}")).json()["code"] == "poll_not_found"


@pytest.mark.parametrize(
    ("change", "status", "code", "says"),
    [
        ({"provider": "discrod"}, 404, "unknown_provider", "discord"),
        ({"provider": "github"}, 404, "unknown_poll", "webhooks tell"),
        ({"event": "message_send"}, 404, "unknown_poll", "message_sent"),
        ({"params": {}}, 422, "invalid_params", "channel_id"),
        ({"params": {"channel_id": "general"}}, 422, "invalid_params", "channel_id"),
        ({"params": CHANNEL | {"limit": 3}}, 422, "invalid_params", "limit"),
        ({"params": CHANNEL | {"x": "y" * 20_000}}, 422, "too_long", "16384"),
        ({"every_seconds": 5}, 422, "invalid_input", "60"),
        ({"connection_id": "conn_nobody"}, 404, "connection_not_found", "conn_nobody"),
    ],
)
async def test_what_is_wrong_is_told(
    home: Home, change: dict[str, Any], status: int, code: str, says: str
) -> None:
    answer = await home.make(**change)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in answer.text


async def test_connection_of_another_provider_mode_or_workspace_is_none(home: Home) -> None:
    other = await home_of(home.gateway)
    for found in (await home.connect("slack"), await other.connect()):
        assert (await home.make(connection_id=found)).json()["code"] == "connection_not_found"
    mine = await home.connect()
    body = {"provider": "discord", "event": "message_sent", "params": CHANNEL}
    live = await home.call("POST", key=home.live_key, json=body | {"connection_id": mine})
    assert live.json()["code"] == "connection_not_found"


async def test_polls_of_others_are_not_there(home: Home) -> None:
    other = await home_of(home.gateway)
    name = (await home.make()).json()["poll_id"]
    for method, rest in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/look")):
        more = {"json": {"paused": True}} if method == "PATCH" else {}
        assert (await other.call(method, f"/{name}{rest}", **more)).status_code == 404
        live = await home.call(method, f"/{name}{rest}", key=home.live_key, **more)
        assert live.status_code == 404
    assert (await home.call("GET", f"/{name}")).json()["state"] == "starting"


async def test_pages(home: Home) -> None:
    made = [(await home.make()).json()["poll_id"] for _ in range(3)]
    first = (await home.call("GET", params={"limit": 2})).json()
    rest = (await home.call("GET", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert sorted(one["poll_id"] for one in first["items"] + rest["items"]) == sorted(made)
    assert rest["next_cursor"] is None
    none = await home.call("GET", params={"provider": "gmail"})
    assert none.json() == {"items": [], "next_cursor": None}


async def test_a_workspace_has_so_many(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.api.polls.POLLS_MAX", 1)
    assert (await home.make()).status_code == 201
    assert (await home.make()).json()["code"] == "too_many_polls"


async def test_workflow_may_wait_for_what_is_looked_for(home: Home) -> None:
    def workflow(provider: str, event: str) -> dict[str, Any]:
        step = {
            "id": "send", "type": "action", "provider": "discord", "action": "send_message",
            "config": CHANNEL | {"content": "hi"},
        }  # fmt: skip
        trigger = {"type": "provider", "provider": provider, "event": event}
        return {"name": "W", "trigger": trigger, "steps": [step]}

    path = f"{V1}/{home.workspace}/workflows"
    headers = {"authorization": f"Bearer {home.key}"}

    async def save(provider: str, event: str) -> Any:
        return await home.gateway.client.post(path, json=workflow(provider, event), headers=headers)

    for provider, event in (("discord", "message_sent"), ("metabase", "row_added")):
        answer = await save(provider, event)
        assert answer.status_code == 201, answer.text
    wrong = await save("metabase", "row_aded")
    assert wrong.status_code == 422
    assert "row_added" in wrong.text
