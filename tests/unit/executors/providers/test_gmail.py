"""Gmail's messages: built so that nothing can be smuggled in, and read back whatever they hold."""

import base64
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from executors.core.outcome import Rejected, Succeeded
from executors.core.request import Request, Response
from executors.providers.gmail import mail
from schemas.errors import InvalidInput
from tests.contract.cases import CATALOGUE, response, run

GMAIL = CATALOGUE.get("gmail")
KEY = "effect-1"
LINES = st.text(max_size=200)
SENT = response(200, {"id": "m1", "threadId": "t1", "labelIds": ["SENT"]})


def built(**params: Any) -> EmailMessage:
    """Build a message and parse it as a mail server would."""
    raw = base64.urlsafe_b64decode(mail.raw_message(params, KEY))
    return cast("EmailMessage", message_from_bytes(raw, policy=default))


def sent(action: str, params: dict[str, Any], *answers: Response) -> list[Request]:
    requests, outcome = run(GMAIL, GMAIL.action(action), params, list(answers))
    assert isinstance(outcome, Succeeded), outcome
    return requests


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert isinstance(part, EmailMessage)
    return str(part.get_content())


# ---- building


def test_message_carries_everything() -> None:
    made = built(
        to=["Ada Lovelace <ada@acme.example>", "bert@acme.example"],
        cc="Jörg Müller <joerg@acme.example>",
        bcc=["x@acme.example"],
        reply_to="support@acme.example",
        subject="Grüße, 你好",
        text="Guten Tag\nÄ",
        html="<p>Guten Tag</p>",
        headers={"X-Ticket": "4711", "List-Unsubscribe": "<https://acme.example/u>"},
    )
    assert made["To"] == "Ada Lovelace <ada@acme.example>, bert@acme.example"
    assert made["Cc"].addresses[0].display_name == "Jörg Müller"
    assert (made["Bcc"], made["Reply-To"]) == ("x@acme.example", "support@acme.example")
    assert made["Subject"] == "Grüße, 你好"
    assert made["X-Ticket"] == "4711"
    assert made.get_content_type() == "multipart/alternative"
    assert text_of(made, "plain").splitlines() == ["Guten Tag", "Ä"]
    assert text_of(made, "html").strip() == "<p>Guten Tag</p>"


def test_message_is_the_same_to_the_byte_when_built_again() -> None:
    params = {"to": "a@acme.example", "text": "x", "html": "<b>x</b>"}
    assert mail.raw_message(params, "k1") == mail.raw_message(params, "k1")
    assert mail.raw_message(params, "k1") != mail.raw_message(params, "k2")


