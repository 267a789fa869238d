"""Signs a webhook as its vendor does: the mirror of `ingest.core.vendor_signature`; pure.

What is signed and how is read from the provider file, as it is where it is checked. A vendor that
signs with a key of its own whose other half it publishes (OIDC, SNS, certificates) cannot be
played: nobody but the vendor can make what the check takes.
"""

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk, jwt

from ingest.core.vendor_request import VendorRequest
from ingest.core.vendor_signature import key_of
from nhood.sandbox.sample import RenderedEvent
from schemas.errors import InvalidInput
from schemas.triggers import SignatureSpec, TriggerSpec

# `${headers['x-name']}`, alone: where a template reads the header that we have to write.
_HEADER: Final = re.compile(r"\$\{headers\['([^']+)'\]\}")
_LIFE_S: Final = 180
_HASHES: Final = {"hmac-sha256": "sha256", "hmac-sha1": "sha1"}


def signable(triggers: TriggerSpec) -> SignatureSpec | None:
    """Give the scheme with which this vendor's webhooks can be signed here.

    Returns:
        The first that can; None where the vendor signs nothing.

    Raises:
        InvalidInput: `not_signable`: only the vendor can.
    """
    ours = [one for one in triggers.signatures if one.algorithm in _SCHEMES]
    if ours:
        return ours[0]
    if not triggers.signatures or triggers.signatures[0].algorithm == "none":
        return None
    names = ", ".join(one.algorithm for one in triggers.signatures)
    text = f"Webhooks signed by {names} can only be made by the vendor itself."
    raise InvalidInput(text, code="not_signable")


def sign(
    spec: SignatureSpec | None, event: RenderedEvent, url: str, secret: str, now_s: int
) -> RenderedEvent:
    """Sign a webhook.

    Args:
        spec: The scheme, from `signable`.
        event: What is sent; a header that it has already stays.
        url: Where to, without the event's query.
        secret: What vendor and receiver share; of ed25519 and ECDSA the private key, 32 bytes in
            hexadecimal, whose public half (`public_key`) the receiver knows.
        now_s: UTC, seconds since 1970.
    """
    if spec is None:
        return event
    headers = dict(event.headers)
    if spec.timestamp is not None and (found := _HEADER.fullmatch(spec.timestamp.source)):
        headers.setdefault(found[1], str(now_s))
    dated = replace(event, headers=headers)
    whole = f"{url}?{event.query}" if event.query else url
    request = VendorRequest("POST", whole, event.query, headers, event.content)
    roots = request.roots() | {"item": None}
    if spec.timestamp is not None:
        roots["timestamp"] = spec.timestamp.text(roots)
    elif spec.pairs is not None:
        roots["timestamp"] = str(now_s)
    added = _SCHEMES[spec.algorithm](spec, roots, secret, now_s)
    return replace(dated, headers={**headers, **added})


def public_key(algorithm: str, secret: str) -> str:
    """Give what the receiver is told: the public half of a private key, else the secret itself."""
    if algorithm == "ed25519":
        private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
        return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    if algorithm == "ecdsa-p256-sha256":
        found = _ecdsa_key(secret).public_key()
        der = found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()
    return secret


def _signed(spec: SignatureSpec, roots: Mapping[str, Any], secret: str = "") -> bytes:
    if spec.signed is None:
        raise InvalidInput("The scheme does not say what is signed.", code="bad_provider")
    text = spec.signed.text({**roots, "secret": secret})
    return text.encode("utf-8", "surrogateescape")


def _header(spec: SignatureSpec, roots: Mapping[str, Any], signature: bytes) -> dict[str, str]:
    text = signature.hex() if spec.encoding == "hex" else base64.b64encode(signature).decode()
    if spec.pairs is not None:
        timestamp, name = spec.pairs
        return {spec.header: f"{timestamp}={roots['timestamp']},{name}={text}"}
    return {spec.header: spec.prefix + text}


def _hmac(
    spec: SignatureSpec, roots: Mapping[str, Any], secret: str, _now_s: int
) -> dict[str, str]:
    digest = hmac.digest(key_of(spec, secret), _signed(spec, roots), _HASHES[spec.algorithm])
    return _header(spec, roots, digest)


def _plain_hash(
    spec: SignatureSpec, roots: Mapping[str, Any], secret: str, _now_s: int
) -> dict[str, str]:
    return _header(spec, roots, sha256(_signed(spec, roots, secret)).digest())


def _ed25519(
    spec: SignatureSpec, roots: Mapping[str, Any], secret: str, _now_s: int
) -> dict[str, str]:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    return _header(spec, roots, private.sign(_signed(spec, roots)))


def _ecdsa(
    spec: SignatureSpec, roots: Mapping[str, Any], secret: str, _now_s: int
) -> dict[str, str]:
    signature = _ecdsa_key(secret).sign(_signed(spec, roots), ec.ECDSA(SHA256()))
    return _header(spec, roots, signature)


def _ecdsa_key(secret: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(secret, 16), ec.SECP256R1())


def _token(
    spec: SignatureSpec, _roots: Mapping[str, Any], secret: str, _now_s: int
) -> dict[str, str]:
    """Put the secret into its header; in a body the sample has it as `${secret}`."""
    if spec.value is None:
        return {spec.header: secret}
    found = _HEADER.fullmatch(spec.value.source)
    return {found[1]: secret} if found else {}


def _basic(
    spec: SignatureSpec, _roots: Mapping[str, Any], secret: str, _now_s: int
) -> dict[str, str]:
    return {spec.header: f"Basic {base64.b64encode(secret.encode()).decode()}"}


def _jwt(spec: SignatureSpec, _roots: Mapping[str, Any], secret: str, now_s: int) -> dict[str, str]:
    claims = {"iat": now_s, "exp": now_s + _LIFE_S}
    token = jwt.encode({"alg": "HS256"}, claims, jwk.OctKey.import_key(secret.encode()))
    return {spec.header: f"{spec.prefix}{token}"}


_Scheme = Callable[[SignatureSpec, Mapping[str, Any], str, int], dict[str, str]]
_SCHEMES: Final[Mapping[str, _Scheme]] = {
    "hmac-sha256": _hmac,
    "hmac-sha1": _hmac,
    "sha256": _plain_hash,
    "ed25519": _ed25519,
    "ecdsa-p256-sha256": _ecdsa,
    "token": _token,
    "basic": _basic,
    "jwt-hs256": _jwt,
}
