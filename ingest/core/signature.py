"""Standard Webhooks signatures: whether a request was signed with one of a workspace's secrets.

    Absent      no signature came along
    Valid       one of the live secrets made it
    Invalid     malformed, stale_timestamp, future_timestamp or wrong_signature, and how to mend it

The signed text is `{webhook-id}.{webhook-timestamp}.{body}`, HMAC-SHA256, base 64
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md). PyPI's
`standardwebhooks` reads the clock itself and wants the body to be UTF-8, so it serves as the
independent signer of the tests; here the time comes in as an argument and the body stays bytes.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import InvalidInput

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of every such secret
TOLERANCE_S = 300  # the specification's; bounds how long a recorded request can be sent again
SIGNATURES_MAX = 16  # a rotation needs two; each costs a comparison
_TIMESTAMP_DIGITS_MAX = 12
_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Absent:
    """No signature came along."""


@dataclass(frozen=True, slots=True)
class Valid:
    """One of the live secrets made the signature."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """A signature came along and does not hold; `code` is stable, `reason` says how to mend it."""

    code: str
    reason: str


Verdict = Absent | Valid | Invalid


def parse_secret(text: str) -> bytes:
    """Turn `whsec_…` into the key.

    Raises:
        InvalidInput: It is not base 64, or empty.
    """
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidInput(
            "A webhook secret is whsec_ followed by base 64.", code="bad_webhook_secret"
        ) from error
    if not key:
        raise InvalidInput("A webhook secret may not be empty.", code="bad_webhook_secret")
    return key


def sign(key: bytes, message_id: str, timestamp_s: int | str, body: bytes) -> str:
    """Make a signature as it stands in the header: `v1,<base 64>`."""
    signed = b"%b.%b." % (message_id.encode(), str(timestamp_s).encode()) + body
    digest = hmac.digest(key, signed, "sha256")
    return f"{_VERSION},{base64.b64encode(digest).decode()}"


def verify(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now_s: int) -> Verdict:
    """Check the signature of a request, in a time that does not depend on where it differs.

    Args:
        keys: The live secrets; two while one replaces the other.
        headers: Request headers, names in lower case.
        body: The request's body as it came.
        now_s: UTC, seconds since 1970.
    """
    given = headers.get(SIGNATURE_HEADER)
    if given is None:
        return Absent()
    message_id, timestamp = headers.get(ID_HEADER), headers.get(TIMESTAMP_HEADER)
    if not message_id or not timestamp:
        missing = TIMESTAMP_HEADER if message_id else ID_HEADER
        return Invalid("malformed", f"The header {missing} is missing beside {SIGNATURE_HEADER}.")
    late = _check_time(timestamp, now_s)
    if late is not None:
        return late
    signatures = [part for part in given.split() if part.startswith(f"{_VERSION},")]
    if not signatures or len(signatures) > SIGNATURES_MAX:
        return Invalid(
            "malformed",
            f"{SIGNATURE_HEADER} must hold 1 to {SIGNATURES_MAX} signatures such as v1,<base 64>, "
            "with spaces between them.",
        )
    if _any_match(keys, signatures, message_id, timestamp, body):
        return Valid()
    return Invalid(
        "wrong_signature",
        "No live webhook secret of the workspace made this signature: sign id.timestamp.body with "
        "the body's very bytes and the present secret.",
    )


def _check_time(timestamp: str, now_s: int) -> Invalid | None:
    digits = timestamp.isascii() and timestamp.isdigit()
    if not digits or len(timestamp) > _TIMESTAMP_DIGITS_MAX:
        return Invalid("malformed", f"{TIMESTAMP_HEADER} must be seconds since 1970, UTC.")
    age_s = now_s - int(timestamp)
    if age_s > TOLERANCE_S:
        return Invalid(
            "stale_timestamp",
            f"The signature is {age_s} s old, {TOLERANCE_S} s are allowed: sign each try anew and "
            "check the sender's clock.",
        )
    if age_s < -TOLERANCE_S:
        return Invalid(
            "future_timestamp",
            f"The signature's time lies {-age_s} s ahead, {TOLERANCE_S} s are allowed: check the "
            "sender's clock.",
        )
    return None


def _any_match(
    keys: Sequence[bytes], signatures: Sequence[str], message_id: str, timestamp: str, body: bytes
) -> bool:
    given = [signature.encode() for signature in signatures]
    found = False
    for key in keys:
        expected = sign(key, message_id, timestamp, body).encode()
        for signature in given:
            found |= hmac.compare_digest(expected, signature)
    return found
