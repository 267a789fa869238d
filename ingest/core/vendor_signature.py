"""Whether a webhook is the vendor's own: every scheme that vendors use, as data; pure.

    verdict = check(spec, request, secrets, now_s, keys)    Valid | Invalid | Absent

`Absent`: the vendor signs nothing, and the address alone, which nobody can guess, vouches for it.
Where several schemes are declared the first whose header came along counts, so an attacker cannot
choose a weaker one by leaving a header out: a scheme without its header is refused in the end.
Comparisons take a time that does not depend on where texts differ.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from ingest.core.signature import Absent, Invalid, Valid, Verdict
from ingest.core.sns import sns_text
from ingest.core.vendor_request import VendorRequest, to_bytes
from schemas.errors import InvalidInput
from schemas.triggers import SignatureSpec

_HASHES: Final = {
    "hmac-sha256": hashlib.sha256, "hmac-sha1": hashlib.sha1, "sha256": hashlib.sha256,
}  # fmt: skip
_SIGNATURES_MAX: Final = 8
_MS: Final = 100_000_000_000  # seconds since 1970 are fewer until the year 5138
_LEEWAY_S: Final = 60
_WRONG: Final = Invalid(
    "wrong_signature", "No secret known for this address made the signature: set the right one."
)
_NO_SECRET: Final = Invalid(
    "no_secret", "The secret that the vendor signs with was not told: set it on the endpoint."
)


def choose(signatures: Sequence[SignatureSpec], headers: Mapping[str, str]) -> SignatureSpec | None:
    """Choose the scheme that a request uses: the first whose header it bears, else the first."""
    for spec in signatures:
        if not spec.header or spec.header in headers:
            return spec
    return signatures[0] if signatures else None


def check(
    spec: SignatureSpec | None,
    request: VendorRequest,
    secrets: Sequence[str],
    now_s: float,
    keys: bytes | None = None,
    item: object = None,
) -> Verdict:
    """Check a request.

    Args:
        spec: The scheme; None: the vendor signs nothing.
        request: As it came.
        secrets: The live ones; two while one replaces the other.
        now_s: UTC, seconds since 1970.
        keys: What stands at the scheme's `keys` address, where it has one.
        item: One event, where each bears the secret itself.
    """
    if spec is None or spec.algorithm == "none":
        return Absent()
    if not spec.keyless and not secrets:
        return _NO_SECRET
    roots = request.roots() | {"item": item}
    given = request.headers.get(spec.header, "") if spec.header else ""
    if spec.header and not given:
        return Invalid("signature_required", f"The header {spec.header} is missing.")
    try:
        return _SCHEMES[spec.algorithm](_Case(spec, request, roots, given, secrets, now_s, keys))
    except (InvalidInput, ValueError, binascii.Error, KeyError, TypeError) as error:
        return Invalid("malformed", f"The signature cannot be read: {type(error).__name__}.")


class _Case:
    """One request under one scheme."""

    def __init__(  # noqa: PLR0913 - everything that a scheme may look at
        self,
        spec: SignatureSpec,
        request: VendorRequest,
        roots: dict[str, Any],
        given: str,
        secrets: Sequence[str],
        now_s: float,
        keys: bytes | None,
    ) -> None:
        self.spec, self.request, self.roots, self.given = spec, request, roots, given
        self.secrets, self.now_s, self.keys = secrets, now_s, keys

    def signatures(self) -> list[str]:
        """Give the signatures in the header; notes the timestamp that stands beside them."""
        if self.spec.pairs is not None:
            timestamp, name = self.spec.pairs
            parts = [part.strip().partition("=") for part in self.given.split(",")]
            self.roots["timestamp"] = next((v for k, _, v in parts if k == timestamp), "")
            return [value for key, _, value in parts if key == name][:_SIGNATURES_MAX]
        prefix = self.spec.prefix
        if not self.given.startswith(prefix):
            raise ValueError("prefix")
        return [self.given[len(prefix) :]]

    def late(self) -> Invalid | None:
        """Read the timestamp into the roots and refuse one that is too far from now."""
        if self.spec.timestamp is not None:
            self.roots["timestamp"] = self.spec.timestamp.text(self.roots)
        if self.spec.tolerance_s is None:
            return None
        age = self.now_s - _seconds(self.roots["timestamp"])
        if abs(age) <= self.spec.tolerance_s:
            return None
        code = "stale_timestamp" if age > 0 else "future_timestamp"
        return Invalid(
            code,
            f"The request's time is {abs(age):.0f} s off, {self.spec.tolerance_s} s are allowed:"
            " it was recorded and sent again, or a clock is wrong.",
        )

    def signed(self, secret: str = "") -> bytes:
        """Give what was signed."""
        if self.spec.signed is None:  # the compiled file has it wherever a scheme signs
            raise ValueError("signed")
        return to_bytes(self.spec.signed.text(self.roots | {"secret": secret}))

    def decoded(self, signature: str) -> bytes:
        """Give a signature's bytes."""
        if self.spec.encoding == "hex":
            return bytes.fromhex(signature)
        return base64.b64decode(signature, validate=True)


def _seconds(text: str) -> float:
    if text.replace(".", "", 1).isdigit():
        found = float(text)
        return found / 1000 if found >= _MS else found
    return datetime.fromisoformat(text).timestamp()


def key_of(spec: SignatureSpec, secret: str) -> bytes:
    """Make the key of an HMAC from a secret's text."""
    if spec.key == "base64":
        return base64.b64decode(secret)
    if spec.key == "hex":
        return bytes.fromhex(secret)
    if spec.key == "whsec":
        return base64.b64decode(secret.removeprefix("whsec_"))
    return secret.encode()


