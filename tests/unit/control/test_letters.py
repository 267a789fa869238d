"""Names of dead letters, and the record that is sent again."""

import orjson
import pytest

from control.core.letters import read_name, shown_bytes
from control.core.pace import Pace
from control.deadletters import redriven
from schemas.errors import NotFound
from schemas.events import DeadLetter, Place
from schemas.incoming import read_event
from schemas.lineage import REDRIVEN_HEADER, origin, place_name
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


def test_place_name_gives_its_place_back():
    place = Place("nhood.steps.google-drive.v1", 3, 12)
    assert place_name(place) == "nhood.steps.google-drive.v1:3:12"
    assert read_name(place_name(place)) == place


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


def test_record_redriven_again_names_the_place_where_it_stood_first():
    record = redriven(letter(headers={REDRIVEN_HEADER: b"nhood.events.v1:0:1"}))
    assert list(record.headers) == [(REDRIVEN_HEADER, b"nhood.events.v1:0:1")]


def test_event_without_an_id_keeps_its_id_when_it_is_redriven():
    """Its id is made of its place: taken from the new one it would run as another event."""
    value = orjson.dumps({"workspace_id": "ws_" + "0" * 26, "type": "a"})
    first, later = Place(EVENTS, 2, 7), Place(EVENTS, 2, 90)
    headers = dict(redriven(letter(headers={}, value=value)).headers)
    envelope, _ = read_event(value, headers, origin(headers, later), 1)
    assert envelope.id == read_event(value, {}, first, 1)[0].id


@pytest.mark.parametrize("name", [b"\xff", b"nhood.results.v1:0:1", b"nhood.events.v1:0"])
def test_origin_that_is_none_of_its_topic_is_not_believed(name):
    place = Place(EVENTS, 1, 5)
    assert origin({REDRIVEN_HEADER: name}, place) == place


def test_pace_keeps_to_its_rate_and_lost_time_is_not_made_up_by_waiting():
    pace = Pace(10, 100.0)
    assert pace.wait_s(1, 100.0) == pytest.approx(0.1)
    assert pace.wait_s(5, 100.3) == pytest.approx(0.2)
    assert pace.wait_s(5, 107.0) == 0


def test_bytes_are_text_or_base64():
    assert shown_bytes(None) is None
    assert shown_bytes("ä".encode()) == {"text": "ä", "base64": None}
    assert shown_bytes(b"\xff\x00") == {"text": None, "base64": "/wA="}
    assert shown_bytes(b"a\x00") == {"text": None, "base64": "YQA="}
