"""Conditions as tables: CEL over values, never over pasted text."""

import pytest

from schemas.condition import TEXT_MAX, ConditionError, compile_condition
from schemas.template import walk

PAYLOAD = {"ticket": {"priority": "high", "n": 5, "f": 5.5, "none": None}, "list": [1, 2]}


def decide(text: str, payload: object = PAYLOAD) -> bool:
    return compile_condition(text).decide(lambda reference: walk(payload, reference.path)).value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ticket.priority}} == 'high'", True),
        ('{{ticket.priority}} != "high"', False),
        ("{{ticket.n}} > 4 && {{ticket.f}} > 5", True),
        ("{{ticket.none}} == null", True),
        ("{{ticket.nope | default('x')}} == 'x'", True),
        ("{{ticket.priority}} in ['low', 'high']", True),
        ("size({{list}}) == 2", True),
        ("ticket.priority == 'high'", True),
        ("has(ticket.nope)", False),
        ("list.exists(each, each > 1)", True),
        ("{{ticket.priority}}.startsWith('hi')", True),
    ],
)
def test_condition_gives(text, value):
    assert decide(text) is value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{{ticket.nope}} == 1", "missing_path"),
        ("{{ticket.priority}}", "condition_not_boolean"),
        ("ticket.nope == 1", "missing_path"),
        ("nothing == 1", "condition_failed"),
    ],
)
def test_condition_that_cannot_be_decided_says_why(text, code):
    with pytest.raises(ConditionError) as caught:
        decide(text)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["==", "{{a}} = 1", "'{{a}}' == 'b'", "x" * (TEXT_MAX + 1)])
def test_unreadable_condition_is_refused(text):
    with pytest.raises(ConditionError):
        compile_condition(text)


def test_payload_cannot_inject_an_expression():
    payload = {"ticket": {"priority": "x' || true || 'x"}}
    assert decide("{{ticket.priority}} == 'high'", payload) is False


def test_decision_shows_its_operands():
    condition = compile_condition("{{ticket.n}} > 4 && ticket.f > 1.0")
    decision = condition.decide(lambda reference: walk(PAYLOAD, reference.path))
    assert decision.operands == {"ticket.n": 5, "ticket": PAYLOAD["ticket"]}


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        ("{{a}} == 1 && {{b}} == 2", "{{b}} == 2"),
        ("{{a}} == 2 && {{b}} == 2", "{{a}} == 2"),
        ("{{a}} == 1 && ({{b}} == 2 && {{a}} == 1)", "({{b}} == 2 && {{a}} == 1)"),
        ("{{a}} == 1 && {{b}} == 2 || {{b}} == 4", "{{a}} == 1 && {{b}} == 2 || {{b}} == 4"),
        ("{{c}} == 'x && y' && {{a}} == 2", "{{a}} == 2"),
        ("{{a}} == 2", "{{a}} == 2"),
    ],
)
def test_first_part_that_is_false_is_named(text, failing):
    condition = compile_condition(text)
    values = {"a": 1, "b": 3, "c": "x && y"}
    part, decision = condition.first_false(lambda reference: values[str(reference.path[0])])
    assert not decision.value
    assert part.source == failing
