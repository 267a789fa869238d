"""Requests by which a vendor checks an address before it sends events there; pure."""

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ingest.core.vendor_request import VendorRequest, to_bytes
from schemas.errors import InvalidInput
from schemas.triggers import HandshakeSpec, TriggerSpec


@dataclass(frozen=True, slots=True)
class HandshakeAnswer:
    """What is answered, and the secret that the vendor told, if it did."""

    status: int
    content: bytes
    content_type: str
    headers: Mapping[str, str]
    secret: str | None


def find(spec: TriggerSpec, request: VendorRequest) -> HandshakeSpec | None:
    """Say whether a request is one."""
    if not spec.handshakes:
        return None
    roots = request.roots()
    return next((one for one in spec.handshakes if one.when.holds(roots)), None)


def reply(spec: HandshakeSpec, request: VendorRequest, secrets: Sequence[str]) -> HandshakeAnswer:
    """Build the answer.

    Raises:
        InvalidInput: `no_secret`: the answer is to be signed and no secret was told yet; or the
            request lacks what the answer repeats.
    """
    roots: dict[str, Any] = request.roots()
    if spec.hmac is not None:
        if not secrets:
            raise InvalidInput(
                "The vendor wants a signed answer: set the secret on the endpoint first.",
                code="no_secret",
            )
        algorithm = spec.hmac_algorithm.removeprefix("hmac-")
        digest = hmac.digest(secrets[0].encode(), to_bytes(spec.hmac.text(roots)), algorithm)
        roots["hmac"] = {"hex": digest.hex(), "base64": base64.b64encode(digest).decode()}
    content, content_type = b"", spec.content_type
    if spec.json is not None:
        content, content_type = orjson.dumps(spec.json.render(roots)), "application/json"
    elif spec.text is not None:
        content = to_bytes(spec.text.text(roots))
    headers = {name: template.text(roots) for name, template in spec.headers.items()}
    secret = spec.secret.text(roots) if spec.secret is not None else None
    return HandshakeAnswer(spec.status, content, content_type, headers, secret)
