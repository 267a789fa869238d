"""Requests as they are rendered and written."""

from typing import Any
from urllib.parse import unquote

import pytest
from yarl import URL

from executors.core.request import Request, Response, render
from schemas.errors import InvalidInput
from schemas.provider import ActionSpec, ProviderSpec, load_catalogue
from schemas.segments import path_segment

CATALOGUE = load_catalogue()
SALESFORCE = {"instance_url": "https://acme.my.salesforce.com"}


def _action(slug: str, name: str) -> tuple[ProviderSpec, ActionSpec]:
    spec = CATALOGUE.get(slug)
    return spec, spec.action(name)


def _render(slug: str, name: str, params: dict[str, Any], **variables: str) -> Request:
    spec, action = _action(slug, name)
    return render(spec, action, params, variables, "key-1")


@pytest.mark.parametrize("value", ["", " ", ".", ".."])
def test_param_cannot_name_another_place_in_the_path(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        path_segment(value)
    assert caught.value.code == "invalid_params"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("../admin", "..%2Fadmin"),
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("%2e%2e", "%252e%252e"),
        ("ü\n", "%C3%BC%0A"),
        ("a@b:c;d", "a@b:c;d"),
    ],
)
def test_param_stays_one_segment_of_the_path(value: str, encoded: str) -> None:
    request = _render("jira", "get_issue", {"issue": value}, cloudid="c1")
    assert request.url == f"https://api.atlassian.com/ex/jira/c1/rest/api/3/issue/{encoded}"


@pytest.mark.parametrize("host", ["track.customer.io", "track-eu.customer.io"])
def test_request_can_go_to_another_host_with_another_proof(host: str) -> None:
    params = {"identifier": "ann-1", "email": "ann@example.com"}
    request = _render("customer_io", "identify_person", params, track_host=host)
    assert (request.url, request.proof) == (f"https://{host}/api/v1/customers/ann-1", "track")


def test_defaults_fill_what_is_left_out() -> None:
    request = _render("jira", "create_issue", {"project": "P", "summary": "s"}, cloudid="c1")
    assert request.json == {
        "fields": {"project": {"key": "P"}, "issuetype": {"name": "Task"}, "summary": "s"}
    }


def test_own_fields_are_put_beside_the_named_ones() -> None:
    params = {"project": "P", "summary": "s", "fields": {"customfield_10010": 5}}
    request = _render("jira", "create_issue", params, cloudid="c1")
    assert request.json["fields"]["customfield_10010"] == 5


def test_custom_fields_of_salesforce_are_taken_as_they_are() -> None:
    params = {"last_name": "Doe", "company": "Acme", "Score__c": 5, "Person__pc": None}
    request = _render("salesforce", "create_lead", params, **SALESFORCE)
    assert request.json == {"LastName": "Doe", "Company": "Acme", "Score__c": 5, "Person__pc": None}


def test_own_api_version_is_taken() -> None:
    variables = {**SALESFORCE, "api_version": "63.0"}
    request = _render("salesforce", "query", {"q": "SELECT Id FROM Lead"}, **variables)
    assert request.url == "https://acme.my.salesforce.com/services/data/v63.0/query"


@pytest.mark.parametrize("value", ["", "acme.evil.example/", "acme@evil", "ACME", "acme\n"])
def test_variable_that_could_change_the_host_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        _render("zendesk", "get_ticket", {"ticket_id": 1}, subdomain=value)
    assert caught.value.code == "bad_connection"


def test_missing_variable_asks_to_reconnect() -> None:
    with pytest.raises(InvalidInput, match="reconnect"):
        _render("jira", "get_issue", {"issue": "A-1"})


@pytest.mark.parametrize("word", ["medium", "Medium", "normal"])
def test_other_words_become_the_vendors_own(word: str) -> None:
    params = {"description": "d", "priority": word}
    request = _render("zendesk", "create_ticket", params, subdomain="acme")
    assert request.json == {"ticket": {"comment": {"body": "d"}, "priority": "normal"}}
    assert request.headers["Idempotency-Key"] == "key-1"


def test_query_is_typed_as_text() -> None:
    params = {"channel": "C1", "inclusive": True, "limit": 5}
    request = _render("slack", "list_messages", params)
    assert dict(request.query) == {"channel": "C1", "inclusive": "true", "limit": "5"}
    assert request.full_url.endswith("?channel=C1&limit=5&inclusive=true")


def test_list_in_a_query_repeats_its_name() -> None:
    request = _render("jira", "list_projects", {"keys": ["A", "B"]}, cloudid="c1")
    assert request.query == (("keys", "A"), ("keys", "B"))


def test_form_is_written_as_a_form() -> None:
    request = _render("slack", "get_upload_url", {"filename": "a&b.txt", "length": 3})
    assert request.payload() == (
        b"filename=a%26b.txt&length=3",
        "application/x-www-form-urlencoded",
    )


def test_request_never_holds_a_credential() -> None:
    request = _render("slack", "send_message", {"channel": "C1", "text": "hi"})
    assert "authorization" not in {name.lower() for name in request.headers}
    assert request.payload() == (
        b'{"channel":"C1","text":"hi"}',
        "application/json; charset=utf-8",
    )


@pytest.mark.parametrize(
    ("content", "body", "is_json"),
    [
        (b'{"a": 1}', {"a": 1}, True),
        (b"[]", [], True),
        (b'"text"', "text", True),
        (b"null", None, True),
        (b"", None, True),
        (b"  \n", None, True),
        (b"<html>", "<html>", False),
        (b'{"a": ', '{"a": ', False),
        (b"\xff\xfe", "\ufffd\ufffd", False),
    ],
)
def test_answer_is_parsed_where_it_is_json(content: bytes, body: object, is_json: bool) -> None:
    response = Response(200, {"Content-Type": "text/plain"}, content)
    assert response.body == body
    assert response.is_json is is_json
    assert response.headers == {"content-type": "text/plain"}


def test_path_is_written_as_the_http_client_sends_it() -> None:
    # It writes what may stand bare bare; a signature over another address would not hold.
    every = "".join(map(chr, range(32, 127))) + "é"
    url = f"https://api.example/things/{path_segment(every)}"
    assert str(URL(url)) == url
    assert unquote(url.rpartition("/")[2]) == every
