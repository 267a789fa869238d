"""What records change in the read tables; nothing is opened."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control.projections.executions import Changes, clean_json, step_status
from schemas.events import (
    CancelRequested,
    DeadLetter,
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    Place,
    StepFinished,
)

PLACE = Place("nhood.executions.v1", 3, 17)
HEAD = ("ws_1", "ex_1", "wf_1", 2)


def started(at_us=10, **changes):
    values = {"user": "cust_1", "generation": 0, "event_time_us": 5} | changes
    return ExecutionStarted(
        *HEAD,
        workflow_name="Welcome",
        mode="test",
        event_id="ev_1",
        event=Place("nhood.events.v1", 1, 4),
        at_us=at_us,
        **values,
    )


def finished(status="succeeded", at_us=20):
    return ExecutionFinished(*HEAD, "test", status, None, b'{"a":{"status":"succeeded"}}', at_us)


def step(outcome="succeeded", output=b"{}", **changes):
    values = {"step_id": "a", "loop_index": 0, "from_ledger": False} | changes
    return StepFinished(
        *HEAD,
        effect_key="e",
        provider="slack",
        action="send_message",
        outcome=outcome,
        output=Payload(output),
        output_cut=False,
        vendor_id=None,
        error=None,
        attempts=b"[]",
        request=Payload(b"{}"),
        response=Payload(b"{}"),
        connection_id=None,
        command=Place("nhood.steps.slack.v1", 0, 1),
        state=Payload(b""),
        requested_at_us=1,
        started_at_us=2,
        finished_at_us=3,
        **values,
    )


def taken(*records, strict=False):
    changes = Changes(strict=strict)
    for record in records:
        changes.take(PLACE, record)
    return changes


def test_start_and_end_of_an_execution_make_one_row():
    whole = taken(started(), finished()).executions["ex_1"].cells()
    assert whole[:7] == ("ex_1", "ws_1", "wf_1", 2, "test", "Welcome", "cust_1")
    assert whole[13:19] == (3, 17, None, None, None, None)  # it runs nothing once more
    assert whole[19:22] == ("succeeded", None, '{"a":{"status":"succeeded"}}')


def test_start_alone_is_running_and_end_alone_has_no_start():
    assert "running" in taken(started()).executions["ex_1"].cells()
    only_end = taken(finished("failed")).executions["ex_1"].cells()
    assert "failed" in only_end
    assert only_end[12] is None  # started_at


def test_first_of_repeated_records_wins():
    changes = taken(started(10), started(99), finished("failed", 20), finished("succeeded", 30))
    row = changes.executions["ex_1"].cells()
    assert row[12] == 10
    assert "failed" in row
    assert "succeeded" not in row
    assert len(taken(step(), step("rejected")).steps) == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("succeeded", "succeeded"),
        ("unknown", "unknown"),
        ("rejected", "failed"),
        ("throttled", "failed"),
        ("unavailable", "failed"),
        ("unauthorised", "failed"),
        ("something new", "failed"),
    ],
)
def test_outcome_becomes_a_status_and_never_a_false_success(outcome, status):
    assert step_status(outcome) == status
    assert taken(step(outcome)).steps["ex_1", "a", 0][6:8] == (status, outcome)


def test_steps_of_a_loop_are_rows_of_their_own():
    changes = taken(*(step(loop_index=n) for n in range(3)))
    assert sorted(key[2] for key in changes.steps) == [0, 1, 2]


def test_sealed_content_shows_only_its_key():
    sealed = replace(step(), output=Payload(b"\x01\x02ciphertext", key_id="key_9"))
    cells = taken(sealed).steps["ex_1", "a", 0]
    assert '{"sealed":"key_9"}' in cells
    assert not any("ciphertext" in cell for cell in cells if isinstance(cell, str))


def test_outcome_and_dead_letter_are_kept_by_their_place():
    outcome = EventOutcome(
        "ws_1",
        "ev_1",
        Place("nhood.events.v1", 2, 7),
        "matched",
        "",
        ["ex_1", "ex_2"],
        "t",
        None,
        "live",
        1,
        2,
    )
    letter = DeadLetter(
        Place("nhood.events.v1", 2, 8), None, b"x", {}, None, "router", "unreadable", "c", "r", 1, 3
    )
    changes = taken(outcome, outcome, letter, letter)
    assert list(changes.outcomes) == [(2, 7)]
    assert "ex_1,ex_2" in changes.outcomes[2, 7]
    assert list(changes.dead_letters) == [("nhood.events.v1", 2, 8)]


def test_records_that_are_not_shown_change_nothing():
    changes = taken(CancelRequested("ws_1", "ex_1", "", 1))
    assert changes == Changes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_cleaned_json_holds_no_nul_and_says_the_same_otherwise(value):
    try:
        data = orjson.dumps(value)
    except TypeError:  # a lone surrogate: no JSON
        return
    cleaned = clean_json(data)
    assert "\\u0000" not in cleaned.replace("\\\\", "")
    if b"\\u0000" not in data:
        assert orjson.loads(cleaned) == value


@given(st.binary())
def test_any_bytes_become_json(data):
    orjson.loads(clean_json(data))


def test_strict_changes_have_no_nul_anywhere():
    changes = taken(
        started(user="a\x00b"), step(output=b'{"a\\u0000": ["\\u0000"]}', step_id="s"), strict=True
    )
    cells = [*changes.executions["ex_1"].cells(), *next(iter(changes.steps.values()))]
    assert not any("\x00" in cell or "\\u0000" in cell for cell in cells if isinstance(cell, str))


@pytest.mark.parametrize("outcome", ["throttled", "unavailable", "unknown"])
def test_step_that_gave_up_is_a_dead_letter_at_its_commands_place(outcome):
    changes = Changes()
    changes.take(PLACE, replace(step(outcome), attempts=b'[{"number":1},{"number":2}]'))
    (letter,) = changes.dead_letters.values()
    assert letter[:6] == ("nhood.steps.slack.v1", 0, 1, "ws_1", "executors", "exhausted")
    assert letter[6] == outcome
    assert letter[8] == 2  # attempts


@pytest.mark.parametrize("outcome", ["succeeded", "rejected", "unauthorised"])
def test_step_with_an_answer_is_no_dead_letter(outcome):
    changes = Changes()
    changes.take(PLACE, step(outcome))
    assert changes.dead_letters == {}
