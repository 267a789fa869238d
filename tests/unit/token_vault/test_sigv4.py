"""Signatures as AWS wants them: its own example, and botocore's on anything."""

from datetime import UTC, datetime
from unittest.mock import patch

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from schemas.settings import Secret
from token_vault.core.sigv4 import AwsKeys, sign

AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def keys(service: str = "service", session: str | None = None) -> AwsKeys:
    token = Secret(session) if session else None
    return AwsKeys("AKIDEXAMPLE", Secret(SECRET), token, "us-east-1", service)


def botocores(given: AwsKeys, method: str, url: str, headers: dict[str, str], body: bytes) -> str:
    """Give what botocore signs with."""
    session = given.session_token.reveal() if given.session_token else None
    signer = botocore.auth.S3SigV4Auth if given.service == "s3" else botocore.auth.SigV4Auth
    request = AWSRequest(method=method, url=url, headers=headers, data=body)
    credentials = Credentials(given.access_key_id, SECRET, session)
    with patch("botocore.auth.get_current_datetime", return_value=AT.replace(tzinfo=None)):
        signer(credentials, given.service, given.region).add_auth(request)
    return str(request.headers["Authorization"])


def test_signature_is_the_one_of_awss_own_example() -> None:
    added = sign(keys(), "GET", "https://example.amazonaws.com/", {}, b"", AT)
    assert added == {
        "X-Amz-Date": "20150830T123600Z",
        "Authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
            " SignedHeaders=host;x-amz-date,"
            " Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        ),
    }


text = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8)
part = st.sampled_from(["a", "B-1", "%20", "%2F", ".", "..", "", "x~_", "caf%C3%A9", "%2520"])
query = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "A", "a%20b", "~"]),
        st.sampled_from(["", "1", "~", "x%2Fy", "a%2Bb", "%E2%82%AC", "%3D"]),
    ),
    max_size=5,
)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.lists(part, max_size=5),
    pairs=query,
    host=st.sampled_from(["email.us-east-1.amazonaws.com", "127.0.0.1:8085", "h.example:443"]),
    headers=st.dictionaries(
        st.sampled_from(["Content-Type", "X-Amz-Target", "X-Custom"]), text, max_size=3
    ),
    body=st.binary(max_size=64),
    session=st.sampled_from([None, "temporary/token=="]),
    service=st.sampled_from(["ses", "sts", "s3"]),
)
def test_signature_is_botocores(method, path, pairs, host, headers, body, session, service) -> None:
    asked = "&".join(f"{name}={value}" for name, value in pairs)
    url = f"https://{host}/{'/'.join(path)}" + (f"?{asked}" if asked else "")
    mine = sign(keys(service, session), method, url, headers, body, AT)
    assert mine["Authorization"] == botocores(keys(service, session), method, url, headers, body)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "POST"},
        {"url": "https://example.amazonaws.com/other"},
        {"url": "https://example.amazonaws.com/?a=1"},
        {"url": "https://elsewhere.amazonaws.com/"},
        {"headers": {"X-Amz-Target": "other"}},
        {"body": b"other"},
    ],
)
def test_signature_covers_everything_that_is_sent(changed) -> None:
    usual = {"method": "GET", "url": "https://example.amazonaws.com/", "headers": {}, "body": b""}
    added = [
        sign(keys(), asked["method"], asked["url"], asked["headers"], asked["body"], AT)
        for asked in (usual, usual | changed)
    ]
    assert added[0]["Authorization"] != added[1]["Authorization"]


def test_what_changes_on_the_way_is_not_signed() -> None:
    url = "https://example.amazonaws.com/"
    more = {"Accept": "*/*", "User-Agent": "x", "traceparent": "00-1", "Accept-Encoding": "gzip"}
    plain = sign(keys(), "GET", url, {}, b"", AT)
    assert sign(keys(), "GET", url, more, b"", AT) == plain


def test_query_is_signed_as_it_is_meant_however_it_is_spelt() -> None:
    spelt = [
        sign(keys(), "GET", f"https://example.amazonaws.com/?{query}", {}, b"", AT)
        for query in ("b=%7Ex&a=1+2", "a=1%202&b=~x")
    ]
    assert spelt[0] == spelt[1]


def test_keys_show_no_secret() -> None:
    shown = repr(keys(session="temporary"))
    assert SECRET not in shown
    assert "temporary" not in shown
