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
