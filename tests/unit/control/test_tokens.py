"""Access tokens: what is checked before one is believed."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from control.core.tokens import (
    ACCESS_S,
    LEEWAY_S,
    Bearer,
    audience,
    digest,
    kid_of,
    looks_like_invitation,
    looks_like_refresh_token,
    new_invitation_token,
    new_refresh_token,
    normal_email,
    sign,
    verify,
)
from schemas.ids import new_id

KID = new_id("sig", 1, bytes(10))
KEY = OKPKey.generate_key("Ed25519", {"kid": KID}, private=True)
WHO = Bearer(new_id("per", 2, bytes(10)), new_id("ses", 3, bytes(10)))
ISSUER = "https://gateway.example"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = sign(KEY, KID, WHO, ISSUER, NOW).reveal()


def forged(header=None, claims=None, key=KEY, drop=()):
    seconds = int(NOW.timestamp())
    said = {
        "iss": ISSUER,
        "aud": audience(ISSUER),
        "sub": WHO.person_id,
        "sid": WHO.session_id,
        "iat": seconds,
        "nbf": seconds,
        "exp": seconds + ACCESS_S,
    } | (claims or {})
    said = {name: value for name, value in said.items() if name not in drop}
    top = {"alg": "Ed25519", "typ": "at+jwt", "kid": KID} | (header or {})
    return jwt.encode(top, said, key, algorithms=["Ed25519"])


def _part(value):
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


def test_token_gives_back_who_and_which_session():
    assert kid_of(TOKEN) == KID
    assert verify(TOKEN, KEY, ISSUER, NOW) == WHO
    assert verify(forged(), KEY, ISSUER, NOW) == WHO


@pytest.mark.parametrize(
    ("seconds", "is_good"),
    [
        (-LEEWAY_S - 1, False),
        (-LEEWAY_S, True),
        (ACCESS_S - 1, True),
        (ACCESS_S + LEEWAY_S + 1, False),
    ],
)
def test_token_is_good_from_its_making_to_its_end(seconds, is_good):
    found = verify(TOKEN, KEY, ISSUER, NOW + timedelta(seconds=seconds))
    assert (found is not None) == is_good


@pytest.mark.parametrize(
    "token",
    [
        forged(claims={"iss": "https://evil.example"}),
        forged(claims={"aud": "https://gateway.example"}),
        forged(claims={"sub": "ws_1"}),
        forged(claims={"sid": None}),
        *(forged(drop=[name]) for name in ("iss", "aud", "exp", "nbf", "iat", "sub", "sid")),
        forged(key=OKPKey.generate_key("Ed25519", private=True)),
        TOKEN[:-2],
        TOKEN.rpartition(".")[0] + ".",
    ],
)
def test_token_with_anything_wrong_is_no_token(token):
    assert verify(token, KEY, ISSUER, NOW) is None


def test_token_of_another_gateway_is_no_token():
    assert verify(TOKEN, KEY, "https://other.example", NOW) is None


@pytest.mark.parametrize(
    "token",
    [
        forged({"typ": "JWT"}),
        f"{_part({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': KID})}.{TOKEN.partition('.')[2]}",
        forged({"kid": "key_1"}),
        forged({"kid": "../../etc/passwd"}),
        "",
        "a.b",
        "..",
        "é.é.é",
        "x" * 3_000,
        TOKEN + ".x",
    ],
)
def test_no_key_is_looked_up_for_what_is_no_token_of_ours(token):
    assert kid_of(token) is None


def test_algorithm_that_the_token_asks_for_is_never_used():
    claims = TOKEN.split(".")[1]
    unsigned = f"{_part({'alg': 'none', 'typ': 'at+jwt', 'kid': KID})}.{claims}."
    # The classic: the public key as a shared secret.
    head = _part({"alg": "HS256", "typ": "at+jwt", "kid": KID}) + "." + claims
    secret = KEY.as_bytes(private=False)
    mark = hmac.new(secret, head.encode(), hashlib.sha256).digest()
    shared = f"{head}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"
    for token in (unsigned, shared):
        assert kid_of(token) is None
        assert verify(token, KEY, ISSUER, NOW) is None


def test_random_tokens_have_their_form_and_are_kept_as_digests():
    refresh = new_refresh_token(bytes(range(32)))
    invitation = new_invitation_token(bytes(range(32)))
    assert looks_like_refresh_token(refresh.reveal())
    assert not looks_like_refresh_token(invitation.reveal())
    assert looks_like_invitation(invitation.reveal())
    assert not looks_like_invitation(refresh.reveal() + "x")
    assert digest(refresh.reveal()) == hashlib.sha256(refresh.reveal().encode()).digest()
    assert "nhood" not in repr(refresh)


def test_address_has_one_form():
    assert normal_email(" Ada@Acme.Example ") == "ada@acme.example"
