"""Actions as generators: one request, several, none."""

from typing import Any

import orjson
import pytest

from executors.core.action import call
from executors.core.outcome import Outcome, Rejected, Succeeded, Throttled, Unavailable, Unknown
from executors.core.request import Request, Response
from schemas.provider import load_catalogue

CATALOGUE = load_catalogue()
VARIABLES = {
    "cloudid": "c1",
    "subdomain": "acme",
    "instance_url": "https://acme.my.salesforce.com",
}


def _run(
    slug: str, action: str, params: dict[str, Any], *answers: tuple[int, Any]
) -> tuple[list[Request], Outcome]:
    spec = CATALOGUE.get(slug)
    steps = call(spec, spec.action(action), params, VARIABLES, "key-1")
    sent: list[Request] = []
    waiting = iter(answers)
    try:
        request = next(steps)
        while True:
            sent.append(request)
            status, body = next(waiting)
            content = body if isinstance(body, bytes) else orjson.dumps(body)
            request = steps.send(Response(status, {}, content))
    except StopIteration as end:
        return sent, end.value


def test_answer_becomes_the_output_with_its_id() -> None:
    sent, outcome = _run(
        "slack", "send_message", {"channel": "C1", "text": "hi"}, (200, {"ok": True, "ts": "1.2"})
    )
    assert len(sent) == 1
    assert outcome == Succeeded(
        status=200, output={"ok": True, "ts": "1.2", "id": "1.2"}, vendor_id="1.2"
    )


def test_empty_answer_gives_what_is_known() -> None:
    _, outcome = _run("jira", "delete_issue", {"issue": "A-1"}, (204, b""))
    assert outcome == Succeeded(status=204, output={"id": "A-1"}, vendor_id="A-1")


@pytest.mark.parametrize(
    ("slug", "action", "params", "code"),
    [
        ("slack", "send_message", {"channel": "C1"}, "invalid_params"),
        ("slack", "send_message", {"channel": "C1", "text": "hi", "tekst": 1}, "invalid_params"),
        ("jira", "get_issue", {"issue": ".."}, "invalid_params"),
        ("slack", "upload_file", {"filename": "a"}, "invalid_params"),
        (
            "slack",
            "upload_file",
            {"file": {"base64": "%", "name": "a"}},
            "invalid_params",
        ),
    ],
)
def test_wrong_params_send_nothing(
    slug: str, action: str, params: dict[str, Any], code: str
) -> None:
    sent, outcome = _run(slug, action, params)
    assert sent == []
    assert isinstance(outcome, Rejected)
    assert outcome.code == code
    assert outcome.message.endswith(".")


def test_file_is_uploaded_in_three_requests() -> None:
    params = {
        "file": {"base64": "AAEC", "name": "a.bin"},
        "channel": "C1",
        "title": "Numbers",
        "alt_text": "none",
    }
    place = {"ok": True, "upload_url": "https://files.slack.com/u/1", "file_id": "F1"}
    sent, outcome = _run(
        "slack",
        "upload_file",
        params,
        (200, place),
        (200, b"OK - 3"),
        (200, {"ok": True, "files": [{"id": "F1"}]}),
    )
    assert [request.url for request in sent] == [
        "https://slack.com/api/files.getUploadURLExternal",
        "https://files.slack.com/u/1",
        "https://slack.com/api/files.completeUploadExternal",
    ]
    assert dict(sent[0].form or ()) == {"filename": "a.bin", "length": "3", "alt_txt": "none"}
    assert sent[1].payload() == (b"\x00\x01\x02", "application/octet-stream")
    assert [request.with_token for request in sent] == [True, False, True]
    assert sent[2].json == {"files": [{"id": "F1", "title": "Numbers"}], "channel_id": "C1"}
    assert outcome.vendor_id == "F1"


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([(429, {"ok": False, "error": "ratelimited"})], Throttled),
        ([(200, {"ok": True})], Unavailable),
        (
            [(200, {"ok": True, "upload_url": "https://f.example", "file_id": "F"}), (500, b"")],
            Unavailable,
        ),
    ],
)
def test_upload_ends_where_a_request_fails(answers: list[tuple[int, Any]], kind: type) -> None:
    sent, outcome = _run("slack", "upload_file", {"file": {"text": "b", "name": "a"}}, *answers)
    assert len(sent) == len(answers)
    assert isinstance(outcome, kind)


TRANSITIONS = {
    "transitions": [
        {"id": "2", "name": "Close Issue", "to": {"name": "Closed"}},
        {"id": "711", "name": "Review", "to": {"name": "QA"}},
    ]
}


@pytest.mark.parametrize("name", ["close issue", "Closed", " Close Issue "])
def test_transition_is_found_by_name_or_status(name: str) -> None:
    sent, outcome = _run(
        "jira",
        "transition_issue",
        {"issue": "A-1", "transition": name, "comment": "done"},
        (200, TRANSITIONS),
        (204, b""),
    )
    assert [request.method for request in sent] == ["GET", "POST"]
    assert sent[1].json["transition"] == {"id": "2"}
    assert sent[1].json["update"]["comment"][0]["add"]["body"]["type"] == "doc"
    assert isinstance(outcome, Succeeded)


def test_transition_by_id_needs_no_look_up() -> None:
    sent, _ = _run("jira", "transition_issue", {"issue": "A-1", "transition": "5"}, (204, b""))
    assert [request.method for request in sent] == ["POST"]


def test_transition_that_is_not_offered_names_those_that_are() -> None:
    _, outcome = _run(
        "jira", "transition_issue", {"issue": "A-1", "transition": "Reopen"}, (200, TRANSITIONS)
    )
    assert isinstance(outcome, Rejected)
    assert outcome.code == "no_such_transition"
    assert "Close Issue, Review" in outcome.message


def test_next_page_on_another_host_is_not_followed() -> None:
    page = {"done": False, "records": [1], "nextRecordsUrl": "@evil.example/steal"}
    sent, outcome = _run(
        "salesforce", "query", {"q": "SELECT Id FROM Lead", "max_items": 10}, (200, page)
    )
    assert len(sent) == 1
    assert outcome.output["records"] == [1]


def test_page_that_leads_to_itself_ends_the_walk() -> None:
    page = {"ok": True, "channels": [1], "response_metadata": {"next_cursor": "same"}}
    sent, outcome = _run(
        "slack", "list_channels", {"max_items": 10}, (200, page), (200, page), (200, page)
    )
    assert len(sent) == 2
    assert outcome.output["channels"] == [1, 1]


def test_failure_of_which_nobody_knows_is_unknown() -> None:
    body = {"ok": False, "error": "fatal_error"}
    params = {"channel": "C1", "text": "hi"}
    assert isinstance(_run("slack", "send_message", params, (200, body))[1], Unknown)
    again = {"channel": "C1", "ts": "1.2", "text": "hi"}
    assert isinstance(_run("slack", "update_message", again, (200, body))[1], Unavailable)


def test_long_words_of_a_vendor_are_cut() -> None:
    body = {"errorMessages": ["x" * 5000], "errors": {}}
    _, outcome = _run("jira", "get_issue", {"issue": "A-1"}, (400, body))
    assert len(outcome.message) <= 300
    assert len(outcome.detail) <= 400