def test_host_of_an_address_goes_out_in_ascii() -> None:
    assert built(to="ada@bücher.example", text="x")["To"] == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize("name", ["subject", "in_reply_to"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x00", "\v"])
def test_line_break_in_a_header_is_refused(name: str, end: str) -> None:
    params = {"to": "a@acme.example", "text": "x", name: f"a@b{end}Bcc: evil@evil.example"}
    with pytest.raises(InvalidInput):
        mail.raw_message(params, KEY)
    if end != "\v" or name == "subject":  # both at save and at run
        assert GMAIL.action("send_message").check_params(params)


@pytest.mark.parametrize(
    "text",
    [
        "a@acme.example, evil@evil.example",
        "a@acme.example; evil@evil.example",
        "a@acme.example>, <evil@evil.example",
        "Ada <a@acme.example>, Eve <evil@evil.example>",
        "Everybody: a@acme.example, evil@evil.example;",
        "a@acme.example\r\nBcc: evil@evil.example",
        "a@acme.example\nBcc: evil@evil.example",
        "a@acme.example evil@evil.example",
        "not an address",
        "@acme.example",
        "ada@",
        "",
    ],
)
@pytest.mark.parametrize("name", ["to", "cc", "bcc", "reply_to", "from"])
def test_text_that_is_not_exactly_one_address_is_refused(name: str, text: str) -> None:
    params = {"to": "a@acme.example", "text": "x", name: text}
    requests, outcome = run(GMAIL, GMAIL.action("send_message"), params, [])
    assert requests == []
    assert isinstance(outcome, Rejected)
    assert outcome.code == "invalid_params"


@example(name="a", subject="a\x85X-Other: b", header="", text="")
@example(name="a", subject="", header="a\u2028X-Other: b", text="")
@given(name=LINES, subject=LINES, header=LINES, text=LINES)
def test_nothing_adds_a_header_or_a_recipient(
    name: str, subject: str, header: str, text: str
) -> None:
    quoted = name.replace("\\", "").replace('"', "")
    params = {
        "to": f'"{quoted}" <ada@acme.example>',
        "subject": subject,
        "text": text,
        "headers": {"X-Note": header},
    }
    try:
        made = built(**params)
    except InvalidInput:
        return  # refused is as good
    known = {"to", "subject", "x-note", "content-type", "content-transfer-encoding", "mime-version"}
    assert {key.lower() for key in made} <= known
    assert [address.addr_spec for address in made["To"].addresses] == ["ada@acme.example"]


@given(text=LINES)
def test_any_text_as_recipient_is_refused_or_one_address(text: str) -> None:
    try:
        made = built(to=text, text="x")
    except InvalidInput:
        return
    assert len(made["To"].addresses) == 1
    assert made["Bcc"] is None


@pytest.mark.parametrize(
    "name", ["Bcc", "To", "Content-Type", "X-Bad\r\nBcc", "From", "DKIM-Signature"]
)
def test_headers_of_other_names_are_refused(name: str) -> None:
    params = {"to": "a@acme.example", "text": "x", "headers": {name: "v"}}
    problems = GMAIL.action("send_message").check_params(params)
    assert problems
    assert problems[0].place.startswith("headers")


def test_message_in_a_thread_names_what_it_answers() -> None:
    params = {"to": "a@acme.example", "text": "x", "thread_id": "t1", "in_reply_to": "m@b.example"}
    (request,) = sent("send_message", params, SENT)
    assert request.json["threadId"] == "t1"
    made = message_from_bytes(base64.urlsafe_b64decode(request.json["raw"]), policy=default)
    assert made["In-Reply-To"] == made["References"] == "<m@b.example>"


# ---- answering


def original(**headers: str) -> Response:
    named = {
        "From": "Ada <ada@acme.example>",
        "To": "Me <me@acme.example>, bert@acme.example",
        "Cc": "cleo@acme.example",
        "Subject": "Order",
        "Message-ID": "<2@mail.example>",
        "References": "<1@mail.example>",
    }
    listed = [{"name": n, "value": v} for n, v in (named | headers).items() if v]
    return response(200, {"id": "m1", "threadId": "t1", "payload": {"headers": listed}})


def answered(all_of_them: bool = False, **headers: str) -> EmailMessage:
    params = {"message_id": "m1", "text": "Thanks", "reply_all": all_of_them}
    profile = [response(200, {"emailAddress": "ME@acme.example"})] if all_of_them else []
    request = sent("reply_to_message", params, *profile, original(**headers), SENT)[-1]
    assert request.json["threadId"] == "t1"
    raw = base64.urlsafe_b64decode(request.json["raw"])
    return cast("EmailMessage", message_from_bytes(raw, policy=default))


def test_answer_goes_to_the_sender_in_the_same_thread() -> None:
    made = answered()
    assert (made["To"], made["Cc"]) == ("Ada <ada@acme.example>", None)
    assert made["Subject"] == "Re: Order"
    assert made["In-Reply-To"] == "<2@mail.example>"
    assert made["References"] == "<1@mail.example> <2@mail.example>"


def test_answer_to_all_leaves_our_own_address_out() -> None:
    made = answered(all_of_them=True)
    assert made["To"] == "Ada <ada@acme.example>, bert@acme.example"
    assert made["Cc"] == "cleo@acme.example"


def test_answer_goes_where_the_sender_wants_it() -> None:
    assert answered(**{"Reply-To": "desk@acme.example"})["To"] == "desk@acme.example"
    assert answered(Subject="RE: Order")["Subject"] == "RE: Order"


def test_hostile_original_adds_nothing() -> None:
    made = answered(
        Subject="x\r\nBcc: evil@evil.example",
        References="<1@a>\r\nBcc: evil@evil.example",
        **{"Message-ID": "<2@a>\nBcc: <evil@evil.example>"},
    )
    assert made["Bcc"] is None
    assert made["References"] == "<1@a> <2@a>"


def test_message_from_nobody_cannot_be_answered() -> None:
    params = {"message_id": "m1", "text": "Thanks"}
    action = GMAIL.action("reply_to_message")
    _, outcome = run(GMAIL, action, params, [original(From="undisclosed")])
    assert isinstance(outcome, Rejected)
    assert outcome.code == "no_sender"


# ---- reading


def b64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def test_nested_message_is_read() -> None:
    kind = [{"name": "Content-Type", "value": "text/plain; charset=ISO-8859-1"}]
    plain = {"mimeType": "text/plain", "headers": kind, "body": {"data": b64(b"Gr\xfc\xdfe")}}
    html = {"mimeType": "text/html", "body": {"data": b64("<b>Grüße</b>".encode())}}
    file = {"mimeType": "application/pdf", "filename": "a.pdf"}
    payload = {
        "mimeType": "multipart/mixed",
        "headers": [{"name": "subject", "value": "Hallo"}, {"name": "FROM", "value": "a@b.c"}],
        "parts": [
            {"mimeType": "multipart/alternative", "parts": [plain, html]},
            {**file, "body": {"attachmentId": "x1", "size": 9}},
        ],
    }
    found = mail.read({"id": "m1", "labelIds": ["UNREAD"], "payload": payload})
    assert (found["subject"], found["from"], found["unread"]) == ("Hallo", "a@b.c", True)
    assert (found["text"], found["html"]) == ("Grüße", "<b>Grüße</b>")
    assert found["attachments"] == [
        {"id": "x1", "filename": "a.pdf", "mime_type": "application/pdf", "size": 9}
    ]


NAMES = st.sampled_from(
    ["payload", "parts", "headers", "body", "data", "name", "mimeType", "value"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(message=st.dictionaries(NAMES, JSON))
def test_any_answer_can_be_read(message: dict[str, Any]) -> None:
    assert mail.read(message)["attachments"] is not None


# ---- labels by name


def test_system_labels_need_no_look_up() -> None:
    params = {"message_id": "m1", "remove_labels": ["unread", "INBOX"]}
    (request,) = sent("update_message_labels", params, SENT)
    assert request.json == {"removeLabelIds": ["UNREAD", "INBOX"]}


def test_labels_are_found_by_name_or_id() -> None:
    labels = response(200, {"labels": [{"id": "Label_7", "name": "Clients"}]})
    for name in ("Clients", "Label_7"):
        params = {"message_id": "m1", "add_labels": [name, "STARRED"]}
        request = sent("update_message_labels", params, labels, SENT)[-1]
        assert request.json == {"addLabelIds": ["Label_7", "STARRED"]}


def test_unknown_label_is_named() -> None:
    params = {"message_id": "m1", "add_labels": ["Nope"]}
    action = GMAIL.action("update_message_labels")
    sent_, outcome = run(GMAIL, action, params, [response(200, {"labels": []})])
    assert len(sent_) == 1
    assert isinstance(outcome, Rejected)
    assert "Nope" in outcome.message
