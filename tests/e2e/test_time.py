"""Time through the running product: later attempts, waits for events, held events, schedules."""

import pytest

from tests.product import Workspace, steps_of, wait_for

SEND = {"provider": "slack", "action": "send_message"}


def message(text: str, **more: object) -> dict:
    return {**SEND, "config": {"channel": "#general", "text": text}, **more}


def hook(path: str, *steps: dict, **trigger: object) -> dict:
    return {
        "name": path,
        "trigger": {"type": "webhook", "path": path, **trigger},
        "steps": list(steps),
    }


def running(workspace: Workspace, event_id: str) -> dict:
    (execution,) = workspace.outcome(event_id)["executions"]
    return workspace.call("GET", f"{workspace.path}/executions/{execution['execution_id']}").json()


def waiting(workspace: Workspace, event_id: str, step: str) -> dict:
    def look() -> dict | None:
        found = steps_of(running(workspace, event_id)).get(step, {})
        return found if found.get("status") == "waiting" else None

    return wait_for(look, f"{step} to wait")


@pytest.mark.timeout(200)
def test_attempt_that_is_far_away_leaves_the_executor_and_comes_back(workspace):
    workspace.connect("slack")
    retry = {"max_attempts": 3, "delay": "62s", "max_delay": "62s"}
    workspace.save(hook("/later", message("hi", id="a", retry=retry)))
    sandbox = workspace.product.state.sandbox_url
    script = {**SEND, "times": 1, "fault": {"status": 503, "body": {"ok": False}}}
    assert workspace.client.post(f"{sandbox}/_sandbox/faults", json=script).status_code == 201
    event = workspace.post("/later", {})["event_id"]
    told = waiting(workspace, event, "a")
    assert told["reason"] == "retry"
    assert told["waits_for"].startswith("attempt 2 of 3 at ")
    execution = wait_for(
        lambda: found if (found := running(workspace, event))["status"] != "running" else None,
        "the second attempt",
        120,
        1,
    )
    step = steps_of(execution)["a"]
    assert (execution["status"], step["status"]) == ("succeeded", "succeeded")
    assert [attempt["number"] for attempt in step["attempts"]] == [1, 2]
    assert step["attempts"][1]["waited_ms"] >= 30_000


def test_approval_by_an_event_goes_on_where_it_waits(workspace):
    workspace.connect("slack")
    wait = {
        "id": "approval",
        "type": "wait_event",
        "event_type": "order.approved",
        "match": {"order.id": "{{order.id}}"},
        "timeout": "1h",
    }
    text = "approved by {{steps.approval.output.event.data.by}}"
    workspace.save(hook("/order", wait, message(text, id="tell")))
    event = workspace.post("/order", {"order": {"id": 7}})["event_id"]
    told = waiting(workspace, event, "approval")
    assert (told["type"], told["reason"]) == ("wait_event", "event")
    for number in (8, 7):
        body = {"type": "order.approved", "data": {"order": {"id": number}, "by": "Ada"}}
        answer = workspace.call("POST", f"{workspace.path}/events", json={"events": [body]})
        assert answer.status_code == 202, answer.text
    execution = workspace.finished(event)
    steps = steps_of(execution)
    assert execution["status"] == "succeeded", execution
    assert steps["tell"]["request"]["body"]["text"] == "approved by Ada"
    assert steps["approval"]["type"] == "wait_event"


def test_events_of_a_batch_are_one_execution(workspace):
    workspace.connect("slack")
    text = "{{count}}: {{events[0].n}}, {{events[1].n}}"
    workspace.save(
        hook("/many", message(text, id="tell"), batch={"size": 2, "wait": "1h", "key": "{{k}}"})
    )
    events = [workspace.post("/many", {"n": n, "k": "x"})["event_id"] for n in (1, 2)]
    for event in events:
        assert workspace.outcome(event)["reason"] == "/many: held back by its batch"

    def look() -> list:
        path = f"{workspace.path}/executions"
        return workspace.call("GET", path, params={"status": "succeeded"}).json()["items"]

    (found,) = wait_for(look, "the batch to end")
    told = workspace.call("GET", f"{workspace.path}/executions/{found['execution_id']}").json()
    assert steps_of(told)["tell"]["request"]["body"]["text"] in ("2: 1, 2", "2: 2, 1")


def test_schedule_runs_a_workflow(workspace):
    trigger = {"type": "schedule", "cron": "*/2 * * * * *", "timezone": "Europe/Berlin"}
    steps = [{"type": "delay", "id": "d", "until": "{{scheduled_at}}"}]
    workflow_id = workspace.save({"name": "Tick", "trigger": trigger, "steps": steps})

    def look() -> list | None:
        answer = workspace.call("GET", f"{workspace.path}/executions", params={"limit": 50})
        items = [item for item in answer.json()["items"] if item["status"] == "succeeded"]
        return items if len(items) >= 3 else None

    found = wait_for(look, "three ticks")
    assert workspace.call("DELETE", f"{workspace.path}/workflows/{workflow_id}").status_code < 300
    assert len({item["event_id"] for item in found}) == len(found)
