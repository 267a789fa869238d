"""Replays through the whole product: what vendors see, what executions know, what kill -9 does."""

import os
import re
import signal

import httpx

from tests.product import steps_of, wait_for

WORKFLOW = {
    "name": "Two messages",
    "trigger": {"type": "webhook", "path": "/replayed"},
    "steps": [
        {"id": "first", "provider": "slack", "action": "send_message",
         "config": {"channel": "#a", "text": "first {{n}}"}},
        {"id": "second", "provider": "slack", "action": "send_message", "retry": 1,
         "config": {"channel": "#b", "text": "second {{n}} {{steps.first.output.ts}}"}},
    ],
}  # fmt: skip
DOWN = {"status": 200, "body": {"ok": False, "error": "channel_not_found"}}


def sandbox(workspace, method, path, **more):
    base = workspace.product.state.sandbox_url
    return workspace.client.request(method, f"{base}/_sandbox/{path}", **more)


def calls(workspace, text):
    """Messages whose text holds this, as the vendor got them."""
    got = sandbox(workspace, "GET", "received", params={"provider": "slack"}).json()
    return [item for item in got["items"] if text in str(item)]


def broken_run(workspace, mark):
    """A run whose second step failed."""
    fault = {"provider": "slack", "action": "send_message", "after": 1, "times": 1, "fault": DOWN}
    answer = sandbox(workspace, "POST", "faults", json=fault)
    assert answer.status_code == 201, answer.text
    execution = workspace.finished(workspace.post("/replayed", {"n": mark})["event_id"])
    sandbox(workspace, "DELETE", "faults")
    assert execution["status"] == "failed", execution
    return execution


def replay(workspace, **body):
    made = workspace.call("POST", f"{workspace.path}/replays", json=body)
    assert made.status_code == 201, made.text
    return ended(workspace, made.json()["replay_id"])


def ended(workspace, name):
    path = f"{workspace.path}/replays/{name}"

    def look():
        found = workspace.call("GET", path).json()
        going = {"running", "pending"} & set(found["executions"])
        return found if found["status"] == "finished" and not going else None

    return wait_for(look, "the replay's end", 60)


def items(workspace, found):
    path = f"{workspace.path}/replays/{found['replay_id']}/items"
    return workspace.call("GET", path).json()["items"]


def test_repair_calls_only_what_is_missing_and_repairing_twice_calls_nobody(workspace):
    workspace.save(WORKFLOW)
    workspace.connect("slack")
    execution = broken_run(workspace, "mark-one")
    one = {"execution_id": execution["execution_id"]}
    before = len(calls(workspace, "mark-one"))

    dry = replay(workspace, mode="dry", selection=one)
    report = items(workspace, dry)[0]["report"]
    answers = {name: step["answer"] for name, step in report["steps"].items()}
    assert answers == {"first": "recorded", "second": "would_call"}
    assert len(calls(workspace, "mark-one")) == before

    repaired = replay(workspace, mode="repair", selection=one)
    assert repaired["executions"] == {"succeeded": 1}
    assert len(calls(workspace, "mark-one")) == before + 1
    new = items(workspace, repaired)[0]["new_execution_id"]
    told = workspace.call("GET", f"{workspace.path}/executions/{new}").json()
    assert told["replay_of"] == execution["execution_id"]
    assert told["replay_id"] == repaired["replay_id"]
    keys = {name: step.get("effect_key") for name, step in steps_of(told).items()}
    assert keys["second"] == steps_of(execution)["second"]["effect_key"]

    again = replay(workspace, mode="repair", selection=one)
    assert again["executions"] == {"succeeded": 1}
    assert replay(workspace, mode="repair", selection={"execution_id": new})["executions"] == {}
    assert len(calls(workspace, "mark-one")) == before + 1


def test_force_calls_again_only_when_it_is_confirmed(workspace):
    workspace.save(WORKFLOW)
    workspace.connect("slack")
    execution = workspace.finished(workspace.post("/replayed", {"n": "mark-two"})["event_id"])
    one = {"execution_id": execution["execution_id"]}
    assert len(calls(workspace, "mark-two")) == 2
    body = {"mode": "force", "selection": one, "from_step": "second"}
    made = workspace.call("POST", f"{workspace.path}/replays", json=body).json()
    assert made["status"] == "awaiting_confirmation"
    path = f"{workspace.path}/replays/{made['replay_id']}/confirm"
    confirmed = workspace.call("POST", path, json={"confirmation": made["confirmation"]})
    assert confirmed.status_code == 200, confirmed.text
    done = ended(workspace, made["replay_id"])
    assert done["executions"] == {"succeeded": 1}
    assert len(calls(workspace, "mark-two")) == 3
    assert len(calls(workspace, "second mark-two")) == 2


def test_replay_survives_kill_9_of_the_gateway_that_works_on_it(workspace):
    workspace.save(WORKFLOW)
    workspace.connect("slack")
    events = [workspace.post("/replayed", {"n": f"mark-kill-{n}"})["event_id"] for n in range(12)]
    for event in events:
        workspace.finished(event)
    before = len(calls(workspace, "mark-kill"))
    body = {
        "mode": "repair", "selection": {"since": "2020-01-01T00:00:00Z"}, "rate_per_s": 2,
    }  # fmt: skip
    made = workspace.call("POST", f"{workspace.path}/replays", json=body).json()
    path = f"{workspace.path}/replays/{made['replay_id']}"

    def begun():
        found = workspace.call("GET", path).json()["items"]
        return found if found.get("skipped", 0) >= 2 else None

    wait_for(begun, "the replay to begin", 30)
    (gateway,) = [part for part in workspace.product.state.parts if part.name == "gateway"]
    os.kill(gateway.pid, signal.SIGKILL)

    def finished():
        try:
            found = workspace.call("GET", path)
        except httpx.HTTPError:
            return None  # the supervisor starts it again
        return found.json() if found.is_success and found.json()["finished_at"] else None

    done = wait_for(finished, "another process to end the replay", 90)
    assert done["items"] == {"skipped": 12}
    assert len(calls(workspace, "mark-kill")) == before


def test_operator_replays_by_the_command(workspace):
    workspace.save(WORKFLOW)
    workspace.connect("slack")
    execution = broken_run(workspace, "mark-cli")
    mine = ("--workspace", workspace.id, "--test")
    whose = ("--execution", execution["execution_id"])
    dry = workspace.product.nhood("replay", "start", *mine, *whose)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    name = re.search(r"rpl_\w+", dry.stdout)[0]
    shown = workspace.product.nhood("replay", "show", name, *mine, "--items")
    assert "would call 1" in shown.stdout
    done = workspace.product.nhood("replay", "start", *mine, *whose, "--mode", "repair")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 sent" in done.stdout
    forced = workspace.product.nhood("replay", "start", *mine, *whose, "--mode", "force")
    words = re.search(r"nhood (replay confirm .*)", forced.stdout)[1].split()
    confirmed = workspace.product.nhood(*words)
    assert confirmed.returncode == 0, confirmed.stdout + confirmed.stderr
    wrong = workspace.product.nhood("replay", "start", *mine, "--mode", "often")
    assert wrong.returncode == 1
    assert "dry, repair or force" in wrong.stderr
