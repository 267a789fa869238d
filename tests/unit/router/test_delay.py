"""A delay: until when it lasts and what it gives."""

import pytest

from router.core.advance import advance, start
from router.core.state import StepResult
from tests.unit.router.tables import NOW, call, carried, execution_with, ids, ok, plan_of

DAY = 86_400_000_000


def delay(step_id: str = "d", **more: object) -> dict:
    return {"id": step_id, "type": "delay", **more}


@pytest.mark.parametrize(
    ("words", "payload", "after_us"),
    [
        ({"duration": "2s"}, {}, 2_000_000),
        ({"duration": 90}, {}, 90_000_000),
        ({"duration": "366d"}, {}, 366 * DAY),
        ({"duration": "{{n}}m"}, {"n": 5}, 300_000_000),
        ({"duration": "{{n}}"}, {"n": 5}, 5_000_000),
        ({"duration": "{{n}}"}, {"n": "5"}, 5_000_000),
        ({"until": "{{at}}"}, {"at": NOW / 1_000_000 + 7}, 7_000_000),
        ({"until": "{{at}}"}, {"at": "2000-01-01T00:00:00Z"}, 0),
    ],
)
def test_delay_lasts_as_long_as_it_says(words, payload, after_us):
    first = start(plan_of(delay(**words), call("b")), execution_with(payload), NOW)
    (pause,) = first.pauses
    assert pause.due_us == NOW + after_us
    assert ids(first) == []
    assert first.finished is None


@pytest.mark.parametrize(
    ("words", "payload"),
    [
        ({"duration": "{{n}}"}, {"n": "soon"}),
        ({"duration": "{{n}}"}, {"n": -1}),
        ({"duration": "{{n}}d"}, {"n": 367}),
        ({"until": "{{at}}"}, {"at": "2026-12-24"}),
        ({"until": "{{at}}"}, {"at": None}),
    ],
)
def test_delay_that_makes_no_sense_fails_the_step(words, payload):
    first = start(plan_of(delay(**words), call("b")), execution_with(payload), NOW)
    assert first.pauses == ()
    assert first.finished is not None
    assert first.finished.error is not None
    assert first.finished.error.code == "bad_delay"


def test_time_beyond_a_year_fails_by_a_result_and_not_by_the_clock():
    plan = plan_of(delay(until="{{at}}"))
    first = start(plan, execution_with({"at": NOW / 1_000_000 + 367 * 86_400}), NOW)
    (pause,) = first.pauses
    assert pause.due_us == NOW
    assert pause.error is not None
    assert pause.error[0] == "delay_too_long"


def test_step_after_a_delay_runs_when_its_result_comes():
    plan = plan_of(delay(duration=1), call("b", config={"t": "{{steps.d.output.until}}"}))
    first = start(plan, execution_with({}), NOW)
    assert carried(first).parallel is False
    after = advance(plan, carried(first), "d", ok({"until": "then"}), NOW)
    assert ids(after) == ["b"]


def test_delay_beside_a_call_is_set_once():
    plan = plan_of(
        call("a"), delay(duration="1d", depends_on=["a"]), call("b", depends_on=["a"]), call("c")
    )
    first = start(plan, execution_with({}), NOW)
    second = advance(plan, carried(first), "a", ok(), NOW)
    assert [pause.step_id for pause in second.pauses] == ["d"]
    assert ids(second) == ["b"]
    third = advance(plan, carried(second), "b", StepResult("succeeded"), NOW + DAY // 2)
    assert third.pauses == ()
    assert ids(third) == ["c"]
