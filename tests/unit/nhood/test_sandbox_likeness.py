"""Answers in the likeness of an example: new ids in the old form, what was sent laid over it."""

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhood.sandbox.likeness import alike, merged, overlaid, renamed, same_type

NOW_S = 1_767_312_000


@pytest.mark.parametrize(
    ("example", "form"),
    [
        (10_000, r"10003"),
        ("10000", r"10003"),
        ("ED-24", r"ED-27"),
        ("1503435956.000247", r"1767312000\.000003"),
        ("C0EAQDV4Z", r"C0[A-Z0-9]{7}"),
        ("00Q5e00000A1b2CEAR", r"00Q\d[a-z]\d{5}[A-Z]\d[a-z]\d[A-Z]{4}"),
        ("b9ff2384-d3b6-4d4e-9509-3ee19f607168", r"b9f[0-9a-f]{5}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    ],
)
def test_new_id_has_the_form_of_the_example(example: str | int, form: str) -> None:
    made = alike(example, 3, "slack/acme/messages", NOW_S)
    assert type(made) is type(example)
    assert re.fullmatch(form, str(made)), made


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_ids_of_different_things_differ(one: int, other: int) -> None:
    for example in ("C0EAQDV4Z", "00Q5e00000A1b2CEAR", 35436, "ED-24", "1503435956.000247"):
        same = alike(example, one, "s", NOW_S) == alike(example, other, "s", NOW_S)
        assert same == (one == other)


@pytest.mark.parametrize(
    ("example", "sent", "made"),
    [
        ({"ok": True, "text": "a"}, {"text": "b", "x": 1}, {"ok": True, "text": "b"}),
        ({"t": {"id": 1, "s": "a"}}, {"t": {"s": "b", "x": {}}}, {"t": {"id": 1, "s": "b"}}),
        ({"c": {"id": "C", "name": "a"}}, {"name": "b"}, {"c": {"id": "C", "name": "b"}}),
        ({"id": 1, "subject": "a"}, {"ticket": {"subject": "b"}}, {"id": 1, "subject": "b"}),
        ({"p": {"id": "2", "n": "Low"}}, {"p": {"n": "High"}}, {"p": {"id": "2", "n": "High"}}),
        ({"tags": ["a"]}, {"tags": "b"}, {"tags": ["a"]}),
        ({"tags": ["a"]}, {"tags": ["b"]}, {"tags": ["b"]}),
        ({"due": None}, {"due": "2026-01-01"}, {"due": "2026-01-01"}),
        ({"n": 1}, {"n": {"deep": 1}}, {"n": 1}),
    ],
)
def test_what_was_sent_is_laid_over(example: Any, sent: Any, made: Any) -> None:
    before = copy.deepcopy(example)
    assert overlaid(example, sent) == made
    assert example == before


def test_further_fields_are_added_where_the_vendor_answers_them() -> None:
    assert overlaid({"Id": "1", "Name": "a"}, {"Name": "b", "City": "c"}, extend=True) == {
        "Id": "1",
        "Name": "b",
        "City": "c",
    }
    wrapped = overlaid({"ticket": {"id": 1, "s": "a"}}, {"ticket": {"s": "b", "t": 2}}, extend=True)
    assert wrapped == {"ticket": {"id": 1, "s": "b", "t": 2}}


def test_ids_are_replaced_wherever_they_stand() -> None:
    body = {
        "id": "10000",
        "key": "ED-24",
        "self": "https://x.example/rest/issue/10000",
        "count": 100_001,
        "parents": ["10000", "10000-1"],
    }
    names = {"id": ("10000", "10007"), "key": ("ED-24", "OPS-31")}
    assert renamed(body, names) == {
        "id": "10007",
        "key": "OPS-31",
        "self": "https://x.example/rest/issue/10007",
        "count": 100_001,
        "parents": ["10007", "10000-1"],
    }


def test_small_number_is_an_id_only_where_ids_stand() -> None:
    body = {"id": 1, "count": 1, "ticket_id": 1}
    assert renamed(body, {"id": (1, 7)}) == {"id": 7, "count": 1, "ticket_id": 7}


def test_update_is_laid_into_what_was_sent() -> None:
    assert merged({"t": {"a": 1, "b": 2}, "l": [1]}, {"t": {"b": 3}, "l": [2]}) == {
        "t": {"a": 1, "b": 3},
        "l": [2],
    }


def test_id_is_written_as_the_answer_writes_it() -> None:
    assert same_type("x", 7) == "7"
    assert same_type(1, "7") == 7
