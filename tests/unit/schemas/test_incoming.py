"""What a record on the events topic is read as, and what is said of one that cannot be read."""

import base64
from datetime import UTC, datetime

import orjson
import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import Envelope, Event, Payload, Place
from schemas.ids import derived_id, is_id
from schemas.incoming import EVENT_BYTES_MAX, event_id, read_event, workspace_hint

WS = "ws_" + "0" * 25 + "1"
WF = "wf_" + "0" * 25 + "2"
PLACE = Place("nhood.events.v1", 3, 42)
NOW = 1_769_846_400_000_000
CE = {
    "ce_specversion": b"1.0",
    "ce_id": b"order-17",
    "ce_type": b"order.created",
    "ce_source": b"/shop",
    "ce_workspace": WS.encode(),
}


def plain(**fields):
    return orjson.dumps({"workspace_id": WS, **fields})


def test_record_of_ingest_is_read_as_it_was_written():
    envelope = Envelope("ev_1", "nhood.webhook", f"/webhooks/{WS}", WS, NOW, "/a", 2)
    event = Event(Payload(b"\x00\xff", "image/png"), "u1", "test", "POST", "a=b", {"x": "y"})
    found = read_event(codec.encode(event), dict(envelope.headers()), PLACE, 1)
    assert found == (envelope, event)


@pytest.mark.parametrize(
    ("content_type", "data"),
    [("application/json", {"total": 3}), ("text/plain", "héllo"), ("image/png", b"\x89PNG\x00")],
)
@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
def test_event_of_an_independent_cloudevents_client_is_read(write, content_type, data):
    sent = CloudEvent(
        {
            "id": "order-17",
            "source": "/shop",
            "type": "order.created",
            "specversion": "1.0",
            "time": datetime(2026, 1, 31, 8, tzinfo=UTC),
            "subject": "17",
            "datacontenttype": content_type,
            "workspace": WS,
            "user": "customer-9",
            "mode": "test",
        },
        data,
    )
    message = write(sent)
    envelope, event = read_event(message.value, message.headers, PLACE, 5)
    assert envelope == Envelope(
        derived_id("ev", WS, "test", "/shop", "order-17"), "order.created", "/shop", WS, NOW, "17"
    )
    assert (event.user, event.mode, event.headers) == ("customer-9", "test", {"ce-id": "order-17"})
    assert event.data.content_type == content_type
    found = orjson.loads(event.data.data) if isinstance(data, dict) else event.data.data
    assert found == (data.encode() if isinstance(data, str) else data)


def test_binary_body_is_kept_byte_for_byte():
    body = b'{ "n": 12345678901234567890123, "s": "\\u00e9" }\n'
    headers = {**CE, "content-type": b"application/json; charset=utf-8"}
    _, event = read_event(body, headers, PLACE, NOW)
    assert event.data == Payload(body, "application/json; charset=utf-8")


def test_plain_json_with_a_path_is_a_webhook():
    value = plain(path="new-customer/", data={"customer": {"name": "Ada"}}, user_id=7)
    envelope, event = read_event(value, {}, PLACE, NOW)
    assert envelope == Envelope(
        derived_id("ev", WS, "nhood.events.v1", 3, 42),
        "nhood.webhook",
        "/kafka/nhood.events.v1",
        WS,
        NOW,
        "/new-customer",
    )
    assert event == Event(Payload(b'{"customer":{"name":"Ada"}}'), "7", "any")


def test_plain_json_with_a_type_is_an_event():
    value = orjson.dumps(
        {"workspace": WS, "type": "order.created", "data": [1], "id": "o1", "mode": "test"}
    )
    envelope, event = read_event(value, {"content-type": b"application/json"}, PLACE, NOW)
    assert (envelope.type, envelope.subject) == ("order.created", None)
    assert envelope.id == event_id(WS, "test", "/kafka/nhood.events.v1", "o1")
    assert (event.data.data, event.mode) == (b"[1]", "test")


def test_event_without_id_keeps_its_name_when_delivered_again():
    value = plain(type="a", data={})
    first, _ = read_event(value, {}, PLACE, NOW)
    again, _ = read_event(value, {}, PLACE, NOW + 9)
    other, _ = read_event(value, {}, Place("nhood.events.v1", 3, 43), NOW)
    assert first.id == again.id != other.id
    assert is_id("ev", first.id)


def test_id_that_is_an_event_id_is_kept():
    given_id = derived_id("ev", "x")
    envelope, event = read_event(plain(type="a", id=given_id), {}, PLACE, NOW)
    assert envelope.id == given_id
    assert event.headers == {}


def test_same_id_of_another_source_mode_or_workspace_is_another_event():
    other = "ws_" + "0" * 25 + "9"
    of = [(WS, "live", "/a"), (WS, "live", "/b"), (other, "live", "/a"), (WS, "test", "/a")]
    assert len({event_id(*sender, "1") for sender in of}) == 4


def test_recipe_of_event_ids_never_changes():
    assert event_id(WS, "live", "/shop", "order-17") == "ev_xfpe171xkxkmvh8p5zk6y7d3v0"


