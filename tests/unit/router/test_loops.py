"""`for_each` as tables: a list, results in, commands and the list of results out."""

import orjson
import pytest

from router.core import loops
from router.core.advance import Advance, advance, start
from router.core.state import STATE_BYTES_MAX, StepResult
from tests.unit.router.test_advance import (
    FAILED,
    NOW,
    call,
    carried,
    ended,
    execution_with,
    ok,
    plan_of,
)


def loop(items: object = "{{lines}}", **more: object) -> dict:
    config = {"text": "{{item.name}} {{loop.index}}/{{loop.count}}"}
    return call("l", items=items, config=config, **more)


def lines(count: int) -> dict:
    return {"lines": [{"name": f"n{number}"} for number in range(count)]}


def indexes(after: Advance) -> list[int]:
    return [command.loop_index for command in after.commands]


class Run:
    """An execution whose memory is kept as the router keeps it."""

    def __init__(self, payload: object, *steps: dict) -> None:
        self.plan = plan_of(*steps)
        self.after = start(self.plan, execution_with(payload), NOW)
        self.remembered: dict[str, StepResult] = {}
        self.state = carried(self.after) if self.after.commands else None

    def give(self, name: str, result: StepResult) -> Advance:
        known = self.state.with_results(self.remembered)
        self.after = advance(self.plan, known, name, result, NOW)
        self.remembered |= self.after.remember
        if self.after.commands:
            self.state = carried(self.after)
        return self.after


def test_items_run_one_after_the_other_by_default():
    run = Run(lines(3), loop())
    assert indexes(run.after) == [0]
    assert indexes(run.give("l#0", ok())) == [1]
    assert indexes(run.give("l#1", ok())) == [2]
    last = run.give("l#2", ok())
    assert last.finished.status == "succeeded"
    assert ended(last)["l"] == {
        "status": "succeeded",
        "items": {"total": 3, "succeeded": 3, "failed": 0},
    }


def test_each_item_has_its_own_params_and_effect_key():
    run = Run(lines(3), loop(max_parallel=3))
    params = [orjson.loads(command.params.data) for command in run.after.commands]
    assert params == [{"text": "n0 0/3"}, {"text": "n1 1/3"}, {"text": "n2 2/3"}]
    assert len({command.effect_key for command in run.after.commands}) == 3
    assert [command.effect_key for command in run.after.commands] == [
        execution_with({}).effect_key("l", index) for index in range(3)
    ]


@pytest.mark.parametrize("policy", ["stop", "continue", "ignore"])
def test_no_more_items_are_under_way_than_wanted(policy):
    run = Run(lines(10), loop(max_parallel=3, on_item_error=policy))
    under_way = set(indexes(run.after))
    assert under_way == {0, 1, 2}
    done = set()
    while under_way:
        index = min(under_way)
        under_way.remove(index)
        done.add(index)
        after = run.give(f"l#{index}", ok())
        under_way |= set(indexes(after))
        assert len(under_way) <= 3
    assert done == set(range(10))
    assert run.after.finished is not None


def test_output_is_a_list_in_the_order_of_the_items():
    after = call("z", config={"all": "{{steps.l.output}}", "second": "{{steps.l.output[1].n}}"})
    run = Run(lines(3), loop(max_parallel=3), after)
    run.give("l#2", ok({"n": "two"}))
    run.give("l#0", ok({"n": "zero"}))
    last = run.give("l#1", ok({"n": "one"}))
    params = orjson.loads(last.commands[0].params.data)
    assert params == {"all": [{"n": "zero"}, {"n": "one"}, {"n": "two"}], "second": "one"}


def test_stop_begins_no_item_after_a_failed_one_and_lets_those_under_way_end():
    run = Run(lines(10), loop(max_parallel=2), call("z"))
    assert indexes(run.give("l#0", FAILED)) == []
    last = run.give("l#1", ok())
    assert last.finished.status == "failed"
    assert last.finished.error.code == "items_failed"
    assert ended(last)["l"]["items"] == {"total": 10, "succeeded": 1, "failed": 1}
    assert ended(last)["z"] == {"status": "skipped", "reason": "upstream_failed"}


