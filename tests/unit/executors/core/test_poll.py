"""Looking for what is new: the first look tells nothing, each thing is told once."""

from datetime import UTC, datetime
from typing import Any

import pytest

from executors.core.poll import State, asked, looked, started
from schemas.errors import InvalidInput, NotFound
from schemas.polling import PollSpec, poll_of, polls_of
from schemas.provider import ProviderSpec, load_catalogue

CATALOGUE = load_catalogue()
NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
BEFORE = "2026-01-31T07:50:00Z"


def poll(slug: str, event: str) -> PollSpec:
    return poll_of(CATALOGUE.get(slug), event)


def tickets(*stamps: str) -> dict[str, Any]:
    return {"items": [{"id": n, "updated_at": at} for n, at in enumerate(stamps)]}


def told(found: Any) -> list[str]:
    return [item.id for item in found.items]


def test_newest_begins_a_little_before_now_and_sees_the_edge_again() -> None:
    spec = poll("freshdesk", "ticket_changed")
    assert asked(spec, {}, None, NOW).params["updated_since"] == BEFORE
    first = looked(spec, None, tickets("2026-01-31T07:55:00Z"), NOW)
    assert not first.items
    assert asked(spec, {}, first.state, NOW).params["updated_since"] == "2026-01-31T07:55:00Z"
    second = looked(spec, first.state, tickets("2026-01-31T07:55:00Z", "2026-01-31T07:55:00Z"), NOW)
    assert told(second) == ["1/2026-01-31T07:55:00Z"]
    third = looked(spec, second.state, tickets(*["2026-01-31T07:55:00Z"] * 2), NOW)
    assert not third.items
    changed = {"items": [{"id": 0, "updated_at": "2026-01-31T07:59:00Z"}]}
    assert told(looked(spec, third.state, changed, NOW)) == ["0/2026-01-31T07:59:00Z"]


def test_nothing_there_at_first_keeps_the_place_of_the_first_look() -> None:
    spec = poll("freshdesk", "ticket_changed")
    first = looked(spec, None, {"items": []}, NOW)
    assert first.state.cursor == BEFORE
    assert told(looked(spec, first.state, tickets("2026-01-31T07:59:00Z"), NOW)) == [
        "0/2026-01-31T07:59:00Z"
    ]


def test_oldest_are_told_first_and_long_numbers_are_compared_as_numbers() -> None:
    spec = poll("discord", "message_sent")
    state = started(spec, {"items": [{"id": "999"}]})
    assert asked(spec, {"channel_id": "1"}, state, NOW).params["after"] == "999"
    found = looked(spec, state, {"items": [{"id": "1001"}, {"id": "1000"}]}, NOW)
    assert told(found) == ["1000", "1001"]
    assert found.state.cursor == "1001"


def test_an_empty_channel_has_a_place_to_begin() -> None:
    spec = poll("discord", "message_sent")
    assert started(spec, {"items": []}).cursor == "0"


def test_things_inside_things_and_a_place_where_there_are_none() -> None:
    spec = poll("gmail", "message_received")
    state = started(spec, {"historyId": "7"})
    history = [
        {"id": "8", "messagesAdded": [{"message": {"id": "a"}}, {"message": {"id": "b"}}]},
        {"id": "9", "labelsAdded": []},
    ]
    found = looked(spec, state, {"history": history, "historyId": "12"}, NOW)
    assert told(found) == ["a", "b"]
    assert found.state.cursor == "9"
    assert looked(spec, found.state, {"historyId": "15"}, NOW).state.cursor == "15"


def test_a_page_of_a_feed_says_where_to_go_on() -> None:
    spec = poll("onedrive", "item_changed")
    state = State("t0")
    page = {
        "value": [{"id": "1", "cTag": "c1"}],
        "@odata.nextLink": "https://graph.microsoft.com/v1.0/drives/d/root/delta(token='t1')",
    }
    first = looked(spec, state, page, NOW)
    assert (told(first), first.state.cursor, first.more) == (["1/c1/"], "t1", True)
    last = {"value": [], "@odata.deltaLink": "https://graph.microsoft.com/v1.0/x/delta?token=t2"}
    assert looked(spec, first.state, last, NOW).state.cursor == "t2"


def test_rows_below_are_new_also_after_rows_were_taken_out() -> None:
    spec = poll("google_sheets", "row_added")

    def sheet(*names: str) -> dict[str, Any]:
        return {"values": [[name] for name in names]}

    first = looked(spec, None, sheet("head", "a"), NOW)
    assert not first.items
    second = looked(spec, first.state, sheet("head", "a", "b", "b"), NOW)
    assert [item.value for item in second.items] == [["b"], ["b"]]
    shorter = looked(spec, second.state, {"values": None}, NOW)
    assert (shorter.items, shorter.state.cursor) == ([], 0)
    assert told(looked(spec, shorter.state, sheet("head"), NOW)) == ["0"]


def test_a_list_without_names_tells_what_the_look_before_did_not_see() -> None:
    spec = poll("metabase", "row_added")
    first = looked(spec, None, {"data": {"rows": [[1, "a"], [2, "b"]]}}, NOW)
    assert not first.items
    second = looked(spec, first.state, {"data": {"rows": [[2, "b"], [3, "c"], [3, "c"]]}}, NOW)
    assert [item.value for item in second.items] == [[3, "c"]]


def test_more_of_one_time_than_a_look_can_hold_is_told() -> None:
    spec = poll("salesforce", "record_created")
    stamp = "2026-01-31T08:00:00.000+0000"
    records = {"records": [{"Id": str(n), "CreatedDate": stamp} for n in range(1000)]}
    full = looked(spec, State("2026-01-31T07:00:00Z"), records, NOW)
    assert (len(full.items), full.more) == (1000, True)
    question = asked(spec, {"object": "Lead"}, full.state, NOW).params["q"]
    assert "CreatedDate >= 2026-01-31T08:00:00.000Z ORDER" in question
    with pytest.raises(InvalidInput, match="same time") as caught:
        looked(spec, full.state, records, NOW)
    assert caught.value.code == "poll_stuck"


def test_an_answer_without_a_list_is_told() -> None:
    with pytest.raises(InvalidInput, match="no list"):
        looked(poll("freshdesk", "ticket_changed"), None, {"items": "x"}, NOW)


def test_state_is_read_as_it_was_written() -> None:
    state = State("c", frozenset({"a", "b"}))
    assert State.read(state.written()) == state


def test_unknown_events_are_told_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="row_added"):
        poll("metabase", "row_adde")
    with pytest.raises(NotFound, match="webhooks tell"):
        poll("github", "issues")


def _with(spec: ProviderSpec, **changes: Any) -> ProviderSpec:
    from dataclasses import replace

    polls = {"row_added": {**dict((spec.polls or {})["row_added"]), **changes}}
    return replace(spec, polls=polls)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"action": "append_rows"}, "more than read"),
        ({"action": "get_rang"}, "no action"),
        ({"newest": "${item.x}"}, "stands alone"),
        ({"with": {"range": "${params.tab}"}}, "not declared"),
        ({"example": {}}, "example"),
        ({"often": 1}, "not known"),
        ({"items": "${output.a"}, "never ends"),
    ],
)
def test_what_a_file_cannot_say_is_told(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        polls_of(_with(CATALOGUE.get("google_sheets"), **changes))
    assert "polls.row_added" in str(caught.value)
