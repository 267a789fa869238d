"""What a workflow may look like, and what is said when it does not."""

import json
from pathlib import Path

import pytest

from schemas.errors import InvalidInput, Problem
from schemas.plan import compile_workflow

EXAMPLES = Path(__file__).parents[3] / "examples"
TRIGGER = {"type": "webhook", "path": "/x"}


def call(**more: object) -> dict:
    return {"provider": "slack", "action": "send_message", **more}


def workflow(*steps: object, **more: object) -> dict:
    return {"name": "W", "trigger": TRIGGER, "steps": list(steps), **more}


def problems(document: object) -> list[Problem]:
    with pytest.raises(InvalidInput) as caught:
        compile_workflow(document, None)
    assert caught.value.code == "invalid_workflow"
    return list(caught.value.problems)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_examples_are_workflows(path):
    plan = compile_workflow(json.loads(path.read_text()), None)
    assert plan.order


def test_steps_without_ids_get_them_from_what_they_do():
    plan = compile_workflow(workflow(call(), call(), {"action": "jira.create_issue"}), None)
    assert plan.order == ("slack_send_message", "slack_send_message_2", "jira_create_issue")


@pytest.mark.parametrize(
    ("document", "place", "code"),
    [
        (7, "", "wrong_type"),
        ({"name": "W", "trigger": TRIGGER}, "steps", "missing_field"),
        (workflow(call(), name=""), "name", "wrong_type"),
        (workflow(call(), trigger={"type": "webhok"}), "trigger.type", "bad_choice"),
        (workflow(call(), trigger={"type": "webhook"}), "trigger.path", "missing_field"),
        (workflow(call(), trigger={"type": "webhook", "path": "/a?b"}), "trigger.path", "bad_path"),
        (workflow(call(), trigger={**TRIGGER, "batch": {}}), "trigger.batch.wait",
         "missing_field"),
        (workflow(call(), trigger={**TRIGGER, "batch": {"wait": 1, "size": 101}}),
         "trigger.batch.size", "out_of_range"),
        (workflow(call(), trigger={**TRIGGER, "debounce": {"wait": "25h"}}),
         "trigger.debounce.wait", "bad_duration"),
        (workflow(call(), trigger={**TRIGGER, "throttle": {"limit": 0, "per": "1m"}}),
         "trigger.throttle.limit", "out_of_range"),
        (workflow(call(), trigger={**TRIGGER, "debounce": {"wait": 1}, "batch": {"wait": 1}}),
         "trigger.batch", "conflict"),
        (workflow(call(), trigger={"type": "schedule", "cron": "* * * * *", "batch": {}}),
         "trigger.batch", "unknown_field"),
        (workflow(call(), trigger={"type": "schedule"}), "trigger.cron", "missing_field"),
        (workflow(call(), trigger={"type": "schedule", "cron": "daily"}), "trigger.cron",
         "bad_cron"),
        (workflow(call(), trigger={"type": "schedule", "cron": "0 0 30 2 *"}), "trigger.cron",
         "bad_cron"),
        (workflow(call(), trigger={"type": "schedule", "cron": "0 9 * * *", "timezone": "CEST+1"}),
         "trigger.timezone", "bad_timezone"),
        (workflow(call(), trigger={"type": "schedule", "cron": "0 9 * * *", "catch_up": "some"}),
         "trigger.catch_up", "bad_choice"),
        (workflow(call(), stps=[]), "stps", "unknown_field"),
        (workflow({"type": "delay"}), "steps[0].duration", "missing_field"),
        (workflow({"type": "delay", "duration": 1, "until": "{{a}}"}), "steps[0].duration",
         "missing_field"),
        (workflow({"type": "delay", "duration": "367d"}), "steps[0].duration", "bad_duration"),
        (workflow({"type": "delay", "duration": 0}), "steps[0].duration", "bad_duration"),
        (workflow({"type": "delay", "until": "tomorrow"}), "steps[0].until", "bad_time"),
        (workflow({"type": "delay", "until": "2026-12-24T08:00:00"}), "steps[0].until",
         "bad_time"),
        (workflow({"type": "delay", "seconds": 3}), "steps[0].seconds", "unknown_field"),
        (workflow({"id": "a"}), "steps[0].action", "missing_field"),
        (workflow(call(type="for_each")), "steps[0].items", "missing_field"),
        (workflow(call(items="lines")), "steps[0].items", "wrong_type"),
        (workflow(call(items="a {{lines}}")), "steps[0].items", "wrong_type"),
        (workflow(call(items="{{lines")), "steps[0].items", "bad_template"),
        (workflow(call(items={"a": 1})), "steps[0].items", "wrong_type"),
        (workflow(call(items=[0] * 1_001)), "steps[0].items", "too_many"),
        (workflow(call(items=[1], max_parallel=51)), "steps[0].max_parallel", "out_of_range"),
        (workflow(call(items=[1], on_item_error="halt")), "steps[0].on_item_error", "bad_choice"),
        (workflow(call(items=[1], max_paralel=2)), "steps[0].max_paralel", "unknown_field"),
        (workflow(call(max_parallel=2)), "steps[0].max_parallel", "unknown_field"),
        (workflow(call(items="{{steps.zz.output}}")), "steps[0]", "unknown_step"),
        (workflow(call(id="a b")), "steps[0].id", "bad_id"),
        (workflow(call(id="a"), call(id="a")), "steps[1].id", "same_id"),
        (workflow(call(config=[1])), "steps[0].config", "wrong_type"),
        (workflow(call(config={"a": "{{x"})), "steps[0].config", "bad_template"),
        (workflow(call(timeout="16m")), "steps[0].timeout", "bad_duration"),
        (workflow(call(timeout=0)), "steps[0].timeout", "bad_duration"),
        (workflow(call(retry={"max_attempts": 21})), "steps[0].retry.max_attempts", "out_of_range"),
        (workflow(call(retry={"tries": 1})), "steps[0].retry.tries", "unknown_field"),
        (workflow({"type": "wait_event", "event_type": "a"}), "steps[0].match", "missing_field"),
        (workflow({"type": "wait_event", "subject": "a"}), "steps[0].event_type", "missing_field"),
        (workflow({"type": "wait_event", "event_type": "nhood.x", "subject": "a"}),
         "steps[0].event_type", "invalid"),
        (workflow({"type": "wait_event", "event_type": "a", "match": {"a b": 1}}),
         "steps[0].match.a b", "bad_template"),
        (workflow({"type": "wait_event", "event_type": "a", "filter": "event."}),
         "steps[0].filter", "bad_condition"),
        (workflow({"type": "wait_event", "event_type": "a", "subject": "s", "then": "zz"}),
         "steps[0].then", "unknown_step"),
        (workflow({"type": "wait_event", "event_type": "a", "subject": "s", "then": "b",
                   "on_timeout": "continue"}, call(id="b")), "steps[0].on_timeout", "conflict"),
        (workflow({"type": "wait_event", "event_type": "a", "subject": "{{steps.zz.output}}"}),
         "steps[0]", "unknown_step"),
        (workflow(call(), timeout="367d"), "timeout", "bad_duration"),
        (workflow(call(deadline=0)), "steps[0].deadline", "bad_duration"),
        (workflow(call(order_key="k", retry={"max_delay": "16m"})), "steps[0].retry.max_delay",
         "bad_duration"),
        (workflow(call(on_error="stop")), "steps[0].on_error", "unknown_step"),
        (workflow(call(on_error=[])), "steps[0].on_error", "invalid"),
        (workflow(call(on_error=7)), "steps[0].on_error", "invalid"),
        (workflow(call(on_error="b"), call(id="a", on_error="b"), call(id="b")),
         "steps[1].on_error", "twice"),
        (workflow(call(id="a", on_error="b"), call(id="b", on_error="a")), "steps[0].depends_on",
         "cycle"),
        (workflow(call(compensate="undo")), "steps[0].compensate", "wrong_type"),
        (workflow(call(compensate={})), "steps[0].compensate.action", "missing_field"),
        (workflow(call(compensate={"action": "x", "on_error": "fail"})),
         "steps[0].compensate.on_error", "unknown_field"),
        (workflow(call(compensate={"action": "x", "config": {"a": "{{steps.zz.id}}"}})),
         "steps[0].compensate", "unknown_step"),
        (workflow(call(items=[1], compensate={"action": "x"})), "steps[0].compensate",
         "unknown_field"),
        (workflow(call(depends_on=["zz"])), "steps[0].depends_on", "unknown_step"),
        (workflow(call(config={"a": "{{steps.zz.output}}"})), "steps[0]", "unknown_step"),
        (workflow({"condition": "{{a}} ==", "then": ["b"]}, call(id="b")), "steps[0].condition",
         "bad_condition"),
        (workflow({"condition": "'{{a}}' == 'b'", "then": ["b"]}, call(id="b")),
         "steps[0].condition", "bad_condition"),
        (workflow({"condition": "true", "then": ["zz"]}), "steps[0].then", "unknown_step"),
        (workflow(*[call(id=f"s{n}") for n in range(501)]), "steps", "too_many"),
    ],
)  # fmt: skip
def test_problem_names_its_place(document, place, code):
    assert (place, code) in [(p.place, p.code) for p in problems(document)]


