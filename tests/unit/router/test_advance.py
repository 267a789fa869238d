"""`advance` as tables: a workflow, results in, commands and the end out."""

import orjson
import pytest

from router.core.advance import advance, start
from router.core.state import StepResult, decode_state, encode_state
from tests.unit.router.tables import (
    FAILED,
    NOW,
    call,
    carried,
    ended,
    execution_with,
    ids,
    ok,
    plan_of,
)


def test_steps_without_depends_on_follow_each_other():
    plan = plan_of(call("a"), call("b"))
    first = start(plan, execution_with({}), NOW)
    assert ids(first) == ["a"]
    second = advance(plan, carried(first), "a", ok(), NOW)
    assert ids(second) == ["b"]
    last = advance(plan, carried(second), "b", ok(), NOW)
    assert ids(last) == []
    assert last.finished is not None
    assert last.finished.status == "succeeded"


def test_steps_that_wait_for_nothing_of_each_other_run_side_by_side():
    plan = plan_of(
        call("a", depends_on=[]), call("b", depends_on=[]), call("c", depends_on=["a", "b"])
    )
    first = start(plan, execution_with({}), NOW)
    assert ids(first) == ["a", "b"]
    assert carried(first).parallel
    one = advance(plan, carried(first), "a", ok(), NOW)
    assert ids(one) == []
    assert set(one.remember) == {"a"}
    both = advance(plan, carried(first).with_results(one.remember), "b", ok(), NOW)
    assert ids(both) == ["c"]
    assert not carried(both).parallel


@pytest.mark.parametrize(("priority", "chosen", "other"), [("high", "a", "b"), ("low", "b", "a")])
def test_condition_runs_the_chosen_branch_only(priority, chosen, other):
    plan = plan_of(
        {"id": "c", "condition": "{{t.p}} == 'high'", "then": ["a"], "else": ["b"]},
        call("a"),
        call("b"),
    )
    first = start(plan, execution_with({"t": {"p": priority}}), NOW)
    assert ids(first) == [chosen]
    told = ended(advance(plan, carried(first), chosen, ok(), NOW))
    assert told[other] == {"status": "skipped", "reason": "not_chosen"}
    assert told["c"] == {
        "status": "true" if chosen == "a" else "false",
        "operands": {"t.p": priority},
    }


def test_step_after_a_branching_follows_whichever_branch_ran():
    plan = plan_of(
        {"id": "c", "condition": "{{p}} == 1", "then": ["a"], "else": ["b"]},
        call("a"),
        call("b"),
        call("after"),
    )
    first = start(plan, execution_with({"p": 2}), NOW)
    assert ids(first) == ["b"]
    assert ids(advance(plan, carried(first), "b", ok(), NOW)) == ["after"]


def test_output_of_an_earlier_step_is_rendered_with_its_type():
    plan = plan_of(
        call("a"),
        call("b", config={"whole": "{{steps.a.output.n}}", "text": "n={{steps.a.output.n}}"}),
    )
    first = start(plan, execution_with({}), NOW)
    second = advance(plan, carried(first), "a", ok({"n": 7}), NOW)
    assert orjson.loads(second.commands[0].params.data) == {"whole": 7, "text": "n=7"}


def test_rendered_text_is_not_a_template_again():
    plan = plan_of(call("a", config={"text": "{{name}}"}))
    first = start(plan, execution_with({"name": "{{user.id}}"}), NOW)
    assert orjson.loads(first.commands[0].params.data) == {"text": "{{user.id}}"}


def test_missing_path_fails_the_step_and_names_the_path():
    plan = plan_of(call("a", config={"text": "{{customer.name}}"}), call("b"))
    first = start(plan, execution_with({"customer": {}}), NOW)
    assert ids(first) == []
    assert first.finished is not None
    assert first.finished.status == "failed"
    assert first.finished.error is not None
    assert first.finished.error.code == "missing_path"
    assert "customer.name" in first.finished.error.message
    assert ended(first)["b"] == {"status": "skipped", "reason": "upstream_failed"}


