"""The main job through the running product: HTTP in, Kafka, sandbox, timeline out."""

import hmac
import json
import re
import subprocess
import time

import orjson
import pytest
from confluent_kafka import Producer

from schemas.topics import EVENTS
from tests.product import ROOT, consent, steps_of, wait_for

CUSTOMER = {
    "customer": {
        "name": "Ada Lovelace",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "company": "AE",
        "email": "ada@example.com",
    }
}


def ticket(priority: str) -> dict:
    return {"ticket": {"priority": priority, "subject": "It burns", "description": "Smoke."}}


def test_welcome_new_customer_reaches_slack_and_salesforce(workspace):
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")
    receipt = workspace.post("/new-customer", CUSTOMER)
    assert receipt["topic"] == EVENTS
    execution = workspace.finished(receipt["event_id"])
    assert execution["status"] == "succeeded", execution
    steps = steps_of(execution)
    assert steps["slack_send_message"]["request"]["body"]["text"] == "New customer: Ada Lovelace"
    lead = steps["salesforce_create_lead"]
    assert lead["request"]["body"]["LastName"] == "Lovelace"
    assert lead["response"]["body"]["success"] is True
    assert lead["vendor_id"]
    assert lead["command_place"]["topic"] == "nhood.steps.salesforce.v1"


@pytest.mark.parametrize(
    ("priority", "ran", "skipped"),
    [("high", "create_jira", "create_zendesk"), ("low", "create_zendesk", "create_jira")],
)
def test_process_support_ticket_chooses_by_priority(workspace, priority, ran, skipped):
    workspace.save_example("process-support-ticket")
    workspace.connect("slack")
    workspace.connect("jira")
    workspace.connect("zendesk", subdomain="acme")
    receipt = workspace.post("/support-ticket", ticket(priority))
    execution = workspace.finished(receipt["event_id"])
    assert execution["status"] == "succeeded", execution
    steps = steps_of(execution)
    assert steps[ran]["status"] == "succeeded"
    assert steps["notify_slack"]["status"] == "succeeded"
    assert steps[skipped]["status"] == "skipped"
    assert steps[skipped]["reason"] == "not_chosen"


def test_plain_kafka_client_starts_a_workflow(workspace):
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")
    producer = Producer({"bootstrap.servers": workspace.product.kafka})
    body = {
        "workspace_id": workspace.id,
        "path": "/new-customer",
        "data": CUSTOMER,
        "id": "from-kafka",
    }
    places = []
    producer.produce(EVENTS, orjson.dumps(body), on_delivery=lambda _, m: places.append(m))
    producer.flush(10)
    found = wait_for(lambda: _executions(workspace), "the execution to appear")
    execution = workspace.call("GET", f"{workspace.path}/executions/{found[0]['execution_id']}",
                               params={"wait": 20}).json()  # fmt: skip
    assert execution["status"] == "succeeded", execution


def _executions(workspace) -> list:
    return workspace.call("GET", f"{workspace.path}/executions").json()["items"]


def test_broken_record_is_kept_aside_and_the_partition_goes_on(workspace):
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")
    producer = Producer({"bootstrap.servers": workspace.product.kafka, "partitioner": "murmur2"})
    good = {"workspace_id": workspace.id, "path": "/new-customer", "data": CUSTOMER}
    headers = [("ce_workspace", workspace.id.encode())]
    producer.produce(EVENTS, b"\xc3\x01 rubbish", partition=0, headers=headers)
    producer.produce(EVENTS, b'{"workspace_id": ', partition=0)
    producer.produce(EVENTS, orjson.dumps(good), partition=0)
    producer.flush(10)
    found = wait_for(lambda: _executions(workspace), "the good record to run")
    assert len(found) == 1


def test_broken_workflow_gets_every_error_with_its_place(workspace):
    broken = {
        "name": "Broken",
        "trigger": {"type": "webhok", "path": "/x"},
        "steps": [
            {"provider": "slack", "action": "send_mesage", "config": {}},
            {
                "provider": "slack",
                "action": "send_message",
                "config": {"chanel": "#a", "text": "x"},
            },
        ],
    }
    answer = workspace.call("POST", f"{workspace.path}/workflows", json=broken)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    body = answer.json()
    assert body["code"] == "invalid_workflow"
    places = {problem["place"] for problem in body["problems"]}
    assert {"trigger.type", "steps[0].action"} <= places
    assert any(place.startswith("steps[1].config") for place in places)
    assert any(
        "send_message" in problem["mend"] + problem["message"] for problem in body["problems"]
    )


def test_event_that_nobody_listens_to_has_its_outcome(workspace):
    workspace.save_example("welcome-new-customer")
    outcome = workspace.outcome(workspace.post("/nobody", {})["event_id"])
    assert outcome["outcome"] == "no_match"
    assert "/nobody" in outcome["reason"]


def test_same_delivery_twice_runs_once(workspace):
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")
    first = workspace.post("/new-customer", CUSTOMER, headers={"webhook-id": "delivery-1"})
    second = workspace.post("/new-customer", CUSTOMER, headers={"webhook-id": "delivery-1"})
    assert first["event_id"] == second["event_id"]
    workspace.finished(first["event_id"])
    assert len(_executions(workspace)) == 1


def test_step_without_a_connection_says_how_to_get_one(workspace):
    workspace.save_example("welcome-new-customer")
    execution = workspace.finished(workspace.post("/new-customer", CUSTOMER)["event_id"])
    assert execution["status"] == "failed"
    assert execution["error"]["code"] == "no_connection"
    assert "auth-url" in execution["error"]["message"]


