"""Dry replays: the same core with recorded answers; nobody is called."""

import orjson
import pytest

from router.core.rehearsal import PARAMS_SHOWN_MAX, rehearse
from schemas.events import Payload, Place, ReplayRequested
from schemas.plan import compile_workflow
from tests.unit.router.world import WS, call

BRANCHES = [
    call("a", config={"channel": "#x", "text": "{{n}}"}),
    {"id": "c", "condition": "{{steps.a.output.n}} > 3", "then": ["d"], "else": ["e"],
     "depends_on": ["a"]},
    call("d", config={"channel": "#x", "text": "{{steps.a.output.n}}"}),
    call("e"),
]  # fmt: skip
for _step in BRANCHES[2:]:
    del _step["depends_on"]


def plan_of(steps, **more):
    trigger = {"type": "webhook", "path": "/x"}
    return compile_workflow({"name": "W", "trigger": trigger, "steps": steps, **more}, None)


def request(data=None, results=None):
    return ReplayRequested(
        WS, "ex_1", "wf_1", 1, "rpl_1", "ex_0", 7, 1, 0, "ev_1", Place("t", 0, 0), 1, "test", "u",
        Payload(orjson.dumps(data or {"n": 1})), Payload(orjson.dumps(results or {})), 1,
    )  # fmt: skip


def good(output=None):
    return {"s": "succeeded", "o": output}


def test_recorded_answers_lead_where_they_led():
    report = rehearse(plan_of(BRANCHES), request(), {"a": good({"n": 5}), "d": good()})
    steps = report["steps"]
    assert (report["status"], report["would_call"]) == ("succeeded", 0)
    assert {name: step["status"] for name, step in steps.items()} == {
        "a": "succeeded", "c": "true", "d": "succeeded", "e": "skipped",
    }  # fmt: skip
    assert steps["d"]["request"] == {"channel": "#x", "text": 5}
    assert steps["c"]["operands"] == {"steps.a.output.n": 5}


def test_request_without_a_recording_is_told_as_would_call():
    report = rehearse(plan_of(BRANCHES), request(), {"a": good({"n": 1})})
    assert report["would_call"] == 1
    assert report["steps"]["e"]["answer"] == "would_call"
    assert report["steps"]["d"]["status"] == "skipped"
    assert report["status"] == "succeeded"  # nothing reads what nobody knows


def test_what_reads_an_answer_that_nobody_knows_is_not_certain():
    report = rehearse(plan_of(BRANCHES), request(), {})
    assert report["status"] == "undetermined"
    certain = {name: step["certain"] for name, step in report["steps"].items()}
    assert certain == {"a": True, "c": False, "d": False, "e": False}


def test_recorded_failure_would_be_called_again():
    failed = {"s": "failed", "e": {"code": "no", "message": "No."}}
    report = rehearse(plan_of([call("a"), call("b", "a")]), request(), {"a": failed})
    assert report["steps"]["a"]["answer"] == "would_call"
    assert report["steps"]["a"]["last_error"] == {"code": "no", "message": "No."}
    assert report["would_call"] == 2


def test_steps_that_are_to_be_done_again_would_be_called_with_their_known_answer():
    recorded = {"a": good({"n": 5}), "d": good()}
    report = rehearse(plan_of(BRANCHES), request(), recorded, {"a", "c", "d", "e"})
    assert report["would_call"] == 2
    assert report["steps"]["c"]["status"] == "true"
    assert report["status"] == "succeeded"


def test_other_input_changes_the_request():
    report = rehearse(plan_of(BRANCHES), request({"n": 9}), {"a": good({"n": 5}), "d": good()})
    assert report["steps"]["a"]["request"]["text"] == 9


def test_results_that_stay_are_not_asked_for():
    results = {"a": good({"n": 5})}
    report = rehearse(plan_of(BRANCHES), request(results=results), {})
    assert report["steps"]["a"]["answer"] == "recorded"
    assert report["would_call"] == 1


def test_items_of_a_loop_are_told_one_by_one():
    steps = [call("l", items=[1, 2, 3], config={"text": "{{item}}"})]
    report = rehearse(plan_of(steps), request(), {"l#0": good(), "l#2": good()})
    answers = {name: step.get("answer") for name, step in report["steps"].items() if "#" in name}
    assert answers == {"l#0": "recorded", "l#1": "would_call", "l#2": "recorded"}
    assert report["steps"]["l#1"]["request"] == {"text": 2}


def test_delay_is_over_at_once():
    steps = [{"id": "d", "type": "delay", "duration": "2d"}, call("b", "d")]
    report = rehearse(plan_of(steps), request(), {})
    assert report["steps"]["d"]["answer"] == "wait"
    assert report["steps"]["b"]["answer"] == "would_call"


def test_large_request_is_told_by_its_hash():
    steps = [call("a", config={"text": "x" * (PARAMS_SHOWN_MAX + 1)})]
    assert rehearse(plan_of(steps), request(), {})["steps"]["a"]["request"].keys() == {
        "sha256", "bytes",
    }  # fmt: skip


@pytest.mark.parametrize("template", ["{{nothing.here}}"])
def test_template_that_fails_is_told(template):
    report = rehearse(plan_of([call("a", config={"text": template})]), request(), {})
    assert (report["status"], report["would_call"]) == ("failed", 0)
    assert "nothing" in report["error"]["message"]
