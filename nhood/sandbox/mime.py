"""E-mails that came in as MIME, shown as a vendor shows them: headers, parts, first words."""

import base64
import binascii
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final, cast

SNIPPET_CHARS: Final = 200


def shown(raw: object) -> dict[str, Any]:
    """Take a message apart, in the form of Gmail's API.

    Args:
        raw: The message in base64url; what is none gives nothing.
    """
    if not isinstance(raw, str):
        return {}
    try:
        content = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))
    except (binascii.Error, ValueError):
        return {}
    message = message_from_bytes(content, policy=default)
    plain = message.get_body(("plain", "html"))
    text = _text(plain) if isinstance(plain, EmailMessage) else ""
    return {
        "snippet": " ".join(text.split())[:SNIPPET_CHARS],
        "sizeEstimate": len(content),
        "payload": _part(message, ""),
    }


def _text(part: EmailMessage) -> str:
    return cast("bytes", part.get_payload(decode=True) or b"").decode("utf-8", "replace")


def _part(part: EmailMessage, number: str) -> dict[str, Any]:
    inner = list(part.iter_parts()) if part.is_multipart() else []
    made: dict[str, Any] = {
        "partId": number,
        "mimeType": part.get_content_type(),
        "filename": part.get_filename() or "",
        "headers": [{"name": name, "value": str(value)} for name, value in part.items()],
        "body": {"size": 0},
        "parts": [
            _part(cast("EmailMessage", item), f"{number}.{place}".lstrip("."))
            for place, item in enumerate(inner)
        ],
    }
    if not inner:
        content = cast("bytes", part.get_payload(decode=True) or b"")
        data = base64.urlsafe_b64encode(content).decode()
        made["body"] = {"size": len(content), "data": data}
    return made
