"""Tokens of people: refresh and invitation tokens, and the signed access tokens; pure.

    access    JWT (RFC 7519, profile of RFC 9068), Ed25519, 15 min: says who and which session
    refresh   `nhood_rt_…`, 256 random bits, good once; 7 d each, 30 d in all
    invite    `nhood_inv_…`, 256 random bits, good once, 7 d

Of the random ones only a SHA-256 is kept: no list of guesses reaches 256 bits.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from schemas.ids import is_id
from schemas.settings import Secret

ACCESS_S: Final = 15 * 60
REFRESH_S: Final = 7 * 24 * 3600
# However often it is refreshed, a log-in ends then, and the password is asked again.
SESSION_S: Final = 30 * 24 * 3600
# A token that was just used may come again, from a second tab: that is no theft yet.
REUSE_GRACE_S: Final = 10
INVITATION_S: Final = 7 * 24 * 3600
# Clocks of two gateways may differ by so much.
LEEWAY_S: Final = 5
TOKEN_BYTES: Final = 32
# A JWT of ours has under 600 characters.
_ACCESS_CHARS_MAX: Final = 2_048

ALGORITHM: Final = "Ed25519"
_TYPE: Final = "at+jwt"
_REFRESH = re.compile(r"nhood_rt_[A-Za-z0-9_-]{43}")
_INVITATION = re.compile(r"nhood_inv_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Bearer:
    """What an access token says.

    Attributes:
        person_id: `per_…`
        session_id: `ses_…`; whether it still lives is not in the token.
    """

    person_id: str
    session_id: str


def new_refresh_token(randomness: bytes) -> Secret:
    """Make `nhood_rt_…` of `TOKEN_BYTES` random bytes."""
    return Secret(f"nhood_rt_{_written(randomness)}")


def new_invitation_token(randomness: bytes) -> Secret:
    """Make `nhood_inv_…` of `TOKEN_BYTES` random bytes."""
    return Secret(f"nhood_inv_{_written(randomness)}")


def looks_like_refresh_token(text: str) -> bool:
    """Say whether a text has the form; what has not is never looked up."""
    return _REFRESH.fullmatch(text) is not None


def looks_like_invitation(text: str) -> bool:
    """Say whether a text has the form; what has not is never looked up."""
    return _INVITATION.fullmatch(text) is not None


def digest(token: str) -> bytes:
    """Give what is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def normal_email(email: str) -> str:
    """Give the one form of an address: people do not mind its case."""
    return email.strip().lower()


def sign(key: OKPKey, kid: str, bearer: Bearer, issuer: str, now: datetime) -> Secret:
    """Write an access token that is good for `ACCESS_S` seconds.

    Args:
        key: Private.
        kid: Its name, for the header.
        bearer: What it says.
        issuer: Address of the gateway.
        now: UTC.
    """
    seconds = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience(issuer),
        "sub": bearer.person_id,
        "sid": bearer.session_id,
        "iat": seconds,
        "nbf": seconds,
        "exp": seconds + ACCESS_S,
    }
    header = {"alg": ALGORITHM, "typ": _TYPE, "kid": kid}
    return Secret(jwt.encode(header, claims, key, algorithms=[ALGORITHM]))


def kid_of(token: str) -> str | None:
    """Name the key that a token claims to be signed with; None where it is no token of ours.

    Whatever the token asks for, no algorithm but ours is ever tried.
    """
    if len(token) > _ACCESS_CHARS_MAX or token.count(".") != 2:
        return None
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError):
        return None
    kid = header.get("kid")
    ours = header.get("alg") == ALGORITHM and header.get("typ") == _TYPE and "crit" not in header
    return kid if ours and isinstance(kid, str) and is_id("sig", kid) else None


def verify(token: str, key: OKPKey, issuer: str, now: datetime) -> Bearer | None:
    """Read an access token.

    Returns:
        None where the signature, issuer, audience or times are not right.
    """
    rules = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=LEEWAY_S,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience(issuer)},
        exp={"essential": True},
        nbf={"essential": True},
        iat={"essential": True},
    )
    try:
        claims = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        rules.validate(claims)
    except (JoseError, ValueError):
        return None
    person, session = claims.get("sub"), claims.get("sid")
    if not (isinstance(person, str) and is_id("per", person)):
        return None
    if not (isinstance(session, str) and is_id("ses", session)):
        return None
    return Bearer(person, session)


def audience(issuer: str) -> str:
    """Name what access tokens are for."""
    return f"{issuer}/api"


def _written(randomness: bytes) -> str:
    return base64.urlsafe_b64encode(randomness[:TOKEN_BYTES]).rstrip(b"=").decode()
