"""AWS Signature Version 4: what has to be added to a request so that AWS takes it; pure.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from schemas.settings import Secret

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_PORTS: Final = {"http": 80, "https": 443}
# What proxies and clients change or add on the way; it must not be part of the signature.
_NOT_SIGNED: Final = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "expect", "traceparent"}
    | {"transfer-encoding", "user-agent", "x-amzn-trace-id"}
)


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """What requests are signed with.

    Attributes:
        session_token: Only with temporary keys.
        service: As in the credential scope: `ses`, `sts`.
    """

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None
    region: str
    service: str


def sign(
    keys: AwsKeys,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    at: datetime,
) -> dict[str, str]:
    """Give the headers to add: `X-Amz-Date`, `Authorization` and, with temporary keys, the token.

    Args:
        keys: Whose request it is.
        method: HTTP method.
        url: Absolute and encoded, with its query, as it will be sent.
        headers: That are sent besides; all but a few that change on the way are signed.
        body: As it will be sent.
        at: UTC; AWS takes requests of five minutes around its own clock.
    """
    moment = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"X-Amz-Date": moment}
    if keys.session_token is not None:
        added["X-Amz-Security-Token"] = keys.session_token.reveal()
    if keys.service == "s3":
        added["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    signed = {
        name.lower(): " ".join(value.split())
        for name, value in {**headers, **added, "host": _host(url)}.items()
        if name.lower() not in _NOT_SIGNED
    }
    names = ";".join(sorted(signed))
    scope = f"{moment[:8]}/{keys.region}/{keys.service}/aws4_request"
    request = "\n".join(
        (
            method.upper(),
            _path(url, twice=keys.service != "s3"),
            _query(url),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    text = "\n".join((ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_access_key.reveal()}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    credential = f"Credential={keys.access_key_id}/{scope}"
    signature = _hmac(key, text).hex()
    added["Authorization"] = (
        f"{ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"
    )
    return added


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _host(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = parts.port in (None, _PORTS.get(parts.scheme))
    return host if usual else f"{host}:{parts.port}"


def _path(url: str, *, twice: bool) -> str:
    """Give the canonical path: `.` and `..` resolved and encoded once more; of S3, as it is."""
    path = urlsplit(url).path or "/"
    if not twice:
        return path
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and kept:
            kept.pop()
        elif part not in ("", ".", ".."):
            kept.append(part)
    end = "/" if kept and path.endswith("/") else ""
    return quote("/" + "/".join(kept) + end, safe="/-_.~")


def _query(url: str) -> str:
    """Give the canonical query: each name and value encoded alike, in order of the bytes."""
    pairs = [part.partition("=") for part in re.split("&", urlsplit(url).query) if part]
    return "&".join(
        f"{name}={value}"
        for name, value in sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    )


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text.replace("+", "%20")), safe="-_.~")
