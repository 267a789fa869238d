"""Standard Webhooks: what is right is taken, and nothing else is."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from ingest.core.signature import (
    SIGNATURES_MAX,
    Absent,
    Invalid,
    Valid,
    parse_secret,
    sign,
    verify,
)
from schemas.errors import InvalidInput

# The worked example of the Standard Webhooks reference libraries' own tests
# (https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW = 1_614_265_330
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(NOW),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
KEY = parse_secret(SECRET)
OTHER = parse_secret("whsec_" + base64.b64encode(b"o" * 24).decode())


def code(verdict):
    assert isinstance(verdict, Invalid), verdict
    assert verdict.reason.endswith(".")
    return verdict.code


def test_signature_of_the_reference_libraries_is_valid():
    assert verify([KEY], HEADERS, BODY, NOW) == Valid()


def test_signature_is_made_as_the_reference_library_makes_it():
    theirs = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), "{}")
    assert sign(KEY, "msg_1", NOW, b"{}") == theirs


def test_request_without_signature_is_absent_whatever_else_it_has():
    assert verify([KEY], {"webhook-id": "1", "webhook-timestamp": "x"}, BODY, NOW) == Absent()


@pytest.mark.parametrize("keys", [[OTHER, KEY], [KEY, OTHER]])
def test_either_secret_of_a_rotation_is_good(keys):
    assert verify(keys, HEADERS, BODY, NOW) == Valid()


@pytest.mark.parametrize(
    "given_signature",
    [
        "v1,bm9wZQ== " + HEADERS["webhook-signature"],
        HEADERS["webhook-signature"] + " v1a,abcd v2,efgh",
        "v1a,only-the-other-scheme  " + HEADERS["webhook-signature"],
    ],
)
def test_one_right_signature_among_several_is_enough(given_signature):
    headers = {**HEADERS, "webhook-signature": given_signature}
    assert verify([KEY], headers, BODY, NOW) == Valid()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(300, None), (301, "stale_timestamp"), (-300, None), (-301, "future_timestamp")],
)
def test_signature_is_good_for_five_minutes_either_way(seconds, expected):
    verdict = verify([KEY], HEADERS, BODY, NOW + seconds)
    assert (verdict.code if isinstance(verdict, Invalid) else None) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"webhook-id": None}, "malformed"),
        ({"webhook-id": ""}, "malformed"),
        ({"webhook-timestamp": None}, "malformed"),
        ({"webhook-timestamp": "2021-02-25"}, "malformed"),
        ({"webhook-timestamp": "-5"}, "malformed"),
        ({"webhook-timestamp": "²"}, "malformed"),
        ({"webhook-timestamp": "9" * 13}, "malformed"),
        ({"webhook-timestamp": str(NOW + 1)}, "wrong_signature"),
        ({"webhook-id": "msg_other"}, "wrong_signature"),
        ({"webhook-signature": ""}, "malformed"),
        ({"webhook-signature": "g0hM9SsE"}, "malformed"),
        ({"webhook-signature": "v1a,abcd"}, "malformed"),
        ({"webhook-signature": "v1,"}, "wrong_signature"),
        ({"webhook-signature": "v1,é"}, "wrong_signature"),
        ({"webhook-signature": "v1,a " * (SIGNATURES_MAX + 1)}, "malformed"),
    ],
)
def test_broken_header_is_told_apart(change, expected):
    headers = {name: text for name, text in {**HEADERS, **change}.items() if text is not None}
    assert code(verify([KEY], headers, BODY, NOW)) == expected


def test_workspace_without_secret_accepts_no_signature():
    assert code(verify([], HEADERS, BODY, NOW)) == "wrong_signature"


def test_secret_of_another_workspace_is_wrong():
    assert code(verify([OTHER], HEADERS, BODY, NOW)) == "wrong_signature"


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_a!", "whsec_é"])
def test_unusable_secret_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_secret(text)


def test_secret_is_read_with_and_without_prefix_and_padding():
    assert parse_secret("whsec_YWI=") == parse_secret("YWI") == b"ab"


@given(st.binary(max_size=64), st.integers(0, 2**31), st.text("abc.1", min_size=1, max_size=9))
def test_any_body_that_is_signed_is_valid(body, now, message_id):
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(KEY, message_id, now, body),
    }
    assert verify([KEY], headers, body, now) == Valid()


@given(st.data())
def test_any_tampering_is_refused(data):
    """Flip one bit of body, id, time or signature: never valid."""
    part = data.draw(st.sampled_from(["body", "webhook-id", "webhook-timestamp", "signature"]))
    headers, body = dict(HEADERS), BODY
    name = "webhook-signature" if part == "signature" else part
    raw = bytearray(body if part == "body" else headers[name].encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    if part == "body":
        body = bytes(raw)
    else:
        headers[name] = raw.decode("latin-1")
    assert isinstance(verify([KEY], headers, body, NOW), Invalid)


@given(
    st.dictionaries(
        st.sampled_from(list(HEADERS)), st.text("v1,a =0é\x00", max_size=20), max_size=3
    )
)
def test_any_headers_get_a_verdict(headers):
    assert not isinstance(verify([KEY], headers, BODY, NOW), Valid)
