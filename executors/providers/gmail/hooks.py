"""What takes more than one request at Gmail, or a message that must be built or taken apart."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from executors.core.action import Call, Steps
from executors.core.outcome import Outcome, Rejected, Succeeded
from executors.providers.gmail import mail
from schemas.errors import InvalidInput

# https://developers.google.com/workspace/gmail/api/guides/labels: their ids are their names
_SYSTEM: Final = frozenset(
    {"INBOX", "SPAM", "TRASH", "UNREAD", "STARRED", "IMPORTANT", "SENT", "DRAFT"}
)
_HEADERS: Final = ["From", "Reply-To", "To", "Cc", "Subject", "Message-ID", "References"]


def call_send_message(call: Call) -> Steps:
    """Build the message and send it."""
    return _hand_over(call, "send_raw_message", call.params)


def call_create_draft(call: Call) -> Steps:
    """Build the message and keep it as a draft."""
    return _hand_over(call, "create_raw_draft", call.params)


def call_update_draft(call: Call) -> Steps:
    """Build the message and put it in a draft's place."""
    return _hand_over(call, "update_raw_draft", call.params, {"draft_id": call.params["draft_id"]})


def _hand_over(
    call: Call, action: str, mail_params: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> Steps:
    try:
        raw = mail.raw_message(mail_params, call.effect_key)
    except InvalidInput as error:
        return Rejected(code="invalid_params", message=error.public)
    given = {"raw": raw, **(more or {})}
    if "thread_id" in mail_params:
        given["thread_id"] = mail_params["thread_id"]
    last = call.other(action, given)
    return last.outcome((yield last.request()))


def call_reply_to_message(call: Call) -> Steps:
    """Look up what is answered, and who it came from; then send.

    Nothing is to be seen before the last request, so an earlier failure is harmless.
    """
    params, own = call.params, ""
    if params["reply_all"]:
        # Our own address is among the recipients and must not get the answer.
        first = call.other("get_profile", {})
        outcome = first.outcome((yield first.request()))
        if not isinstance(outcome, Succeeded):
            return outcome
        own = str(outcome.output.get("emailAddress", "")).lower()
    asked = {"format": "metadata", "metadata_headers": _HEADERS, "message_id": params["message_id"]}
    second = call.other("get_message", asked)
    outcome = second.outcome((yield second.request()))
    if not isinstance(outcome, Succeeded):
        return outcome
    answer = _answer(outcome.output, params, own)
    if not answer["to"]:
        return Rejected(
            status=outcome.status, code="no_sender", message="The message has no address to answer."
        )
    return (yield from _hand_over(call, "send_raw_message", answer))


def _answer(message: Mapping[str, Any], params: Mapping[str, Any], own: str) -> dict[str, Any]:
    sender = mail.header_of(message, "reply-to") or mail.header_of(message, "from")
    to, cc = _spellings(sender, ()), params.get("cc", [])
    cc = [cc] if isinstance(cc, str) else list(cc)
    if params["reply_all"]:
        to += _spellings(mail.header_of(message, "to"), (own, *_bare(to)))
        cc += _spellings(mail.header_of(message, "cc"), (own, *_bare(to)))
    subject = mail.header_of(message, "subject")
    if not subject.lower().startswith("re:"):
        subject = f"Re: {subject}".rstrip()
    answer = {name: params[name] for name in ("text", "html", "bcc", "from") if name in params}
    answer |= {"to": to, "subject": subject, "thread_id": str(message.get("threadId") or "")}
    if cc:
        answer["cc"] = cc
    ids = mail.links_of(mail.header_of(message, "message-id"))[:1]
    if ids:
        before = mail.links_of(mail.header_of(message, "references"))
        answer |= {"in_reply_to": ids[0], "references": " ".join([*before, *ids])}
    return answer


def _spellings(header: str, without: tuple[str, ...]) -> list[str]:
    """Write a header's addresses each as a text of its own."""
    found = mail.parse_addresses(header)
    return [str(address) for address in found if address.addr_spec.lower() not in without]


def _bare(texts: list[str]) -> list[str]:
    return [a.addr_spec.lower() for text in texts for a in mail.parse_addresses(text)]


def call_read_message(call: Call) -> Steps:
    """Get a message and take it apart."""
    whole = call.other("get_message", {"message_id": call.params["message_id"], "format": "full"})
    outcome = whole.outcome((yield whole.request()))
    if not isinstance(outcome, Succeeded):
        return outcome
    return replace(outcome, output=mail.read(outcome.output))


def call_update_message_labels(call: Call) -> Steps:
    """Turn labels' names into their ids, which one list tells; then change the message."""
    params = call.params
    wanted = [*params.get("add_labels", ()), *params.get("remove_labels", ())]
    known = {name: name for name in _SYSTEM}
    if not all(name.upper() in known for name in wanted):
        first = call.other("list_labels", {})
        outcome = first.outcome((yield first.request()))
        if not isinstance(outcome, Succeeded):
            return outcome
        known |= _labels(outcome)
        missing = [n for n in wanted if n not in known and n.upper() not in known]
        if missing:
            return Rejected(
                status=outcome.status,
                code="no_such_label",
                message=f"There is no label {missing[0][:100]!r}; create_label makes one.",
            )
    changed: dict[str, Any] = {"message_id": params["message_id"]}
    for name in ("add", "remove"):
        labels = params.get(f"{name}_labels", ())
        if labels:
            changed[f"{name}_label_ids"] = [known.get(n) or known[n.upper()] for n in labels]
    last = call.other("modify_message", changed)
    return last.outcome((yield last.request()))


def _labels(outcome: Outcome) -> dict[str, str]:
    """Give ids by name and by id."""
    listed = outcome.output.get("labels")
    found = [i for i in listed if isinstance(i, Mapping)] if isinstance(listed, list) else []
    ids = [(str(item.get("name")), str(item.get("id"))) for item in found]
    return {own: own for _, own in ids} | dict(ids)
