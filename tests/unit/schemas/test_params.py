"""Params are checked with words that help, before and after templates are rendered."""

from typing import Any

import pytest

from schemas.params import PROBLEMS_MAX, ParamsChecker

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["channel"],
    "anyOf": [{"required": ["text"]}, {"required": ["blocks"]}],
    "additionalProperties": False,
    "properties": {
        "channel": {"type": "string", "minLength": 1, "description": "Where to post."},
        "text": {"type": "string", "maxLength": 5, "description": "What to say."},
        "blocks": {"type": "array", "items": {"type": "object", "required": ["type"]}},
        "level": {"type": "string", "enum": ["high", "low"]},
        "count": {"type": "integer", "minimum": 1},
        "users": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "mail": {"type": "string", "format": "email"},
    },
}
GOOD = {"channel": "c", "text": "hi"}


def _told(params: dict[str, Any], *, templated: bool = False) -> list[tuple[str, str]]:
    problems = ParamsChecker(SCHEMA).check(params, templated=templated)
    return sorted((problem.place, problem.code) for problem in problems)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (GOOD, []),
        ({"text": "hi"}, [("channel", "missing")]),
        ({"channel": "c"}, [("", "missing")]),
        ({**GOOD, "channel": 5}, [("channel", "wrong_type")]),
        ({**GOOD, "chanel": "c"}, [("chanel", "unknown_field")]),
        ({**GOOD, "text": "too long"}, [("text", "too_long")]),
        ({**GOOD, "level": "hihg"}, [("level", "not_allowed")]),
        ({**GOOD, "count": 0}, [("count", "invalid")]),
        ({**GOOD, "mail": "nobody"}, [("mail", "bad_format")]),
        ({**GOOD, "blocks": [{"type": "x"}, {}]}, [("blocks[1].type", "missing")]),
        ({**GOOD, "users": 5}, [("users", "invalid")]),
        (
            {"txt": "hi", "count": "x"},
            [
                ("", "missing"),
                ("channel", "missing"),
                ("count", "wrong_type"),
                ("txt", "unknown_field"),
            ],
        ),
    ],
)
def test_problems_are_told_all_at_once(params: dict[str, Any], told: list[tuple[str, str]]) -> None:
    assert _told(params) == told


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"channel": "{{c}}", "text": "{{t}}", "count": "{{n}}", "blocks": "{{b}}"}, []),
        ({"channel": "c", "text": "hello {{ name }}, how are you"}, []),
        ({**GOOD, "level": "{{l}}", "users": "{{u}}", "mail": "{{m}}@x"}, []),
        ({**GOOD, "blocks": [{"type": "{{t}}"}, "{{block}}"]}, []),
        ({**GOOD, "count": "about {{n}}"}, [("count", "wrong_type")]),
        ({**GOOD, "count": "{{a}}{{b}}"}, [("count", "wrong_type")]),
        ({"channel": "{{c}}"}, [("", "missing")]),
        ({"text": "{{t}}"}, [("channel", "missing")]),
        ({**GOOD, "chanel": "{{c}}"}, [("chanel", "unknown_field")]),
        ({**GOOD, "level": "hihg"}, [("level", "not_allowed")]),
    ],
)
def test_templates_excuse_only_what_they_may_become(
    params: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    assert _told(params, templated=True) == told


def test_problem_says_how_to_mend_it() -> None:
    problems = ParamsChecker(SCHEMA).check({"text": "hi", "chanel": "c"}, templated=False)
    mends = {problem.place: problem.mend for problem in problems}
    assert mends == {"channel": "Where to post.", "chanel": "Did you mean channel?"}


def test_number_of_problems_is_bounded() -> None:
    many = {**GOOD, "blocks": [{} for _ in range(PROBLEMS_MAX * 2)]}
    assert len(_told(many)) == PROBLEMS_MAX