def _hashed(case: _Case) -> Verdict:
    signatures = [case.decoded(one) for one in case.signatures()]
    late = case.late()
    if late is not None:
        return late
    found = False
    for secret in case.secrets:
        algorithm = _HASHES[case.spec.algorithm]
        if case.spec.algorithm == "sha256":
            expected = algorithm(case.signed(secret)).digest()
        else:
            expected = hmac.digest(key_of(case.spec, secret), case.signed(), algorithm)
        for signature in signatures:
            found |= hmac.compare_digest(expected, signature)
    return Valid() if found else _WRONG


def _public(case: _Case) -> Verdict:
    (signature,) = (case.decoded(one) for one in case.signatures())
    late = case.late()
    if late is not None:
        return late
    for secret in case.secrets:
        try:
            if case.spec.algorithm == "ed25519":
                key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(secret))
                key.verify(signature, case.signed())
            else:
                loaded = load_der_public_key(base64.b64decode(secret))
                if not isinstance(loaded, ec.EllipticCurvePublicKey):
                    continue
                loaded.verify(signature, case.signed(), ec.ECDSA(SHA256()))
        except InvalidSignature:
            continue
        return Valid()
    return _WRONG


def _token(case: _Case) -> Verdict:
    value = case.spec.value.text(case.roots) if case.spec.value is not None else case.given
    found = False
    for secret in case.secrets:
        found |= hmac.compare_digest(value.encode(), secret.encode())
    return Valid() if found else _WRONG


def _basic(case: _Case) -> Verdict:
    scheme, _, value = case.given.partition(" ")
    if scheme.lower() != "basic":
        return _WRONG
    given = base64.b64decode(value, validate=True)
    found = False
    for secret in case.secrets:
        found |= hmac.compare_digest(given, secret.encode())
    return Valid() if found else _WRONG


def _jwt(case: _Case) -> Verdict:
    token = case.given.removeprefix("Bearer ").strip()
    for secret in case.secrets:
        try:
            claims = jwt.decode(
                token, jwk.OctKey.import_key(secret.encode()), algorithms=["HS256"]
            ).claims
        except JoseError:
            continue
        return _claims(case, claims)
    return _WRONG


def _oidc(case: _Case) -> Verdict:
    if case.keys is None:
        return Invalid("keys_unavailable", "The vendor's keys could not be fetched.")
    token = case.given.removeprefix("Bearer ").strip()
    try:
        claims = jwt.decode(
            token, jwk.KeySet.import_key_set(_json(case.keys)), algorithms=["RS256", "ES256"]
        ).claims
    except JoseError:
        return _WRONG
    if case.spec.issuer and claims.get("iss") != case.spec.issuer:
        return _WRONG
    audience = claims.get("aud")
    if audience != case.request.url and audience not in case.secrets:
        return Invalid("wrong_audience", "The token is meant for another address.")
    return _claims(case, claims)


def _claims(case: _Case, claims: Mapping[str, Any]) -> Verdict:
    until, begins = claims.get("exp"), claims.get("nbf", 0)
    if until is not None and case.now_s > float(until) + _LEEWAY_S:
        return Invalid("stale_timestamp", "The token has ended.")
    if case.now_s < float(begins) - _LEEWAY_S:
        return Invalid("future_timestamp", "The token has not begun.")
    return Valid()


def _sns(case: _Case) -> Verdict:
    body = case.request.body
    late = case.late()
    if late is not None:
        return late
    # Version 1 is what topics sign with unless told otherwise.
    hashed = SHA1() if body["SignatureVersion"] == "1" else SHA256()  # noqa: S303
    return _certified(case, sns_text(body).encode(), base64.b64decode(body["Signature"]), hashed)


def _certificate(case: _Case) -> Verdict:
    (signature,) = (case.decoded(one) for one in case.signatures())
    late = case.late()
    if late is not None:
        return late
    verdict: Verdict = _WRONG
    for secret in case.secrets or ("",):
        verdict = _certified(case, case.signed(secret), signature, SHA256())
        if isinstance(verdict, Valid):
            break
    return verdict


def _certified(case: _Case, text: bytes, signature: bytes, hashed: SHA1 | SHA256) -> Verdict:
    from cryptography.x509 import load_pem_x509_certificate

    if case.keys is None:
        return Invalid("keys_unavailable", "The vendor's certificate could not be fetched.")
    key: object
    if b"BEGIN CERTIFICATE" in case.keys:
        certificate = load_pem_x509_certificate(case.keys)
        begins = certificate.not_valid_before_utc.timestamp()
        if not begins <= case.now_s <= certificate.not_valid_after_utc.timestamp():
            return _WRONG
        key = certificate.public_key()
    else:
        key = load_pem_public_key(case.keys)
    if not isinstance(key, rsa.RSAPublicKey):
        return _WRONG
    try:
        key.verify(signature, text, padding.PKCS1v15(), hashed)
    except InvalidSignature:
        return _WRONG
    return Valid()


def _json(data: bytes) -> Any:  # noqa: ANN401 - JSON values
    import orjson

    return orjson.loads(data)


_SCHEMES: Final[Mapping[str, Callable[[_Case], Verdict]]] = {
    "hmac-sha256": _hashed,
    "hmac-sha1": _hashed,
    "sha256": _hashed,
    "ed25519": _public,
    "ecdsa-p256-sha256": _public,
    "jwt-hs256": _jwt,
    "oidc": _oidc,
    "sns": _sns,
    "rsa-sha256-cert": _certificate,
    "basic": _basic,
    "token": _token,
}
