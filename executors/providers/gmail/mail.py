"""E-mails as Gmail carries them: built as MIME in base64url, and read out of its nested parts.

Nothing that a param holds can become a header or a recipient of its own: lines are one line, and a
text that is to be an address is exactly one.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from email.errors import HeaderParseError
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.policy import SMTP
from hashlib import sha256
from typing import Any, Final, Protocol, cast

from schemas.errors import InvalidInput

# Gmail's own bound; deeper than any program nests its parts.
PARTS_DEPTH_MAX: Final = 100
# The last two end a line for Python as well, and so for its e-mail package.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINKS: Final = re.compile(r"<[^<>\s]{1,990}>")
_ADDRESSED: Final = {"to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "Reply-To", "from": "From"}


class _Header(Protocol):
    """A header with addresses; the standard library makes its type when it runs."""

    defects: tuple[Exception, ...]
    groups: tuple[Group, ...]
    addresses: tuple[Address, ...]


def raw_message(params: Mapping[str, Any], effect_key: str) -> str:
    """Build a message.

    Args:
        params: `to`, `cc`, `bcc`, `reply_to`, `from`, `subject`, `text`, `html`, `in_reply_to`,
            `references`, `headers`.
        effect_key: Names the borders of parts, so that a repeat is the same to the byte.

    Returns:
        The message (RFC 5322) in base64url.

    Raises:
        InvalidInput: Something cannot stand in a header or is not exactly one address.
    """
    message = EmailMessage(policy=SMTP)
    for name, header in _ADDRESSED.items():
        if name in params:
            message[header] = _addresses(params[name], name)
    _put(message, "Subject", params.get("subject"))
    answers = params.get("in_reply_to")
    if answers:
        link = f"<{answers.strip('<>')}>"
        _put(message, "In-Reply-To", link)
        _put(message, "References", params.get("references") or link)
    for name, value in params.get("headers", {}).items():
        _put(message, name, value)
    if "text" in params:
        message.set_content(params["text"])
        if "html" in params:
            message.add_alternative(params["html"], subtype="html")
            message.set_boundary(f"=_{sha256(effect_key.encode()).hexdigest()[:32]}")
    else:
        message.set_content(params["html"], subtype="html")
    return base64.urlsafe_b64encode(message.as_bytes()).decode()


def _put(message: EmailMessage, name: str, value: str | None) -> None:
    if value is None:
        return
    if _CONTROL.search(value):
        raise InvalidInput(f"{name} must be one line without control characters.")
    message[name] = value


def _addresses(value: str | list[str], name: str) -> list[Address]:
    return [_address(text, name) for text in ([value] if isinstance(value, str) else value)]


def _address(text: str, name: str) -> Address:
    """Read exactly one address.

    Raises:
        InvalidInput: It is none, or several.
    """
    found = () if _CONTROL.search(text) else parse_addresses(text)
    if len(found) > 1:
        raise InvalidInput(f"{name}: {text[:100]!r} holds several addresses; give a list instead.")
    if not found:
        raise InvalidInput(f"{name}: {text[:100]!r} is not an e-mail address.")
    return found[0]


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Read the addresses of a header's text, as far as it is well-formed; none otherwise."""
    try:
        header = cast("_Header", SMTP.header_factory("To", text))
        if header.defects or any(group.display_name is not None for group in header.groups):
            return ()
        return tuple(_plain(address) for address in header.addresses)
    except (HeaderParseError, ValueError, IndexError, UnicodeError):
        return ()  # the parser of the standard library raises these for texts that are no header


def _plain(address: Address) -> Address:
    """Write an address as every mail server takes it: the host in ASCII (RFC 5890)."""
    host = address.domain.encode("idna").decode()
    if not host or not address.username.isascii() or not address.username:
        raise ValueError("an address needs a name of ASCII characters and a host")
    return Address(address.display_name, username=address.username, domain=host)


def header_of(message: Mapping[str, Any], name: str) -> str:
    """Give a header of a message as one line; empty where there is none."""
    payload = message.get("payload")
    listed = payload.get("headers") if isinstance(payload, Mapping) else None
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, Mapping) and str(item.get("name")).lower() == name:
            return _CONTROL.sub(" ", str(item.get("value") or "")).strip()
    return ""


def links_of(text: str) -> list[str]:
    """Give the message ids of a Message-ID or References header."""
    return _LINKS.findall(text)


def read(message: Mapping[str, Any]) -> dict[str, Any]:
    """Read a message: headers by name, text and HTML decoded, attachments listed.

    Args:
        message: As Gmail answers it with format `full`.
    """
    texts: dict[str, str] = {}
    attachments = []
    for part in _parts(message.get("payload"), 0):
        kind = str(part.get("mimeType") or "").lower()
        body = part.get("body")
        body = body if isinstance(body, Mapping) else {}
        if part.get("filename"):
            attachments.append(
                {
                    "id": body.get("attachmentId"),
                    "filename": part["filename"],
                    "mime_type": kind,
                    "size": body.get("size"),
                }
            )
        elif kind in ("text/plain", "text/html"):
            texts.setdefault(kind, _decoded(part, str(body.get("data") or "")))
    labels = message.get("labelIds")
    return {
        "id": message.get("id"),
        "thread_id": message.get("threadId"),
        "label_ids": labels or [],
        "unread": "UNREAD" in (labels or ()),
        "snippet": message.get("snippet"),
        "received_at_ms": message.get("internalDate"),
        **{name: header_of(message, name) for name in ("subject", "from", "to", "cc", "date")},
        "reply_to": header_of(message, "reply-to"),
        "message_id": header_of(message, "message-id"),
        "text": texts.get("text/plain"),
        "html": texts.get("text/html"),
        "attachments": attachments,
    }


def _parts(part: object, depth: int) -> Iterator[Mapping[str, Any]]:
    if not isinstance(part, Mapping) or depth > PARTS_DEPTH_MAX:
        return
    yield part
    inner = part.get("parts")
    for item in inner if isinstance(inner, list) else ():
        yield from _parts(item, depth + 1)


def _decoded(part: Mapping[str, Any], data: str) -> str:
    try:
        content = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
    except (binascii.Error, ValueError):
        return ""
    # compat32: it reads a header of any quality
    carrier: Message = Message()
    carrier["Content-Type"] = header_of({"payload": part}, "content-type")
    try:
        return content.decode(carrier.get_content_charset("utf-8"), "replace")
    except LookupError:
        return content.decode("utf-8", "replace")