def test_all_problems_are_told_at_once():
    found = problems(
        {
            "trigger": {"type": "webhok"},
            "steps": [
                {"id": "a", "condition": "{{x} == 1", "then": "zz"},
                call(id="b", retry=99, depends_on=["q"]),
            ],
        }
    )
    assert {p.place for p in found} >= {
        "name",
        "trigger.type",
        "steps[0].condition",
        "steps[1].retry.max_attempts",
    }


def test_unknown_field_comes_with_a_suggestion():
    (problem,) = problems(workflow(call(confg={})))
    assert problem.mend == "Did you mean config?"


def test_cycle_is_told_with_its_way_round():
    (problem,) = problems(
        workflow(call(id="a", depends_on=["c"]), call(id="b", depends_on=["a"]),
                 call(id="c", depends_on=["b"]))
    )  # fmt: skip
    assert problem.code == "cycle"
    assert "→" in problem.message


def test_step_that_reads_its_own_output_waits_for_itself():
    (problem,) = problems(workflow(call(id="a", config={"t": "{{steps.a.output}}"})))
    assert problem.code == "cycle"


def test_step_that_depends_on_the_other_branch_can_never_run():
    (problem,) = problems(
        workflow(
            {"id": "c", "condition": "true", "then": ["a"], "else": ["b"]},
            call(id="a", depends_on=["b"]),
            call(id="b"),
        )
    )
    assert problem.code == "unreachable"


def test_step_after_nested_branches_follows_all_of_them():
    plan = compile_workflow(
        workflow(
            {"id": "c", "condition": "true", "then": ["d"], "else": ["x"]},
            {"id": "d", "condition": "true", "then": ["y"], "else": ["z"]},
            call(id="x"),
            call(id="y"),
            call(id="z"),
            call(id="after"),
        ),
        None,
    )
    assert set(plan.needs["after"].hard) == {"c", "d", "x", "y", "z"}