def test_stop_runs_the_same_items_whichever_result_comes_first():
    """The item that is far ahead waits: else whether it runs would hang on who is quicker."""
    ran = []
    for order in ([1, 0, 2], [0, 1, 2], [2, 1, 0]):
        run = Run(lines(10), loop(max_parallel=2))
        begun, left = set(indexes(run.after)), list(order)
        while left:
            index = next(each for each in left if each in begun)
            left.remove(index)
            after = run.give(f"l#{index}", FAILED if index == 1 else ok())
            begun |= set(indexes(after))
        assert run.after.finished is not None, order
        ran.append(begun)
    assert ran == [{0, 1, 2}] * 3


@pytest.mark.parametrize(("policy", "status"), [("continue", "failed"), ("ignore", "succeeded")])
def test_every_item_is_tried_where_the_policy_says_so(policy, status):
    tail = call("z", config={"all": "{{steps.l.output}}"}, depends_on=["l"])
    run = Run(lines(3), loop(on_item_error=policy, on_error="continue"), tail)
    assert indexes(run.give("l#0", FAILED)) == [1]
    assert indexes(run.give("l#1", ok({"n": 1}))) == [2]
    last = run.give("l#2", ok({"n": 2}))
    said = {"error": {"code": "channel_not_found", "message": "No such channel."}}
    assert orjson.loads(last.commands[0].params.data)["all"] == [said, {"n": 1}, {"n": 2}]
    assert ended(run.give("z", ok()))["l"]["status"] == status


def test_empty_list_gives_an_empty_list():
    run = Run({"lines": []}, loop(), call("z", config={"all": "{{steps.l.output}}"}))
    assert orjson.loads(run.after.commands[0].params.data) == {"all": []}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"lines": "abc"}, "not_a_list"),
        ({"lines": {"a": 1}}, "not_a_list"),
        ({}, "missing_path"),
        ({"lines": [0] * 1_001}, "too_many_items"),
    ],
)
def test_what_is_no_list_fails_the_step_with_a_reason(payload, code):
    run = Run(payload, loop())
    assert run.after.finished.error.code == code


def test_item_that_cannot_be_rendered_fails_without_a_call():
    run = Run({"lines": [{"name": "a"}, {}]}, loop())
    last = run.give("l#0", ok())
    assert ended(last)["l"]["items"] == {"total": 2, "succeeded": 1, "failed": 1}
    assert "item 1" in last.finished.error.message


def test_a_command_of_a_loop_does_not_grow_with_what_its_items_gave():
    run = Run(lines(50), loop(), call("z", config={"all": "{{steps.l.output}}"}))
    first = len(run.after.commands[0].state.data)
    for index in range(49):
        run.give(f"l#{index}", ok({"text": "x" * 1_000}))
    assert len(run.after.commands[0].state.data) == first
    assert set(run.remembered) == {f"l#{index}" for index in range(49)}


def test_list_of_outputs_is_bounded_by_cutting_the_large_ones(monkeypatch):
    monkeypatch.setattr(loops, "OUTPUTS_BYTES_MAX", 1_000)
    run = Run(lines(2), loop(), call("z", config={"all": "{{steps.l.output}}"}))
    run.give("l#0", ok({"text": "x" * 600}))
    assert run.remembered["l#0"].output is None
    last = run.give("l#1", ok({"text": "y"}))
    assert orjson.loads(last.commands[0].params.data) == {"all": [None, {"text": "y"}]}


def test_largest_list_fits_into_a_record():
    assert loops.OUTPUTS_BYTES_MAX < STATE_BYTES_MAX / 2


def test_outputs_that_nobody_reads_are_not_remembered():
    run = Run(lines(3), loop())
    run.give("l#0", ok({"text": "x"}))
    assert run.remembered["l#0"] == StepResult("succeeded")


def test_nothing_of_a_loop_rides_once_it_is_over():
    run = Run(lines(2), loop(), call("z"))
    run.give("l#0", ok({"n": 1}))
    run.give("l#1", ok({"n": 1}))
    assert not run.state.parallel
    assert set(run.state.results) == {"l"}
    assert run.state.results["l"].counts == (2, 2, 0)
    assert ended(run.give("z", ok()))["l"]["items"] == {"total": 2, "succeeded": 2, "failed": 0}
