"""What follows a failure: branches that take over, and compensation."""

import orjson
import pytest

from tests.unit.router.test_advance import FAILED, call, ended, ids, ok
from tests.unit.router.test_loops import Run, loop

UNDO = {"action": "delete_message", "config": {"ts": "{{steps.a.output.ts}}"}}


def test_steps_of_on_error_run_when_the_step_failed_and_deal_with_it():
    run = Run({}, call("a", on_error="rescue"), call("rescue"), call("z"))
    assert ids(run.give("a", FAILED)) == ["rescue"]
    assert ids(run.give("rescue", ok())) == ["z"]
    last = run.give("z", ok())
    assert last.finished.status == "succeeded"
    assert ended(last)["a"]["status"] == "failed"


def test_steps_of_on_error_are_skipped_when_the_step_succeeded():
    run = Run({}, call("a", on_error=["rescue"]), call("rescue"), call("z"))
    assert ids(run.give("a", ok())) == ["z"]
    last = run.give("z", ok())
    assert last.finished.status == "succeeded"
    assert ended(last)["rescue"] == {"status": "skipped", "reason": "not_chosen"}


def test_what_needs_the_failed_step_alone_is_skipped_and_what_comes_together_runs():
    run = Run(
        {},
        call("a", on_error="rescue"),
        call("rescue", depends_on=None),
        call("b", depends_on=["a"]),
        call("join", depends_on=["b", "rescue"]),
    )
    assert ids(run.give("a", FAILED)) == ["rescue"]
    assert ids(run.give("rescue", ok())) == ["join"]
    last = run.give("join", ok())
    assert last.finished.status == "succeeded"
    assert ended(last)["b"] == {"status": "skipped", "reason": "upstream_skipped"}


def test_rescue_that_fails_fails_the_execution_with_its_own_error():
    run = Run({}, call("a", on_error="rescue"), call("rescue"), call("z"))
    run.give("a", FAILED)
    last = run.give("rescue", FAILED)
    assert last.finished.status == "failed"
    assert last.finished.error.detail == "step rescue"
    assert ended(last)["z"] == {"status": "skipped", "reason": "upstream_failed"}


def test_rescue_reads_the_error():
    config = {"text": "{{steps.a.error.code}}: {{steps.a.error.message}}"}
    run = Run({}, call("a", on_error="rescue"), call("rescue", config=config))
    after = run.give("a", FAILED)
    assert orjson.loads(after.commands[0].params.data) == {
        "text": "channel_not_found: No such channel."
    }


def test_rescue_of_a_skipped_step_is_skipped():
    run = Run({}, call("first"), call("a", on_error="rescue"), call("rescue"))
    last = run.give("first", FAILED)
    assert ended(last)["rescue"] == {"status": "skipped", "reason": "upstream_failed"}


def test_loop_has_a_rescue_too():
    run = Run({"lines": [1]}, {**loop(), "on_error": "rescue"}, call("rescue"))
    last = run.after
    assert ids(last) == ["rescue"], "its only item cannot be rendered"


def test_what_was_done_is_undone_last_step_first_when_the_execution_fails():
    run = Run(
        {},
        call("a", compensate=UNDO),
        call("b", compensate={"action": "jira.delete_issue", "config": {"key": 1}}),
        call("c", compensate=UNDO),
    )
    run.give("a", ok({"ts": "17.1"}))
    run.give("b", ok())
    after = run.give("c", FAILED)
    (command,) = after.commands
    assert (command.step_id, command.provider) == ("b.compensate", "jira")
    after = run.give("b.compensate", ok())
    (command,) = after.commands
    assert (command.step_id, command.provider, command.action) == (
        "a.compensate", "slack", "delete_message",
    )  # fmt: skip
    assert orjson.loads(command.params.data) == {"ts": "17.1"}
    last = run.give("a.compensate", ok())
    assert (last.finished.status, last.finished.error.detail) == ("failed", "step c")
    told = ended(last)
    assert [told[name]["status"] for name in ("a.compensate", "b.compensate")] == ["succeeded"] * 2
    assert "c.compensate" not in told


def test_nothing_is_undone_when_the_execution_succeeds():
    run = Run({}, call("a", compensate=UNDO), call("b"))
    run.give("a", ok({"ts": "1"}))
    last = run.give("b", ok())
    assert last.finished.status == "succeeded"
    assert "a.compensate" not in ended(last)


def test_nothing_is_undone_when_the_error_was_dealt_with():
    run = Run({}, call("a", compensate=UNDO), call("b", on_error="rescue"), call("rescue"))
    run.give("a", ok({"ts": "1"}))
    run.give("b", FAILED)
    last = run.give("rescue", ok())
    assert (last.finished.status, last.commands) == ("succeeded", ())


@pytest.mark.parametrize("result", [FAILED, None])
def test_compensation_that_fails_does_not_keep_the_others_from_being_tried(result):
    config = {"ts": "{{steps.b.output.nothing}}"} if result is None else {}
    run = Run(
        {},
        call("a", compensate=UNDO),
        call("b", compensate={"action": "delete_message", "config": config}),
        call("c"),
    )
    run.give("a", ok({"ts": "1"}))
    run.give("b", ok({}))
    after = run.give("c", FAILED)
    if result is not None:
        assert ids(after) == ["b.compensate"]
        after = run.give("b.compensate", result)
    assert ids(after) == ["a.compensate"]
    last = run.give("a.compensate", ok())
    assert last.finished.error.detail == "step c"
    assert ended(last)["b.compensate"]["status"] == "failed"


def test_effect_of_a_compensation_has_a_key_of_its_own():
    run = Run({}, call("a", compensate=UNDO), call("b"))
    first = run.after.commands[0].effect_key
    run.give("a", ok({"ts": "1"}))
    after = run.give("b", FAILED)
    assert after.commands[0].effect_key not in (first, "")
