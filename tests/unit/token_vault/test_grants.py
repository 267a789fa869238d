"""What token endpoints answer and what they are asked, as tables over made-up and real vendors."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.expression import Tree
from schemas.provider import load_catalogue
from schemas.settings import Secret
from token_vault.core.grants import (
    App,
    Consent,
    Granted,
    Held,
    Refused,
    authorize_url,
    client_request,
    code_request,
    due_at,
    from_stored,
    life_seconds,
    merged,
    missing_scopes,
    read_token,
    refresh_request,
    split_scopes,
    to_stored,
)

CATALOGUE = load_catalogue()
JIRA = CATALOGUE.get("jira").auth
SLACK = CATALOGUE.get("slack").auth
SALESFORCE = CATALOGUE.get("salesforce").auth
ZENDESK = CATALOGUE.get("zendesk").auth
NOW = datetime(2026, 1, 2, tzinfo=UTC)
APP = App("client", Secret("s3cret"))
SCOPES = ("chat:write", "x")
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
HELD = Held(Secret("a1"), Secret("r1"), NOW, NOW + timedelta(hours=1), ("read",), {"site": "acme"})


@pytest.mark.parametrize(
    ("told", "declared", "seconds"),
    [
        (3600, None, 3600),
        ("3600", None, 3600),
        ("3599.9", None, 3599),
        (3599.5, None, 3599),
        (None, 7200, 7200),
        (None, None, None),
        (0, 7200, 7200),
        (0, None, None),
        (-1, 7200, 7200),
        ("never", 7200, 7200),
        (True, 7200, 7200),
        ([], 7200, 7200),
        (0.5, None, 1),
        (float("nan"), 60, 60),
        (float("inf"), 60, 60),
        (10**30, None, 315_360_000),
    ],
)
def test_life_of_a_token(told: object, declared: int | None, seconds: int | None) -> None:
    assert life_seconds(told, declared) == seconds


@given(st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.booleans()))
def test_life_never_lies_in_the_past_or_beyond_the_calendar(told: object) -> None:
    seconds = life_seconds(told, 60)
    assert seconds is not None
    assert NOW + timedelta(seconds=seconds) > NOW


@pytest.mark.parametrize(
    ("auth", "status", "body", "kind", "code"),
    [
        (SLACK, 200, {"ok": False, "error": "invalid_code"}, "wrong", "invalid_code"),
        (SLACK, 200, {"ok": False, "error": "token_revoked"}, "dead", "token_revoked"),
        (SLACK, 200, {"ok": True}, "unavailable", "unreadable_answer"),
        (SALESFORCE, 400, {"error": "invalid_grant"}, "dead", "invalid_grant"),
        (SALESFORCE, 400, {"error": "invalid_client_id"}, "wrong", "invalid_client_id"),
        (JIRA, 403, {"error": "unauthorized_client"}, "dead", "unauthorized_client"),
        (JIRA, 401, {"error": "access_denied"}, "wrong", "access_denied"),
        (JIRA, 400, {"error": "temporarily_unavailable"}, "unavailable", "temporarily_unavailable"),
        (JIRA, 429, {"error": "rate"}, "unavailable", "rate"),
        (JIRA, 500, {"error": "oops"}, "unavailable", "oops"),
        (JIRA, 503, None, "unavailable", "http_503"),
        (JIRA, 200, None, "unavailable", "unreadable_answer"),
        (JIRA, 200, [], "unavailable", "unreadable_answer"),
        (JIRA, 200, {"access_token": ""}, "unavailable", "unreadable_answer"),
        (JIRA, 200, {"access_token": "x" * 70_000}, "unavailable", "unreadable_answer"),
        (JIRA, 400, None, "unavailable", "unreadable_answer"),
        (JIRA, 404, {"message": "no route"}, "wrong", "http_404"),
        (ZENDESK, 400, {"error": "invalid_grant"}, "dead", "invalid_grant"),
    ],
)
def test_bad_answer_means(auth: Any, status: int, body: object, kind: str, code: str) -> None:
    answer = read_token(auth, status, {}, body, NOW)
    assert isinstance(answer, Refused)
    assert (answer.kind, answer.code) == (kind, code)


def test_good_answer_is_read_as_the_provider_says() -> None:
    body = {
        "access_token": "t",
        "refresh_token": "r",
        "expires_in": "60",
        "scope": "a b",
    }
    answer = read_token(JIRA, 200, {}, body, NOW)
    assert isinstance(answer, Granted)
    held = answer.held
    assert held.access_token.reveal() == "t"
    assert held.refresh_token == Secret("r")
    assert held.expires_at == NOW + timedelta(seconds=60)
    assert held.scopes == ("a", "b")


def test_user_token_inside_slacks_answer_is_found() -> None:
    body = {"ok": True, "authed_user": {"access_token": "xoxp-1", "scope": "chat:write,x"}}
    answer = read_token(SLACK, 200, {}, body, NOW)
    assert isinstance(answer, Granted)
    assert answer.held.access_token.reveal() == "xoxp-1"
    assert answer.held.scopes == ("chat:write", "x")
    assert answer.held.expires_at is None


def test_account_of_the_answer_is_read() -> None:
    body = {"access_token": "t", "instance_url": "https://acme.my.salesforce.com"}
    answer = read_token(SALESFORCE, 200, {}, body, NOW)
    assert isinstance(answer, Granted)
    assert answer.held.variables == {"instance_url": "https://acme.my.salesforce.com"}


def test_absent_fields_never_overwrite() -> None:
    new = Held(Secret("a2"), None, NOW, None)
    both = merged(HELD, new)
    assert both.access_token == Secret("a2")
    assert both.refresh_token == Secret("r1")
    assert both.scopes == ("read",)
    assert both.variables == {"site": "acme"}
    assert merged(HELD, replace(new, refresh_token=Secret("r2"))).refresh_token == Secret("r2")


def test_refresh_is_due_a_minute_before_the_end_or_at_80_percent() -> None:
    assert due_at(HELD) == NOW + timedelta(minutes=59)
    short = replace(HELD, expires_at=NOW + timedelta(seconds=100))
    assert due_at(short) == NOW + timedelta(seconds=80)
    assert due_at(replace(HELD, expires_at=None)) is None
    assert due_at(replace(HELD, refresh_token=None)) is None


def test_grant_is_stored_and_read_back() -> None:
    assert from_stored(to_stored(HELD), HELD.scopes, HELD.variables) == HELD
    bare = Held(Secret("a"), None, NOW, None)
    assert from_stored(to_stored(bare)) == bare


@pytest.mark.parametrize(
    ("told", "scopes"),
    [("a,b", ("a", "b")), ("a b a", ("a", "b")), (["a", "b"], ("a", "b")), ("", ()), (None, ())],
)
def test_scopes_are_read_in_every_spelling(told: object, scopes: tuple[str, ...]) -> None:
    assert split_scopes(told, ",") == scopes


def test_scopes_that_were_not_granted_are_named() -> None:
    assert missing_scopes(("a", "b"), ("b",)) == ("a",)
    assert missing_scopes(("a", "b"), ()) == ()  # the vendor does not tell


def test_authorize_address_follows_the_provider() -> None:
    consent = Consent("client", "https://a.example/back", "st", SCOPES, VERIFIER)
    asked = parse_qs(urlsplit(authorize_url(SLACK, "https://v.example/auth?x=1", consent)).query)
    assert asked["x"] == ["1"]
    assert asked["scope"] == ["chat:write,x"]
    assert asked["response_type"] == ["code"]
    assert asked["state"] == ["st"]
    assert asked["code_challenge_method"] == ["S256"]
    # the vector of RFC 7636, appendix B
    assert asked["code_challenge"] == ["E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"]
    named = replace(SLACK, scope_param="user_scope", authorize_params={"prompt": "consent"})
    asked = parse_qs(urlsplit(authorize_url(named, "https://v.example/", consent)).query)
    assert asked["user_scope"] == ["chat:write,x"]
    assert asked["prompt"] == ["consent"]
    assert "scope" not in asked


def test_code_request_carries_the_client_as_declared() -> None:
    basic = code_request(SLACK, APP, code="c&1", redirect_uri="https://a.example", verifier="v")
    assert basic.headers["Authorization"] == "Basic Y2xpZW50OnMzY3JldA=="
    odd = App("client", Secret("a+b/ c%é"))
    encoded = code_request(SLACK, odd, code="c", redirect_uri="https://a.example", verifier=None)
    pair = base64.b64decode(encoded.headers["Authorization"].removeprefix("Basic ")).decode()
    assert pair == "client:a%2Bb%2F+c%25%C3%A9"  # RFC 6749 §2.3.1
    form = parse_qs(basic.content.decode())
    assert form["code"] == ["c&1"]
    assert form["code_verifier"] == ["v"]
    assert "client_secret" not in form
    post = code_request(SALESFORCE, APP, code="c", redirect_uri="https://a.example", verifier=None)
    form = parse_qs(post.content.decode())
    assert (form["client_id"], form["client_secret"]) == (["client"], ["s3cret"])
    assert "code_verifier" not in form
    public = replace(SALESFORCE, client_auth="none")
    form = parse_qs(
        code_request(
            public, APP, code="c", redirect_uri="https://a", verifier=None
        ).content.decode()
    )
    assert form["client_id"] == ["client"]
    assert "client_secret" not in form


def test_client_asks_for_a_token_of_its_own() -> None:
    given_ = replace(
        SLACK, kind="client_credentials", client_auth="post", default_scopes=("a", "b")
    )
    fields = {"client_id": Secret("c 1"), "client_secret": Secret("s+1")}
    sent = dict(parse_qsl(client_request(given_, fields, {}).content.decode()))
    assert sent == {
        "grant_type": "client_credentials",
        "scope": "a,b",
        "client_id": "c 1",
        "client_secret": "s+1",
    }


def test_sign_in_of_a_vendors_own_sends_what_it_declares() -> None:
    wanted = Tree({"name": "${credentials.name}", "site": "${credentials.site ?? ''}"})
    own = replace(SLACK, kind="client_credentials", token_json=wanted)
    sent = client_request(own, {"name": Secret("n")}, {})
    assert orjson.loads(sent.content) == {"name": "n", "site": ""}
    assert sent.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client"])
def test_unknown_client_is_dead_where_it_is_the_credential(code: str) -> None:
    own = replace(SALESFORCE, kind="client_credentials")
    for spec, kind in ((SALESFORCE, "wrong"), (own, "dead")):
        answer = read_token(spec, 401, {}, {"error": code}, NOW)
        assert isinstance(answer, Refused)
        assert answer.kind == kind


def test_token_that_was_got_with_entered_credentials_is_renewed_by_the_clock() -> None:
    alone = replace(HELD, refresh_token=None)
    assert due_at(alone) is None
    assert due_at(replace(alone, fields={"client_secret": Secret("s")})) == due_at(HELD)


def test_json_request_keeps_the_types_of_extra_fields() -> None:
    request = code_request(ZENDESK, APP, code="c", redirect_uri="https://a.example", verifier=None)
    assert request.headers["Content-Type"] == "application/json"
    body = orjson.loads(request.content)
    assert body["grant_type"] == "authorization_code"
    assert body["client_secret"] == "s3cret"
    assert body["expires_in"] == ZENDESK.token_params["expires_in"]
    refresh = orjson.loads(refresh_request(ZENDESK, APP, Secret("r1")).content)
    assert (refresh["grant_type"], refresh["refresh_token"]) == ("refresh_token", "r1")


def test_requests_and_grants_show_no_secret() -> None:
    request = refresh_request(SALESFORCE, APP, Secret("r1x"))
    granted = read_token(JIRA, 200, {}, {"access_token": "t0ken", "refresh_token": "r3f"}, NOW)
    consent = Consent("client", "https://a.example", "st4te", (), "v3rifier")
    text = repr((request, granted, consent, APP, HELD))
    for secret in ("r1x", "s3cret", "t0ken", "r3f", "st4te", "v3rifier", "a1"):
        assert secret not in text
