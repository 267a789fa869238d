"""A customer's log-in dies in the middle of things, through the running product."""

import httpx
from confluent_kafka import Consumer

from schemas import codec
from schemas.events import ConnectionChanged
from schemas.topics import CONNECTIONS
from tests.product import Workspace, steps_of, wait_for

WORKFLOW = {
    "name": "Greet",
    "trigger": {"type": "webhook", "path": "/greet"},
    "steps": [
        {
            "id": "greet",
            "provider": "slack",
            "action": "send_message",
            "config": {"channel": "#general", "text": "Hello {{name}}"},
        }
    ],
}


def connection_of(workspace: Workspace) -> dict:
    items = workspace.call("GET", f"{workspace.path}/connections").json()["items"]
    (found,) = [item for item in items if item["provider"] == "slack"]
    return found


def revoke_at_the_vendor(workspace: Workspace) -> None:
    """Take the grants back, as a customer does in Slack's settings."""
    url = workspace.product.state.sandbox_url
    fault = {"status": 200, "body": {"ok": False, "error": "token_revoked"}}
    script = {"provider": "slack", "action": "send_message", "fault": fault}
    assert httpx.post(f"{url}/_sandbox/faults", json=script).status_code == 201


def published(workspace: Workspace, connection: str) -> list[tuple[str | None, str]]:
    """The changes of a connection that stand on the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": workspace.product.kafka,
            "group.id": f"test-{connection}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([CONNECTIONS])
    found: list[tuple[str | None, str]] = []
    try:

        def look() -> bool:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                change = codec.decode_as(ConnectionChanged, message.value())
                if change.connection_id == connection:
                    found.append((change.before, change.after))
            return ("needs_reauth", "active") in found

        wait_for(look, "the changes on the topic", every=0)
    finally:
        consumer.close()
    return found


def test_step_waits_for_its_customer_and_goes_on_once_connected_again(workspace):
    workspace.save(WORKFLOW)
    workspace.connect("slack")
    made = connection_of(workspace)
    revoke_at_the_vendor(workspace)
    event_id = workspace.post("/greet", {"name": "Ada"})["event_id"]
    (execution,) = workspace.outcome(event_id)["executions"]
    path = f"{workspace.path}/executions/{execution['execution_id']}"

    def step():
        answer = workspace.call("GET", path)
        found = steps_of(answer.json()) if answer.status_code == 200 else {}
        return found["greet"] if found.get("greet", {}).get("status") == "waiting" else None

    waits = wait_for(step, "the step to wait")
    assert waits["reason"] == "needs_reauth"
    assert made["id"] in waits["error"]["message"]
    assert workspace.call("GET", path).json()["status"] == "running"
    assert connection_of(workspace)["state"] == "needs_reauth"
    later = workspace.post("/greet", {"name": "Grace"})["event_id"]
    workspace.connect("slack")
    for event, name in ((event_id, "Ada"), (later, "Grace")):
        execution = workspace.finished(event)
        assert execution["status"] == "succeeded", execution
        assert steps_of(execution)["greet"]["request"]["body"]["text"] == f"Hello {name}"
    assert connection_of(workspace) | {"state": "active"} == connection_of(workspace)
    events = workspace.call("GET", f"{workspace.path}/connections/{made['id']}/events").json()
    assert [item["after"] for item in events["items"]] == [
        "active", "needs_reauth", "refreshing", "active",
    ]  # fmt: skip
    assert published(workspace, made["id"]) == [
        (None, "active"),
        ("active", "refreshing"),
        ("refreshing", "needs_reauth"),
        ("needs_reauth", "active"),
    ]


def test_cancelled_execution_no_longer_waits(workspace):
    workspace.save(WORKFLOW)
    workspace.connect("slack")
    revoke_at_the_vendor(workspace)
    event_id = workspace.post("/greet", {"name": "nobody"})["event_id"]
    (execution,) = workspace.outcome(event_id)["executions"]
    path = f"{workspace.path}/executions/{execution['execution_id']}"

    def status():
        answer = workspace.call("GET", path)
        steps = steps_of(answer.json()) if answer.status_code == 200 else {}
        return steps.get("greet", {}).get("status")

    wait_for(lambda: status() == "waiting", "the step to wait")
    assert workspace.call("POST", f"{path}/cancel").status_code == 202
    assert workspace.finished(event_id)["status"] == "cancelled"
    workspace.connect("slack")
    later = workspace.post("/greet", {"name": "Grace"})["event_id"]
    assert workspace.finished(later)["status"] == "succeeded"
    assert status() == "not_run"
    sandbox = workspace.product.state.sandbox_url
    items = httpx.get(f"{sandbox}/_sandbox/received", params={"provider": "slack"}).json()["items"]
    texts = [item["body"]["text"] for item in items if item["action"] == "send_message"]
    assert texts.count("Hello nobody") == 1  # the call that was refused, and no other
