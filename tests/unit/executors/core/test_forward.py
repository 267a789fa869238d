"""The proxy's rules: where a path may lead, what is sent on, what comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.core.forward import action_of, address, choose, patterns_of, sent, shown
from schemas.errors import InvalidInput
from schemas.provider import load_catalogue

BASE = "https://api.atlassian.com/ex/jira/cloud-1"
CATALOGUE = load_catalogue()


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("rest/api/3/myself", "", f"{BASE}/rest/api/3/myself"),
        ("rest/api/3/search", "jql=a%3Db&x=1", f"{BASE}/rest/api/3/search?jql=a%3Db&x=1"),
        ("", "", f"{BASE}/"),
        ("a%20b/%E4%BA%BA", "", f"{BASE}/a%20b/%E4%BA%BA"),
        ("users/u@example.com", "", f"{BASE}/users/u@example.com"),
        ("v1:batch", "", f"{BASE}/v1:batch"),
        ("a...b/..c/d..", "", f"{BASE}/a...b/..c/d.."),
    ],
)
def test_path_stays_below_the_providers_address(path, query, expected):
    assert address(BASE, path, query) == expected


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/x",
        "HTTP://169.254.169.254/latest",
        "ftp:/x",
        "//evil.example/x",
        "/evil.example",
        "../cloud-2/rest/api/3/myself",
        "rest/../../cloud-2",
        "rest/..",
        "./x",
        "%2e%2e/cloud-2",
        "%2E./cloud-2",
        "rest/%2e%2e%2fcloud-2",
        "rest%2f..%2f..%2fcloud-2",
        "%252e%252e/cloud-2",
        "rest/..%5ccloud-2",
        "rest\\..\\cloud-2",
        "..;/cloud-2",
        "a\r\nHost: evil",
        "a b",
        "a\x00",
        "a#b",
        "ä",
        "x" * 9_000,
    ],
)
def test_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(InvalidInput) as raised:
        address(BASE, path, "")
    assert raised.value.code == "bad_proxy_path"


def test_base_without_a_path_keeps_its_host():
    with pytest.raises(InvalidInput):
        address("https://acme.zendesk.com", "/evil.example", "")
    found = address("https://acme.zendesk.com", "@evil.example/x", "")
    assert found == "https://acme.zendesk.com/@evil.example/x"


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x2FF), max_size=40))
def test_any_path_is_refused_or_stays(path):
    try:
        found = address(BASE, path, "")
    except InvalidInput:
        return
    assert found.startswith(f"{BASE}/")
    assert ".." not in found[len(BASE) :].split("/")


@pytest.mark.parametrize(
    ("headers", "query", "connection", "user", "left"),
    [
        ([], "", None, None, ""),
        ([], "user_id=u%201&limit=5", None, "u 1", "limit=5"),
        ([], "a=1&connection_id=conn_1&a=2", "conn_1", None, "a=1&a=2"),
        ([("Nhood-User-Id", "u1")], "user_id=42", None, "u1", "user_id=42"),
        ([("nhood-connection-id", "conn_1")], "user_id=42&x", "conn_1", None, "user_id=42&x"),
        ([], "user_id=", None, None, ""),
        ([], "q=%26user_id%3Dx", None, None, "q=%26user_id%3Dx"),
    ],
)
def test_account_is_chosen_by_header_or_query(headers, query, connection, user, left):
    found = choose(headers, query)
    assert (found.connection_id, found.user_id or None, found.query) == (connection, user, left)


def test_request_headers_that_go_on():
    headers = [
        ("Accept", "application/json"), ("Content-Type", "text/plain"), ("X-Vendor", "1"),
        ("Idempotency-Key", "k"), ("If-Match", "e"), ("traceparent", "00-a-b-01"),
        ("Authorization", "Bearer nhood_sk_live_x"), ("Cookie", "a=b"), ("Host", "gateway"),
        ("Connection", "keep-alive, X-Drop"), ("X-Drop", "1"), ("Transfer-Encoding", "chunked"),
        ("TE", "trailers"), ("Upgrade", "h2c"), ("Proxy-Authorization", "x"),
        ("Expect", "100-continue"),
        ("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=x"), ("Nhood-User-Id", "u"),
        ("Sec-Fetch-Mode", "cors"), ("Content-Length", "3"), ("Accept-Encoding", "br"),
    ]  # fmt: skip
    assert sent(headers) == {
        "accept": "application/json", "content-type": "text/plain", "x-vendor": "1",
        "idempotency-key": "k", "if-match": "e", "traceparent": "00-a-b-01",
    }  # fmt: skip


def test_answer_headers_that_come_back():
    headers = [
        ("Content-Type", "application/json"), ("Link", "<a>"), ("Link", "<b>"), ("ETag", "e"),
        ("Retry-After", "3"), ("Location", "/x"), ("Set-Cookie", "s=1"), ("Connection", "x-drop"),
        ("X-Drop", "1"), ("WWW-Authenticate", "Bearer"), ("Content-Encoding", "gzip"),
        ("Access-Control-Allow-Origin", "*"), ("Strict-Transport-Security", "max-age=1"),
        ("Nhood-Provider", "forged"), ("Content-Length", "10"), ("Transfer-Encoding", "chunked"),
    ]  # fmt: skip
    assert shown(headers) == [
        ("content-type", "application/json"), ("link", "<a>"), ("link", "<b>"), ("etag", "e"),
        ("retry-after", "3"), ("location", "/x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("slug", "method", "path", "action"),
    [
        ("slack", "POST", "chat.postMessage", "send_message"),
        ("slack", "GET", "chat.postMessage", "proxy"),
        ("slack", "POST", "chat.postMessageX", "proxy"),
        ("zendesk", "POST", "api/v2/tickets", "create_ticket"),
        ("zendesk", "GET", "api/v2/tickets/7", "get_ticket"),
        ("zendesk", "GET", "api/v2/tickets/7/comments", "proxy"),
    ],
)
def test_call_falls_under_the_limits_of_its_action(slug, method, path, action):
    assert action_of(patterns_of(CATALOGUE.get(slug)), method, path) == action