@pytest.mark.parametrize(
    ("value", "headers", "code", "says"),
    [
        (None, {}, "empty", "JSON"),
        (b"", {}, "empty", "JSON"),
        (b"\x00\x01", {}, "not_json", "UTF-8"),
        (codec.encode(Event(Payload(b"{}"))), {}, "not_json", "CloudEvents headers"),
        (b"[]", {}, "not_an_object", "workspace_id"),
        (b"{}", {}, "missing_workspace", "workspace_id"),
        (b'{"workspace_id":"acme","type":"a"}', {}, "bad_workspace", "ws_…"),
        (plain(data={}), {}, "missing_type", "type"),
        (plain(type=["a"]), {}, "wrong_type", "type"),
        (plain(type="a" * 257), {}, "too_long", "256"),
        (plain(type="a\x00"), {}, "bad_characters", "control"),
        (plain(type="nhood.replay"), {}, "reserved_type", "ours"),
        (plain(type="nhood.execute", subject="x"), {}, "bad_subject", "wf_"),
        (plain(type="a", path="/a"), {}, "path_and_type", "one of them"),
        (plain(path="/a?b=c"), {}, "bad_path", "/new-customer"),
        (plain(type="a", user="7"), {}, "unknown_field", "user_id"),
        (plain(type="a", customer={}), {}, "unknown_field", "data"),
        (plain(type="a", mode="prod"), {}, "bad_mode", "live or test"),
        (plain(type="a", time="yesterday"), {}, "bad_time", "RFC 3339"),
        (plain(type="a", time="1950-01-01T00:00:00Z"), {}, "bad_time", "1970"),
        (plain(type="a", data="x" * EVENT_BYTES_MAX), {}, "event_too_large", "link"),
        (b"{" + b" " * (2 * EVENT_BYTES_MAX), {}, "event_too_large", "bytes"),
        (b"{}", {**CE, "ce_specversion": b"0.3"}, "bad_specversion", "1.0"),
        (b"{}", {**CE, "ce_workspace": b""}, "missing_workspace", "extension attribute"),
        (b"{}", {**CE, "ce_generation": b"-1"}, "bad_generation", "whole number"),
        (b"{}", {**CE, "ce_generation": "²".encode()}, "bad_generation", "whole number"),
        (b"{}", {"ce_id": b"\xff"}, "bad_header", "UTF-8"),
        (b"{}", {**CE, "content-type": b"application/avro"}, "no_marker", "C3 01"),
        (b"[]", {"content-type": b"application/cloudevents-batch+json"}, "unknown_format", "one"),
        (
            orjson.dumps({"workspace": WS, "type": "a", "data_base64": "?"}),
            {"content-type": b"application/cloudevents+json"},
            "bad_base64",
            "base 64",
        ),
        (
            orjson.dumps({"workspace": WS, "type": "a", "datacontenttype": 1}),
            {"content-type": b"application/cloudevents+json"},
            "wrong_type",
            "application/json",
        ),
        (plain(type="a")[:-1] + b',"data":' + b"[" * 300 + b"]" * 300 + b"}", {}, "too_deep", ""),
    ],
)
def test_unreadable_record_is_told_how_to_mend_it(value, headers, code, says):
    with pytest.raises(CorruptEvent) as caught:
        read_event(value, headers, PLACE, NOW)
    assert (caught.value.code, says in caught.value.public) == (code, True), caught.value.public


def test_missing_data_is_an_empty_body():
    assert read_event(plain(type="a"), {}, PLACE, NOW)[1].data.data == b"{}"
    assert read_event(None, CE, PLACE, NOW)[1].data.data == b""
    structured = {"content-type": b"application/cloudevents+json; charset=utf-8"}
    assert read_event(plain(type="a", workspace=WS), structured, PLACE, NOW)[1].data.data == b""


def test_execution_may_be_asked_for_over_kafka():
    envelope, _ = read_event(plain(type="nhood.execute", subject=WF), {}, PLACE, NOW)
    assert (envelope.type, envelope.subject) == ("nhood.execute", WF)


def test_header_names_are_read_in_any_case():
    value = orjson.dumps(
        {"workspace": WS, "type": "a", "data_base64": base64.b64encode(b"x").decode()}
    )
    _, event = read_event(value, {"Content-Type": b"Application/CloudEvents+JSON"}, PLACE, NOW)
    assert event.data.data == b"x"


@pytest.mark.parametrize(
    ("value", "headers", "expected"),
    [
        (None, {}, None),
        (b"\xff", {"ce_workspace": WS.encode()}, WS),
        (plain(), {}, WS),
        (b"[1]", {}, None),
        (b'{"workspace":"acme"}', {}, None),
        (b"x", {"ce_workspace": b"\xff"}, None),
    ],
)
def test_owner_of_an_unreadable_record_is_told_where_it_can_be(value, headers, expected):
    assert workspace_hint(value, headers) == expected


texts = st.text("aZ0é€😀 {}.", max_size=8)  # the whole of Unicode takes seconds to set up
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *("workspace", "workspace_id", "type", "path", "data", "id", "time", "user_id", "mode"),
        *("subject", "source", "specversion", "generation", "data_base64", "datacontenttype"),
    ]
)
header_names = st.sampled_from([*CE, "content-type", "ce_time", "ce_mode", "traceparent"])
header_values = st.binary(max_size=12) | st.sampled_from(
    [WS.encode(), b"1.0", b"application/cloudevents+json", b"application/avro", b"text/plain"]
)


@given(
    st.binary(max_size=64)
    | st.dictionaries(names, json_values | st.just(WS), max_size=6).map(orjson.dumps),
    st.dictionaries(header_names, header_values, max_size=5),
)
def test_any_record_is_read_or_refused_with_a_reason(value, headers):
    try:
        envelope, event = read_event(value, headers, PLACE, NOW)
    except CorruptEvent as error:
        refusal = error.code and error.public
        assert refusal
    else:
        written = dict(envelope.headers())
        assert read_event(codec.encode(event), written, PLACE, 0) == (envelope, event)
