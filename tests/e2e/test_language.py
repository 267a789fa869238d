"""Parts of the workflow language through the running product: loops, cancellations."""

import pytest

from tests.product import Workspace, wait_for


def received(workspace: Workspace, channel: str) -> list[str]:
    """The texts that the sandbox's Slack got for a channel, in their order."""
    address = f"{workspace.product.state.sandbox_url}/_sandbox/received"
    bodies: list[dict] = []
    since = 0
    while True:
        wanted = {"provider": "slack", "since": since, "limit": 200}
        shown = workspace.client.get(address, params=wanted).json()["items"]
        bodies += [each["body"] for each in shown if each["action"] == "send_message"]
        if not shown:
            return [body["text"] for body in bodies if body["channel"] == channel]
        since = shown[-1]["number"]


@pytest.mark.parametrize("parallel", [1, 4])
def test_loop_calls_for_every_item_and_gives_the_list(workspace, parallel):
    workspace.connect("slack")
    workspace.save({
        "name": "Invite", "trigger": {"type": "webhook", "path": "/invite"},
        "steps": [
            {"id": "each", "items": "{{people}}", "max_parallel": parallel,
             "provider": "slack", "action": "send_message",
             "config": {"channel": f"#each-{parallel}", "text": "{{loop.index}} {{item.name}}"}},
            {"id": "all", "provider": "slack", "action": "send_message",
             "config": {"channel": f"#all-{parallel}",
                        "text": "{{steps.each.output[4].message.text}}"}},
        ],
    })  # fmt: skip
    people = [{"name": name} for name in ("Ada", "Bob", "Cy", "Dee", "Eve")]
    execution = workspace.finished(workspace.post("/invite", {"people": people})["event_id"])
    assert execution["status"] == "succeeded", execution
    texts = received(workspace, f"#each-{parallel}")
    expected = ["0 Ada", "1 Bob", "2 Cy", "3 Dee", "4 Eve"]
    assert (texts if parallel == 1 else sorted(texts)) == expected
    assert received(workspace, f"#all-{parallel}") == ["4 Eve"]
    indexes = [e["step"]["loop_index"] for e in execution["timeline"]
               if e.get("step") and e["step"]["step_id"] == "each"]  # fmt: skip
    assert sorted(indexes) == [0, 1, 2, 3, 4]


def test_queued_steps_of_cancelled_executions_are_not_called(workspace):
    workspace.connect("slack")
    workflow_id = workspace.save({
        "name": "Queue", "trigger": {"type": "webhook", "path": "/queue"},
        "steps": [{"provider": "slack", "action": "send_message", "order_key": "one",
                   "timeout": "20s", "config": {"channel": "#queue", "text": "number {{n}}"}}],
    })  # fmt: skip
    sandbox = workspace.product.state.sandbox_url
    fault = {"provider": "slack", "action": "send_message", "times": 1, "fault": {"delay_ms": 4000}}
    assert workspace.client.post(f"{sandbox}/_sandbox/faults", json=fault).status_code == 201
    events = [workspace.post("/queue", {"n": n})["event_id"] for n in range(5)]
    for event in events:
        workspace.outcome(event)
    cancel = f"{workspace.path}/executions/cancel"

    def all_asked() -> bool:
        answer = workspace.call("POST", cancel, json={"workflow_id": workflow_id})
        assert answer.status_code == 202, answer.text
        return answer.json()["requested"] == 5

    wait_for(all_asked, "the five executions to be seen", every=0.01)
    ended = [workspace.finished(event) for event in events]
    assert {execution["status"] for execution in ended} == {"cancelled"}
    assert workspace.call("POST", cancel, json={"workflow_id": workflow_id}).json() == {
        "requested": 0,
        "remaining": 0,
    }
    # A later step of the lane shows that all before it were looked at.
    last = workspace.finished(workspace.post("/queue", {"n": 99})["event_id"])
    assert last["status"] == "succeeded", last
    assert received(workspace, "#queue") == ["number 0", "number 99"]


def statuses(execution: dict) -> dict[str, str]:
    return {e["step"]["step_id"]: e["step"]["status"] for e in execution["timeline"]
            if e.get("step")}  # fmt: skip


def test_what_was_done_is_undone_and_an_error_that_is_dealt_with_is_none(workspace):
    workspace.connect("slack")
    announce = {"id": "announce", "provider": "slack", "action": "send_message",
                "config": {"channel": "#undo", "text": "We have {{name}}"}}  # fmt: skip
    undo = {
        "action": "delete_message",
        "config": {
            "channel": "{{steps.announce.output.channel}}",
            "ts": "{{steps.announce.output.ts}}",
        },
    }
    fails = {
        "id": "file",
        "action": "jira.create_issue",
        "config": {  # nobody connected Jira
            "project": "P",
            "issue_type": "Task",
            "summary": "{{name}}",
        },
    }
    tell = {"id": "tell", "provider": "slack", "action": "send_message", "config": {
        "channel": "#undo", "text": "not filed: {{steps.file.error.code}}"}}  # fmt: skip
    for path, steps in (
        ("/undone", [{**announce, "compensate": undo}, fails]),
        ("/rescued", [{**announce, "compensate": undo}, {**fails, "on_error": "tell"}, tell]),
    ):
        workspace.save({"name": path, "trigger": {"type": "webhook", "path": path}, "steps": steps})
    failed = workspace.finished(workspace.post("/undone", {"name": "Ada"})["event_id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "no_connection")
    assert statuses(failed) == {
        "announce": "succeeded",
        "file": "failed",
        "announce.compensate": "succeeded",
    }
    rescued = workspace.finished(workspace.post("/rescued", {"name": "Bob"})["event_id"])
    assert rescued["status"] == "succeeded", rescued
    assert statuses(rescued) == {"announce": "succeeded", "file": "failed", "tell": "succeeded"}
    assert received(workspace, "#undo")[-1] == "not filed: no_connection"


def test_webhook_that_is_delivered_twice_starts_once_and_says_so(workspace):
    workspace.connect("slack")
    workspace.save({
        "name": "Once", "trigger": {"type": "webhook", "path": "/once"},
        "steps": [{"provider": "slack", "action": "send_message",
                   "config": {"channel": "#once", "text": "order {{n}}"}}],
    })  # fmt: skip
    headers = {"webhook-id": f"msg-{workspace.id}"}
    first, second = (workspace.post("/once", {"n": 7}, headers=headers) for _ in range(2))
    assert first["event_id"] == second["event_id"]
    assert first["offset"] != second["offset"]
    assert workspace.finished(first["event_id"])["status"] == "succeeded"

    def both() -> bool:
        shown = workspace.call("GET", f"{workspace.path}/events/{first['event_id']}").json()
        return [place["offset"] for place in shown["repeats"]] == [second["offset"]]

    wait_for(both, "the second delivery's outcome")
    listed = workspace.call("GET", f"{workspace.path}/executions").json()["items"]
    assert len(listed) == 1
    assert received(workspace, "#once") == ["order 7"]