def test_cancelled_execution_starts_no_further_step(workspace):
    workspace.connect("slack")
    workflow = {
        "name": "Slow",
        "trigger": {"type": "webhook", "path": "/slow"},
        "steps": [
            {"provider": "slack", "action": "send_message",
             "config": {"channel": "#slow", "text": "number {{n}}"}, "timeout": "10s"},
            {"provider": "slack", "action": "send_message",
             "config": {"channel": "#never", "text": "number {{n}}"}},
        ],
    }  # fmt: skip
    workspace.save(workflow)
    sandbox = workspace.product.state.sandbox_url
    fault = {"provider": "slack", "action": "send_message", "times": 1, "fault": {"delay_ms": 2000}}
    assert workspace.client.post(f"{sandbox}/_sandbox/faults", json=fault).status_code == 201
    receipt = workspace.post("/slow", {"n": 1})
    (execution,) = workspace.outcome(receipt["event_id"])["executions"]
    path = f"{workspace.path}/executions/{execution['execution_id']}"
    assert workspace.call("POST", f"{path}/cancel", json={"reason": "enough"}).status_code == 202
    ended = workspace.finished(receipt["event_id"])
    assert ended["status"] == "cancelled"

    def first_step_recorded() -> bool:
        found = steps_of(workspace.call("GET", path).json())
        return found.get("slack_send_message", {}).get("status") == "succeeded"

    wait_for(first_step_recorded, "the step under way to be recorded")
    steps = steps_of(workspace.call("GET", path).json())
    assert steps.get("slack_send_message_2", {}).get("status") not in ("succeeded", "failed")


def test_throttled_vendor_is_called_again_after_its_delay(workspace):
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")
    sandbox = workspace.product.state.sandbox_url
    answer = {
        "status": 429,
        "headers": {"retry-after": "1"},
        "body": {"ok": False, "error": "ratelimited"},
    }
    fault = {"provider": "slack", "action": "send_message", "times": 1, "fault": answer}
    assert workspace.client.post(f"{sandbox}/_sandbox/faults", json=fault).status_code == 201
    execution = workspace.finished(workspace.post("/new-customer", CUSTOMER)["event_id"])
    assert execution["status"] == "succeeded", execution
    attempts = steps_of(execution)["slack_send_message"]["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["throttled", "succeeded"]
    assert attempts[1]["waited_ms"] >= 1000


def test_no_secret_reaches_a_log(workspace):
    workspace.save_example("welcome-new-customer")
    workspace.connect("slack")
    workspace.connect("salesforce")
    workspace.finished(workspace.post("/new-customer", CUSTOMER)["event_id"])
    logs = workspace.product.logs()
    for secret in (workspace.key, workspace.secret, "xoxb-", "sandbox_secret"):
        assert secret not in logs


def test_readme_commands_work_as_written(workspace):
    text = (ROOT / "README.md").read_text()
    block = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[1]
    commands = [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl")]
    assert len(commands) == 5
    words = {"$URL": workspace.product.url}

    def run(command: str) -> dict:
        for name, value in words.items():
            command = command.replace(name, value)
        done = subprocess.run(["bash", "-c", f"{command} -sS"], capture_output=True, text=True,
                              check=True, cwd=ROOT, timeout=60)  # fmt: skip
        return json.loads(done.stdout)

    made = run(commands[0])
    words |= {"$WS": made["workspace_id"], "$KEY": made["test_api_key"]}
    assert run(commands[1])["version"] == 1
    consent(run(commands[2])["url"])
    consent(run(commands[2].replace('"slack"', '"salesforce"'))["url"])
    assert run(commands[3])["event_id"].startswith("ev_")

    def done() -> bool:
        items = run(commands[4])["items"]
        return bool(items) and items[0]["status"] == "succeeded"

    wait_for(done, "the execution of the README", every=0.3)


def test_vendors_own_webhook_starts_a_workflow_with_the_accounts_user(workspace):
    workspace.connect("slack", user="u7")
    listed = workspace.call("GET", f"{workspace.path}/connections").json()["items"]
    team = listed[0]["account_id"]
    workspace.save({
        "name": "Answer", "trigger": {"type": "provider", "provider": "slack", "event": "app_*",
                                      "filter": "{{channel}} == 'C1'"},
        "steps": [{"id": "answer", "provider": "slack", "action": "send_message",
                   "config": {"channel": "#general", "text": "You said {{text}}"}}],
    })  # fmt: skip
    made = workspace.call(
        "POST", f"{workspace.path}/webhook-endpoints", json={"provider": "slack", "secret": "shh"}
    ).json()
    event = {"type": "app_mention", "text": "hello", "channel": "C1"}
    body = orjson.dumps(
        {"type": "event_callback", "team_id": team, "event_id": "Ev1", "event": event}
    )
    now = str(int(time.time()))
    digest = hmac.digest(b"shh", b"v0:%b:%b" % (now.encode(), body), "sha256").hex()
    answer = workspace.client.post(
        made["url"],
        content=body,
        headers={"content-type": "application/json", "x-slack-request-timestamp": now,
                 "x-slack-signature": f"v0={digest}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text

    def started():
        items = workspace.call("GET", f"{workspace.path}/executions").json()["items"]
        return items[0] if items and items[0]["status"] == "succeeded" else None

    execution = wait_for(started, "the execution")
    assert execution["user_id"] == "u7"
    whole = workspace.call("GET", f"{workspace.path}/executions/{execution['execution_id']}").json()
    assert steps_of(whole)["answer"]["request"]["body"]["text"] == "You said hello"
