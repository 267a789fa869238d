"""Credentials that a customer entered, as the sandbox knows them.

`sandbox_token` stands for every secret: an API key, a password, the secret of a client or of AWS
keys. It opens an account of its own at every vendor, and with more behind it
(`sandbox_token_acme`) another one. Signatures are checked as AWS checks them.
"""

import base64
import binascii
import hmac
import re
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_plus

from nhood.sandbox.vendor import Vendor
from nhood.sandbox.wire_in import Incoming
from schemas.provider_auth import AuthSpec
from schemas.settings import Secret
from token_vault.core.sigv4 import AwsKeys, sign

PASTED_TOKEN: Final = "sandbox_token"  # noqa: S105 - opens nothing but the sandbox
_ACCOUNT: Final = "pasted"
_SECRET: Final = re.compile(rf"(?<![\w-]){PASTED_TOKEN}(?:[_-](\w+))?(?![\w-])", re.ASCII)
_SIGNED: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request,"
    r" SignedHeaders=([^,]+), Signature=[0-9a-f]{64}"
)


def account_of(vendor: Vendor, incoming: Incoming) -> str | None:
    """Find the account that a request's entered credentials open; None where they open none."""
    # As a token of a consent it opens that account too: programs use it where nobody consented.
    for way in (*vendor.entered, vendor.spec.auth):
        found = _signer(way, vendor, incoming) if way.signing else _holder(way, incoming)
        if found is not None:
            return found
    return None


def client_of(vendor: Vendor, incoming: Incoming) -> tuple[AuthSpec, str] | None:
    """Find the account of a client that asks for a token of its own; None where it has none."""
    data = incoming.data if isinstance(incoming.data, dict) else {}
    for way in vendor.entered:
        if way.kind != "client_credentials":
            continue
        secret = str(data.get("client_secret", ""))
        if way.token_json is not None:
            secret = incoming.body.decode("utf-8", "replace")
        elif way.client_auth == "basic":
            secret = unquote_plus(_plain(incoming.headers.get("authorization", "")))
        account = _account(secret)
        if account is not None:
            return way, account
    return None


def _holder(way: AuthSpec, incoming: Incoming) -> str | None:
    return _account(_plain(incoming.headers.get(way.token_header[0].lower(), "")))


def _account(text: str) -> str | None:
    found = _SECRET.search(text)
    return None if found is None else found[1] or _ACCOUNT


def _plain(value: str) -> str:
    """Give a header's value, HTTP basic decoded."""
    kind, _, text = value.partition(" ")
    if kind.lower() != "basic":
        return value
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _signer(way: AuthSpec, vendor: Vendor, incoming: Incoming) -> str | None:
    """Check a signature; whose the access key is, is told by nothing: all open one account."""
    given = incoming.headers.get("authorization", "")
    found = _SIGNED.fullmatch(given)
    moment = incoming.headers.get("x-amz-date", "")
    if found is None or way.signing is None or found[3] != way.signing.service:
        return None
    try:
        at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    session = incoming.headers.get("x-amz-security-token")
    keys = AwsKeys(
        found[1], Secret(PASTED_TOKEN), Secret(session) if session else None, *found.group(2, 3)
    )
    query = f"?{incoming.query}" if incoming.query else ""
    url = f"http://{incoming.headers.get('host', '')}/{vendor.spec.slug}{incoming.path}{query}"
    named = {name: incoming.headers.get(name, "") for name in found[4].split(";")}
    wanted = sign(keys, incoming.method, url, named, incoming.body, at)["Authorization"]
    return _ACCOUNT if hmac.compare_digest(wanted, given) else None