def test_default_stands_in_for_a_missing_path():
    plan = plan_of(call("a", config={"text": "{{customer.name | default('you')}}"}))
    first = start(plan, execution_with({}), NOW)
    assert orjson.loads(first.commands[0].params.data) == {"text": "you"}


def test_failed_step_keeps_what_follows_from_running_and_nothing_else():
    plan = plan_of(call("a", depends_on=[]), call("b", depends_on=[]), call("c", depends_on=["a"]))
    first = start(plan, execution_with({}), NOW)
    failed = advance(plan, carried(first), "a", FAILED, NOW)
    assert failed.finished is None
    last = advance(plan, carried(first).with_results(failed.remember), "b", ok(), NOW)
    assert last.finished is not None
    assert last.finished.status == "failed"
    assert last.finished.error is not None
    assert last.finished.error.code == "channel_not_found"
    assert ended(last)["b"]["status"] == "succeeded"
    assert ended(last)["c"] == {"status": "skipped", "reason": "upstream_failed"}


def test_on_error_continue_lets_the_next_step_run():
    plan = plan_of(
        call("a", on_error="continue"), call("b", config={"t": "{{steps.a.error.code}}"})
    )
    first = start(plan, execution_with({}), NOW)
    second = advance(plan, carried(first), "a", FAILED, NOW)
    assert orjson.loads(second.commands[0].params.data) == {"t": "channel_not_found"}
    last = advance(plan, carried(second), "b", ok(), NOW)
    assert last.finished is not None
    assert last.finished.status == "succeeded"


def test_step_that_reads_an_output_waits_for_it():
    plan = plan_of(
        {"id": "c", "condition": "true", "then": ["a"]},
        call("a"),
        call("b", depends_on=["c"], config={"k": "{{steps.a.output.key}}"}),
    )
    first = start(plan, execution_with({}), NOW)
    assert ids(first) == ["a"]
    second = advance(plan, carried(first), "a", ok({"key": "ED-1"}), NOW)
    assert orjson.loads(second.commands[0].params.data) == {"k": "ED-1"}


def test_effect_key_stays_the_same_and_differs_by_step():
    plan = plan_of(call("a", depends_on=[]), call("b", depends_on=[]))
    one, two = start(plan, execution_with({}), NOW), start(plan, execution_with({}), NOW + 5)
    assert [c.effect_key for c in one.commands] == [c.effect_key for c in two.commands]
    assert one.commands[0].effect_key != one.commands[1].effect_key


def test_condition_that_cannot_be_decided_fails_and_skips_its_branches():
    plan = plan_of({"id": "c", "condition": "{{nope}} == 1", "then": ["a"]}, call("a"))
    first = start(plan, execution_with({}), NOW)
    assert first.finished is not None
    assert ended(first)["a"] == {"status": "skipped", "reason": "upstream_failed"}
    assert first.finished.status == "failed"


def test_outputs_that_nobody_reads_any_more_are_not_carried():
    plan = plan_of(call("a"), call("b", config={"t": "{{steps.a.output.x}}"}), call("c"))
    first = start(plan, execution_with({}), NOW)
    second = advance(plan, carried(first), "a", ok({"x": 1}), NOW)
    assert carried(second).results["a"].output == {"x": 1}
    third = advance(plan, carried(second), "b", ok({"y": 2}), NOW)
    assert carried(third).results["a"].output is None
    assert carried(third).results["b"].output is None


def test_state_survives_its_own_encoding():
    execution = execution_with(
        {"a": [1, {"b": None}]},
        results={"s": StepResult("succeeded", {"k": 1}, None, "42"), "t": FAILED},
        parallel=True,
        traceparent="00-1-2-01",
    )
    assert decode_state(encode_state(execution), "ws_1", "ex_1", "wf_1", 1) == execution


def test_too_large_a_state_ends_the_execution_with_a_clear_error():
    plan = plan_of(call("a"), call("b"))
    first = start(plan, execution_with({"big": "x" * 7_000_000}), NOW)
    assert ids(first) == []
    assert first.finished is not None
    assert first.finished.error is not None
    assert first.finished.error.code == "state_too_large"
