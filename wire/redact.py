"""Takes secrets out of what others answer: a vendor may repeat the token that it was given."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

SHOWN: Final = "***"
# Shorter ones are no secrets, and stand in too many other words.
_CHARS_MIN: Final = 8


def without(text: str, secrets: Iterable[str]) -> str:
    """Give the text with every secret in it, plain or percent-encoded, replaced by `***`."""
    for secret in secrets:
        if len(secret) >= _CHARS_MIN:
            text = text.replace(secret, SHOWN)
            escaped = quote(secret, safe="")
            if escaped != secret:
                text = text.replace(escaped, SHOWN)
    return text


def bytes_without(content: bytes, secrets: Iterable[str]) -> bytes:
    """Do the same to bytes; what holds no secret comes back as it is, at the price of a search."""
    for secret in secrets:
        if len(secret) >= _CHARS_MIN:
            content = content.replace(secret.encode(), SHOWN.encode())
            escaped = quote(secret, safe="")
            if escaped != secret:
                content = content.replace(escaped.encode(), SHOWN.encode())
    return content
