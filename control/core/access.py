"""API keys and webhook secrets: how they look, and what of them is kept."""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal

from schemas.settings import Secret

Mode = Literal["live", "test"]
MODES: Final[tuple[Mode, ...]] = ("live", "test")

# 256 bits: no list of guesses reaches them, so a plain SHA-256 of the key is enough to keep.
KEY_BYTES: Final = 32
# Standard Webhooks asks for 24 to 64 bytes (https://www.standardwebhooks.com, "Secrets").
WEBHOOK_SECRET_BYTES: Final = 32
_SHOWN: Final = 4
_API_KEY = re.compile(r"nhood_sk_(?:live|test)_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; the text is shown once and kept nowhere.

    Attributes:
        prefix: Its first characters, by which people tell keys apart.
        digest: SHA-256 of the text.
    """

    text: Secret
    mode: Mode
    prefix: str
    digest: bytes


def new_api_key(mode: Mode, randomness: bytes) -> NewKey:
    """Make `nhood_sk_<mode>_…` of `KEY_BYTES` random bytes."""
    secret = base64.urlsafe_b64encode(randomness[:KEY_BYTES]).rstrip(b"=").decode()
    text = f"nhood_sk_{mode}_{secret}"
    return NewKey(Secret(text), mode, f"nhood_sk_{mode}_{secret[:_SHOWN]}", digest(text))


def new_webhook_secret(randomness: bytes) -> Secret:
    """Make `whsec_…` as Standard Webhooks writes secrets: base 64 of the bytes."""
    return Secret("whsec_" + base64.b64encode(randomness[:WEBHOOK_SECRET_BYTES]).decode())


def digest(key: str) -> bytes:
    """Give what is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def bearer_token(header: str | None) -> str | None:
    """Give the token of an `Authorization: Bearer …` header (RFC 6750); None where it is none."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def looks_like_api_key(text: str) -> bool:
    """Say whether a text has a key's form; what has not is never looked up."""
    return _API_KEY.fullmatch(text) is not None
