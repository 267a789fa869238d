"""Names of dead letters, and the record that is sent again."""

import pytest

from control.core.letters import letter_name, read_name, shown_bytes
from control.deadletters import REDRIVEN_HEADER, redriven
from schemas.errors import NotFound
from schemas.events import DeadLetter, Place
from schemas.topics import EVENTS, PROGRESS


def letter(**more):
    known = {
        "original": Place(EVENTS, 2, 7),
        "key": b"k",
        "value": b"\xff\x00",
        "headers": {"ce_id": b"1"},
        "workspace_id": None,
        "stage": "router",
        "class_": "unreadable",
        "code": "not_json",
        "reason": "No.",
        "attempts": 1,
        "at_us": 1,
    }
    return DeadLetter(**(known | more))


def test_letter_name_gives_its_place_back():
    place = Place("nhood.steps.google-drive.v1", 3, 12)
    assert letter_name(place) == "nhood.steps.google-drive.v1:3:12"
    assert read_name(letter_name(place)) == place


@pytest.mark.parametrize(
    "name", ["", "a:b", "nhood.x:1", "nhood.x:-1:2", "other:1:2", "nhood.x:1:2 "]
)
def test_name_of_no_letter_is_not_found(name):
    with pytest.raises(NotFound) as caught:
        read_name(name)
    assert caught.value.code == "letter_not_found"


def test_redriven_record_is_the_original_and_names_its_letter():
    record = redriven(letter())
    assert (record.topic, record.key, record.value) == (EVENTS, b"k", b"\xff\x00")
    assert dict(record.headers) == {"ce_id": b"1", REDRIVEN_HEADER: b"nhood.events.v1:2:7"}
    assert record.partition is None  # the key says where


@pytest.mark.parametrize("more", [{"key": None}, {"original": Place(PROGRESS, 2, 7)}])
def test_record_whose_key_does_not_choose_goes_where_it_was(more):
    assert redriven(letter(**more)).partition == 2


def test_record_redriven_before_names_the_newest_letter_only():
    record = redriven(letter(headers={REDRIVEN_HEADER: b"nhood.events.v1:0:1"}))
    assert list(record.headers) == [(REDRIVEN_HEADER, b"nhood.events.v1:2:7")]


def test_bytes_are_text_or_base64():
    assert shown_bytes(None) is None
    assert shown_bytes("ä".encode()) == {"text": "ä", "base64": None}
    assert shown_bytes(b"\xff\x00") == {"text": None, "base64": "/wA="}
    assert shown_bytes(b"a\x00") == {"text": None, "base64": "YQA="}
