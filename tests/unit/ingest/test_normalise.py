"""A webhook request becomes the event that its sender meant."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.normalise import (
    HEADER_VALUE_MAX,
    HEADERS_MAX,
    QUERY_MAX,
    Request,
    choose_mode,
    kept_headers,
    kept_query,
    read_webhook,
    webhook_path,
)
from schemas.errors import InvalidInput
from schemas.ids import is_id

WS = "ws_" + "0" * 25 + "1"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def request(body=b"{}", *, headers=JSON, query="", path="/new-customer"):
    return Request(WS, path, "POST", query, headers, body)


def event_of(delivery, mode="live", *, signed=False, new_id="ev_new", now_us=7):
    return delivery.event(mode, signed=signed, new_id=new_id, now_us=now_us)


def test_webhook_becomes_an_event_of_its_path():
    body = b'{ "customer": {"name": "Ada"} }'
    envelope, event, key = event_of(read_webhook(request(body, query="a=b")))
    assert (envelope.id, envelope.type, envelope.subject) == (
        "ev_new",
        "nhood.webhook",
        "/new-customer",
    )
    assert (envelope.source, envelope.workspace, envelope.time_us) == (f"/webhooks/{WS}", WS, 7)
    assert (event.data.data, event.data.content_type) == (body, "application/json")
    assert (event.method, event.query, event.mode, event.user) == ("POST", "a=b", "live", None)
    assert key == "ev_new"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b'{"a":1}', "application/json; charset=utf-8", "application/json; charset=utf-8"),
        (b"<a/>", "application/xml", "application/xml"),
        (b"\x00\xff", "application/octet-stream", "application/octet-stream"),
        (b"hello", "", "application/octet-stream"),
        (b'{"a":1}', "", "application/json"),
        (b'{"a":1}', "application/x-www-form-urlencoded", "application/json"),
        (b"{a=1", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        (b"a=1", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        (b"", "application/json", "application/json"),
        (b"", "", "application/octet-stream"),
    ],
)
def test_body_is_kept_and_its_kind_is_told(body, content_type, expected):
    headers = {"content-type": content_type} if content_type else {}
    _, event, _ = event_of(read_webhook(request(body, headers=headers)))
    assert (event.data.data, event.data.content_type) == (body, expected)


@pytest.mark.parametrize(
    ("headers", "query", "body", "expected"),
    [
        ({"x-nhood-user": "h"}, "user_id=q", b'{"user_id":"b"}', "h"),
        ({}, "user_id=q", b'{"user_id":"b"}', "q"),
        ({}, "", b'{"user_id":"b"}', "b"),
        ({}, "", b'{"user_id":17}', "17"),
        ({}, "", b'{"user_id":true}', None),
        ({}, "", b'{"user_id":{"id":1}}', None),
        ({}, "", b'{"user_id":""}', None),
        ({}, "", b'[{"user_id":"b"}]', None),
        ({}, "", b"{}", None),
    ],
)
def test_end_customer_is_named_by_header_then_query_then_body(headers, query, body, expected):
    assert read_webhook(request(body, headers={**JSON, **headers}, query=query)).user == expected


@pytest.mark.parametrize(
    ("body", "expected"), [(b"a=1&user_id=c+7", "c 7"), (b"user_id=\xff", None), (b"a=1", None)]
)
def test_end_customer_is_read_from_a_form(body, expected):
    assert read_webhook(request(body, headers=FORM)).user == expected


def test_same_delivery_gets_the_same_id_and_another_one_does_not():
    def name(mode="live", *, signed=False, path="/a", **headers):
        delivery = read_webhook(request(headers={**JSON, **headers}, path=path))
        return event_of(delivery, mode, signed=signed)[0].id

    first = name(**{"webhook-id": "m1"})
    assert is_id("ev", first)
    assert first == name(**{"webhook-id": "m1", "idempotency-key": "k"})
    assert first == name(**{"idempotency-key": "m1"})
    assert first == name(path="a/", **{"webhook-id": "m1"})
    others = {
        name(**{"webhook-id": "m2"}),
        name("test", **{"webhook-id": "m1"}),
        name(signed=True, **{"webhook-id": "m1"}),
        name(path="/b", **{"webhook-id": "m1"}),
    }
    assert len(others - {first}) == 4


def test_recipe_of_delivery_ids_never_changes():
    delivery = read_webhook(request(headers={"webhook-id": "msg_1"}))
    names = [event_of(delivery, signed=signed)[0].id for signed in (True, False)]
    assert names == ["ev_f7vn2a4ard6bd0t6chtdsan76d", "ev_6g8vwdk8q1ra0yt05zt6k2frgc"]


def test_order_key_becomes_the_record_key_of_this_workspace():
    by_query = event_of(read_webhook(request(query="order_key=c7")))
    by_header = event_of(read_webhook(request(headers={**JSON, "x-nhood-order-key": "c7"})))
    assert by_query[2] == by_header[2] == f"{WS}/c7"


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", None),
        ({"x-nhood-mode": "test"}, "mode=live", "test"),
        ({}, "mode=test", "test"),
        ({}, "mode=payment", None),
    ],
)
def test_mode_is_asked_for_by_header_or_query(headers, query, expected):
    assert read_webhook(request(headers={**JSON, **headers}, query=query)).asked_mode == expected


@pytest.mark.parametrize(
    ("asked", "found", "expected"),
    [
        (None, [], "any"),
        (None, ["live"], "live"),
        (None, ["test"], "test"),
        (None, ["test", "live"], "live"),
        ("test", ["live"], "test"),
        ("live", ["test"], "live"),
    ],
)
def test_mode_is_test_only_where_asked_or_where_nothing_else_listens(asked, found, expected):
    assert choose_mode(asked, found) == expected


def test_only_headers_that_name_the_event_are_kept():
    kept = {
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/1",
        "x-github-event": "push",
        "x-github-delivery": "72d3162e",
        "linear-event": "Issue",
        "webhook-id": "m",
        "idempotency-key": "k",
        "x-shopify-topic": "orders/create",
    }
    dropped = {
        "authorization": "Bearer a",
        "cookie": "a=b",
        "x-gitlab-token": "s3cret",
        "x-hub-signature-256": "sha256=1",
        "webhook-signature": "v1,a",
        "x-api-key": "k",
        "x-amz-security-token": "t",
        "stripe-signature": "t=1",
        "x-forwarded-for": "10.0.0.1",
        "x-real-ip": "10.0.0.1",
        "x-nhood-user": "u",
        "accept": "*/*",
        "host": "x",
        "x-long": "a" * (HEADER_VALUE_MAX + 1),
    }
    assert kept_headers({**dropped, **kept}) == kept


def test_headers_kept_are_bounded():
    many = {f"x-a{number}": "1" for number in range(HEADERS_MAX + 9)}
    assert len(kept_headers(many)) == HEADERS_MAX


def test_event_tells_whether_its_signature_was_right_and_nobody_else_can():
    delivery = read_webhook(request(headers={**JSON, "nhood-signature": "valid"}))
    assert event_of(delivery)[1].headers["nhood-signature"] == "absent"
    assert event_of(delivery, signed=True)[1].headers["nhood-signature"] == "valid"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        ("a=1&author=x", "a=1&author=x"),
        ("token=abc&a=1", "token=***&a=1"),
        ("a=1&X-Amz-Signature=abc", "a=1&X-Amz-Signature=***"),
        ("api_key=1&order_key=7", "api_key=***&order_key=7"),
    ],
)
def test_credentials_in_the_query_do_not_get_onto_the_log(query, expected):
    assert kept_query(query) == expected


def test_trace_is_carried_on_where_it_is_one():
    def parent(text):
        return event_of(read_webhook(request(headers={"traceparent": text})))[0].traceparent

    assert parent(PARENT) == PARENT
    assert parent("00-zz") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a", "/a"), ("/a/b/", "/a/b"), ("", "/"), ("/a//b", "/a//b"), ("/käse 1", "/käse 1")],
)
def test_path_has_one_form(path, expected):
    assert webhook_path(path) == expected


@pytest.mark.parametrize(
    ("given_request", "code"),
    [
        (request(path="/" + "a" * 512), "bad_path"),
        (request(path="/a\x00"), "bad_path"),
        (request(b'{"a":'), "malformed_json"),
        (request(b'{"a":NaN}'), "malformed_json"),
        (request(headers={"x-nhood-mode": "prod"}), "bad_mode"),
        (request(headers={"webhook-id": "a" * 257}), "too_long"),
        (request(query="user_id=%00"), "bad_characters"),
        (request(query="a=" + "b" * QUERY_MAX), "too_long"),
        (request(query="&".join(["a=1"] * 1_001)), "too_long"),
        (request(query="order_key=" + "a" * 257), "too_long"),
    ],
)
def test_request_that_cannot_be_used_is_refused(given_request, code):
    with pytest.raises(InvalidInput) as caught:
        read_webhook(given_request)
    assert caught.value.code == code


@given(
    st.binary(max_size=40),
    st.sampled_from([{}, JSON, FORM, {"content-type": "text/plain"}, {"content-type": ";"}]),
    st.text("a=&%0é_user id\x00", max_size=20),
)
def test_any_body_is_kept_byte_for_byte_or_refused(body, headers, query):
    given_request = request(body, headers=headers, query=query)
    try:
        delivery = read_webhook(given_request)
    except InvalidInput as error:
        refused = error.code in ("malformed_json", "bad_characters", "too_long")
        assert refused
    else:
        assert event_of(delivery)[1].data.data == body
        assert event_of(delivery) == event_of(dataclasses.replace(delivery))


def test_only_an_id_of_our_own_is_told_to_be_new():
    named = read_webhook(request(headers={"webhook-id": "msg_1"}))
    assert event_of(named)[0].minted is False
    assert event_of(read_webhook(request()))[0].minted is True
