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


class Scrub:
    """Does the same to a body that comes in pieces: a secret may lie across two of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret for secret in secrets if len(secret) >= _CHARS_MIN]
        longest = max((len(quote(secret, safe="").encode()) for secret in self._secrets), default=1)
        self._kept_max = longest - 1
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """Give what can be shown by now."""
        if not self._kept_max:
            return piece
        whole = bytes_without(self._kept + piece, self._secrets)
        shown = max(len(whole) - self._kept_max, 0)
        self._kept = whole[shown:]
        return whole[:shown]

    def rest(self) -> bytes:
        """Give what was kept back, at the end."""
        rest, self._kept = self._kept, b""
        return rest
