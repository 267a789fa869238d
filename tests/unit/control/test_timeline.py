"""The story of an execution, from rows."""

from datetime import UTC, datetime, timedelta

import pytest

from control.core.timeline import declared_steps, milliseconds, timeline

T0 = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def at(ms):
    return T0 + timedelta(milliseconds=ms)


def execution(**changes):
    return {
        "status": "running",
        "error": None,
        "event_id": "ev_1",
        "event_partition": 0,
        "event_offset": 5,
        "event_time": at(0),
        "started_at": at(2),
        "finished_at": None,
        "outcome": None,
        "started_place": {"topic": "nhood.executions.v1", "partition": 0, "offset": 1},
        "finished_place": None,
    } | changes


def row(name, asked, *, status="succeeded", loop_index=0):
    empty = dict.fromkeys(
        (
            *("provider", "action", "outcome", "error", "output", "output_cut", "vendor_id"),
            *("request", "response", "connection_id", "effect_key", "command_place"),
            *("attempts", "result_place"),
        )
    )
    times = {"requested_at": at(asked), "started_at": at(asked + 1), "finished_at": at(asked + 4)}
    return {**empty, **times, "step_id": name, "loop_index": loop_index, "status": status}


DECLARED = {
    "check": {"condition": "{{n}} == 1"},
    "a": {"provider": "slack", "action": "send_message"},
    "b": {"provider": "jira", "action": "create_issue"},
}


def steps_of(entries):
    return [(e["step"]["step_id"], e["step"]["status"]) for e in entries if "step" in e]


def test_steps_stand_in_the_order_of_time_not_of_the_workflow():
    entries = timeline(execution(), [row("b", 10), row("a", 20)], None, DECLARED)
    assert steps_of(entries) == [("check", "pending"), ("b", "succeeded"), ("a", "succeeded")]


def test_finished_execution_says_what_conditions_decided_and_what_was_skipped():
    outcome = {
        "check": {"status": "false", "operands": {"n": 2}},
        "a": {"status": "skipped", "reason": "not_chosen"},
        "b": {"status": "succeeded"},
    }
    done = execution(status="succeeded", finished_at=at(30), outcome=outcome)
    entries = timeline(done, [row("b", 10)], None, DECLARED)
    assert steps_of(entries) == [("check", "succeeded"), ("a", "skipped"), ("b", "succeeded")]
    assert entries[2]["step"]["condition"] == {
        "text": "{{n}} == 1",
        "value": False,
        "operands": {"n": 2},
    }
    assert entries[-1]["kind"] == "execution_finished"


def test_cancelled_execution_shows_what_was_not_run():
    outcome = {"a": {"status": "succeeded"}, "b": {"status": "waiting"}}
    done = execution(status="cancelled", finished_at=at(30), outcome=outcome)
    entries = timeline(done, [row("a", 5)], None, {name: DECLARED[name] for name in ("a", "b")})
    assert steps_of(entries) == [("a", "succeeded"), ("b", "not_run")]


def test_steps_without_an_id_are_told_under_the_derived_one():
    step = {"provider": "slack", "action": "send_message", "config": {}}
    saved = {"name": "x", "trigger": {"type": "webhook", "path": "/x"}, "steps": [step]}
    (name,) = declared_steps(saved)
    assert steps_of(timeline(execution(), [], None, declared_steps(saved))) == [(name, "pending")]


def test_workflow_version_that_is_not_known_is_survived():
    assert steps_of(timeline(execution(), [row("a", 5)], None, {})) == [("a", "succeeded")]


def test_result_before_the_start_is_known_is_survived():
    early = execution(started_at=None, event_offset=None, started_place=None)
    assert timeline(early, [row("a", 5)], None, DECLARED) == []


def test_steps_of_a_loop_are_told_one_by_one():
    rows = [row("a", 5 + n, loop_index=n) for n in range(3)]
    told = [e["step"]["loop_index"] for e in timeline(execution(), rows, None, {}) if "step" in e]
    assert told == [0, 1, 2]


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [(at(0), at(1.5), 1.5), (None, at(1), None), (at(1), None, None), (at(5), at(5), 0.0)],
)
def test_durations_are_in_milliseconds(start, end, found):
    assert milliseconds(start, end) == found


def test_step_that_waits_for_its_customer_says_why_and_until_when():
    waits = {
        "step_id": "a",
        "loop_index": 0,
        "provider": "slack",
        "action": "send_message",
        "reason": "needs_reauth",
        "message": "Connect again.",
        "connection_id": "conn_1",
        "effect_key": "k",
        "requested_at": at(5),
        "parked_at": at(6),
        "deadline": at(99),
    }
    told = timeline(execution(), [], None, {"a": DECLARED["a"]}, [waits])
    (entry,) = [entry for entry in told if "step" in entry]
    assert (entry["step"]["status"], entry["step"]["reason"]) == ("waiting", "needs_reauth")
    assert entry["step"]["error"]["message"] == "Connect again."
    assert (entry["step"]["waits_since"], entry["step"]["waits_until"]) == (at(6), at(99))
    assert (entry["kind"], entry["at"], entry["place"]) == ("step", at(5), None)
    # Its end may be shown before its row is gone.
    ended = timeline(execution(), [row("a", 5)], None, {}, [waits])
    assert steps_of(ended) == [("a", "succeeded")]


@pytest.mark.parametrize(
    ("declared", "kind"),
    [({"type": "delay", "duration": "3d"}, "delay"), (DECLARED["a"], "action")],
)
def test_step_that_waits_says_for_what_and_until_when(declared, kind):
    waits = {"step_id": "a", "loop_index": 0, "kind": "retry", "detail": "attempt 3",
             "until_at": at(99), "at": at(7)}  # fmt: skip
    told = timeline(execution(), [], None, {"a": declared}, [waits])
    (entry,) = [entry for entry in told if "step" in entry]
    step = entry["step"]
    assert (step["type"], step["status"], step["reason"]) == (kind, "waiting", "retry")
    assert (step["waits_since"], step["waits_until"]) == (at(7), at(99))
    assert entry["at"] == at(7)
