"""Every way in which vendors sign, with keys made here: right, tampered, stale, of another key."""

import base64
import hashlib
import hmac
import json
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from joserfc import jwk, jwt

from ingest.core.signature import Absent, Invalid, Valid
from ingest.core.sns import sns_text
from ingest.core.vendor_request import VendorRequest
from ingest.core.vendor_signature import check, choose
from schemas.expression import Template
from schemas.triggers import SignatureSpec

NOW = 1_780_000_000
BODY = b'{"id": "evt_1", "n": 1.50, "text": "\xc3\xa4"}'
SECRET = "s3cret-of-the-app"
URL = "https://nhood.example/hooks/hook_1"


def request(headers=None, content=BODY, query="", method="POST"):
    url = f"{URL}?{query}" if query else URL
    return VendorRequest(method, url, query, {k.lower(): v for k, v in (headers or {}).items()},
                         content)  # fmt: skip


def hashed(text, algorithm="sha256", secret=SECRET):
    return hmac.new(secret.encode(), text, algorithm)


def spec(**more):
    data = {"algorithm": "hmac-sha256", "header": "x-sig", "signed": Template("${raw}")} | more
    return SignatureSpec(**data)


TIMED = {"timestamp": Template("${headers['x-time']}"), "tolerance_s": 300}

# name → scheme, request, secrets, keys
KEY = ed25519.Ed25519PrivateKey.generate()
CURVE = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vendor.example")])
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(RSA.public_key())
    .serial_number(1)
    .not_valid_before(datetime.fromtimestamp(NOW, UTC) - timedelta(days=1))
    .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=1))
    .sign(RSA, SHA256())
    .public_bytes(Encoding.PEM)
)
OIDC_KEY = jwk.RSAKey.generate_key(2048, parameters={"kid": "k1"})
OIDC_KEYS = json.dumps({"keys": [OIDC_KEY.as_dict(private=False)]}).encode()


def raw_public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def der_public(key):
    found = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(found).decode()


def token(claims, key=None, algorithm="HS256"):
    signer = key or jwk.OctKey.import_key(SECRET.encode())
    return jwt.encode({"alg": algorithm, "kid": "k1"}, claims, signer)


def sns_body(**more):
    body = {
        "Type": "Notification", "MessageId": "m-1", "TopicArn": "arn:aws:sns:eu:1:t",
        "Message": "hello", "Timestamp": datetime.fromtimestamp(NOW, UTC).isoformat(),
        "SignatureVersion": "2", "SigningCertURL": "https://sns.eu.amazonaws.com/c.pem",
    } | more  # fmt: skip
    signature = RSA.sign(sns_text(body).encode(), padding.PKCS1v15(), SHA256())
    return json.dumps(body | {"Signature": base64.b64encode(signature).decode()}).encode()


TIMED_TEXT = f"v0:{NOW}:".encode() + BODY
CASES = {
    "hex": (spec(), request({"X-Sig": hashed(BODY).hexdigest()}), [SECRET], None),
    "prefix": (
        spec(prefix="sha256="),
        request({"X-Sig": "sha256=" + hashed(BODY).hexdigest()}),
        [SECRET],
        None,
    ),
    "base64 sha1 over address and body": (
        spec(algorithm="hmac-sha1", encoding="base64", signed=Template("${url}${raw}")),
        request({"X-Sig": base64.b64encode(
            hashed(f"{URL}?a=1".encode() + BODY, "sha1").digest()).decode()}, query="a=1"),
        [SECRET],
        None,
    ),
    "time beside it": (
        spec(prefix="v0=", signed=Template("v0:${timestamp}:${raw}"), **TIMED),
        request({"X-Sig": "v0=" + hashed(TIMED_TEXT).hexdigest(), "X-Time": str(NOW)}),
        [SECRET],
        None,
    ),
    "pairs": (
        spec(pairs=("t", "v1"), signed=Template("${timestamp}.${raw}"), tolerance_s=300),
        request({"X-Sig": f"t={NOW},v1={'0' * 64},v1="
                 + hashed(f"{NOW}.".encode() + BODY).hexdigest()}),
        ["another", SECRET],
        None,
    ),
    "milliseconds": (
        spec(signed=Template("${method}${url}${raw}${timestamp}"), encoding="base64", **TIMED),
        request({"X-Time": f"{NOW}000", "X-Sig": base64.b64encode(hashed(
            b"POST" + URL.encode() + BODY + f"{NOW}000".encode()).digest()).decode()}),
        [SECRET],
        None,
    ),
    "key in base 64": (
        spec(key="base64"),
        request({"X-Sig": hashed(BODY, secret="raw key").hexdigest()}),
        [base64.b64encode(b"raw key").decode()],
        None,
    ),
    "plain hash with the secret in it": (
        spec(algorithm="sha256", signed=Template("${secret}${raw}")),
        request({"X-Sig": hashlib.sha256(SECRET.encode() + BODY).hexdigest()}),
        [SECRET],
        None,
    ),
    "ed25519": (
        spec(algorithm="ed25519", signed=Template("${timestamp}${raw}"), **TIMED),
        request({"X-Sig": KEY.sign(str(NOW).encode() + BODY).hex(), "X-Time": str(NOW)}),
        [raw_public(KEY)],
        None,
    ),
    "ecdsa": (
        spec(algorithm="ecdsa-p256-sha256", encoding="base64"),
        request({"X-Sig": base64.b64encode(CURVE.sign(BODY, ec.ECDSA(SHA256()))).decode()}),
        [der_public(CURVE)],
        None,
    ),
    "jwt": (
        spec(algorithm="jwt-hs256", header="authorization", signed=None),
        request({"Authorization": "Bearer " + token({"iss": "app", "exp": NOW + 60})}),
        [SECRET],
        None,
    ),
    "oidc": (
        spec(algorithm="oidc", header="authorization", signed=None, issuer="https://idp.example"),
        request({"Authorization": "Bearer " + token(
            {"iss": "https://idp.example", "aud": URL, "exp": NOW + 60}, OIDC_KEY, "RS256")}),
        [],
        OIDC_KEYS,
    ),
    "sns": (
        SignatureSpec(algorithm="sns", timestamp=Template("${body.Timestamp}"), tolerance_s=3600),
        request(content=sns_body()),
        [],
        CERTIFICATE,
    ),
    "certificate": (
        spec(algorithm="rsa-sha256-cert", encoding="base64"),
        request({"X-Sig": base64.b64encode(
            RSA.sign(BODY, padding.PKCS1v15(), SHA256())).decode()}),
        [],
        CERTIFICATE,
    ),
    "certificate over a sum and the secret": (
        spec(algorithm="rsa-sha256-cert", encoding="base64",
             signed=Template("${headers['x-id']}|${secret}|${raw | crc32}")),
        request({"X-Id": "d-1", "X-Sig": base64.b64encode(RSA.sign(
            f"d-1|{SECRET}|{zlib.crc32(BODY)}".encode(), padding.PKCS1v15(), SHA256())).decode()}),
        ["another", SECRET],
        CERTIFICATE,
    ),
    "basic": (
        spec(algorithm="basic", header="authorization", signed=None),
        request({"Authorization": "Basic " + base64.b64encode(SECRET.encode()).decode()}),
        [SECRET],
        None,
    ),
    "token": (
        SignatureSpec(algorithm="token", value=Template("${query.key}")),
        request(query=f"key={SECRET}"),
        [SECRET],
        None,
    ),
}  # fmt: skip
COVERS_BODY = set(CASES) - {"jwt", "oidc", "basic", "token", "sns"}
TIMED_ONES = {"time beside it", "pairs", "milliseconds", "ed25519", "sns"}
SHARED = {"hex", "prefix", "time beside it", "jwt", "basic", "token", "ed25519", "ecdsa"} | {
    "certificate over a sum and the secret"
}


@pytest.mark.parametrize("case", CASES)
def test_right_one_is_taken(case):
    scheme, came, secrets, keys = CASES[case]
    assert isinstance(check(scheme, came, secrets, NOW, keys), Valid)


@pytest.mark.parametrize("case", sorted(COVERS_BODY))
def test_tampered_body_is_refused(case):
    scheme, came, secrets, keys = CASES[case]
    other = VendorRequest(came.method, came.url, came.query, came.headers, BODY + b" ")
    assert check(scheme, other, secrets, NOW, keys).code == "wrong_signature"


def test_tampered_sns_message_is_refused():
    scheme, _, secrets, keys = CASES["sns"]
    other = sns_body().replace(b"hello", b"hullo")
    assert check(scheme, request(content=other), secrets, NOW, keys).code == "wrong_signature"


@pytest.mark.parametrize("case", sorted(SHARED))
def test_another_secret_is_refused(case):
    scheme, came, _, keys = CASES[case]
    others = {
        "ed25519": raw_public(ed25519.Ed25519PrivateKey.generate()),
        "ecdsa": der_public(ec.generate_private_key(ec.SECP256R1())),
    }
    verdict = check(scheme, came, [others.get(case, "another secret, of nobody")], NOW, keys)
    assert verdict.code == "wrong_signature"


@pytest.mark.parametrize("case", sorted(TIMED_ONES))
@pytest.mark.parametrize(("ahead", "code"), [(4000, "stale"), (-4000, "future")])
def test_request_of_another_time_is_refused(case, ahead, code):
    scheme, came, secrets, keys = CASES[case]
    assert check(scheme, came, secrets, NOW + ahead, keys).code == f"{code}_timestamp"


@pytest.mark.parametrize("case", ["jwt", "oidc"])
def test_token_that_has_ended_is_refused(case):
    scheme, came, secrets, keys = CASES[case]
    assert check(scheme, came, secrets, NOW + 1000, keys).code == "stale_timestamp"


def test_token_for_another_address_is_refused():
    scheme, came, secrets, keys = CASES["oidc"]
    other = VendorRequest("POST", f"{URL}2", "", came.headers, BODY)
    assert check(scheme, other, secrets, NOW, keys).code == "wrong_audience"


def test_token_of_another_issuer_or_key_is_refused():
    scheme, _, secrets, keys = CASES["oidc"]
    claims = {"iss": "https://evil.example", "aud": URL, "exp": NOW + 60}
    other = request({"Authorization": "Bearer " + token(claims, OIDC_KEY, "RS256")})
    assert check(scheme, other, secrets, NOW, keys).code == "wrong_signature"
    unsigned = request(
        {"Authorization": "Bearer " + token(claims | {"iss": "https://idp.example"})}
    )
    assert check(scheme, unsigned, secrets, NOW, keys).code == "wrong_signature"


@pytest.mark.parametrize("case", ["oidc", "sns", "certificate"])
def test_keys_that_cannot_be_had_let_nobody_in(case):
    scheme, came, secrets, _ = CASES[case]
    assert check(scheme, came, secrets, NOW, None).code == "keys_unavailable"


def test_certificate_that_has_ended_is_refused():
    scheme, came, secrets, keys = CASES["certificate"]
    assert check(scheme, came, secrets, NOW + 200_000, keys).code == "wrong_signature"


@pytest.mark.parametrize("case", sorted(set(CASES) - {"oidc", "sns", "certificate"}))
def test_scheme_without_a_secret_lets_nobody_in(case):
    scheme, came, _, keys = CASES[case]
    assert check(scheme, came, [], NOW, keys).code == "no_secret"


@pytest.mark.parametrize("case", sorted(set(CASES) - {"token", "sns"}))
@pytest.mark.parametrize("given", ["", "v0=", "zz", "Bearer x.y.z", "t=,v1=", "Basic ?", "ä"])
def test_broken_header_is_refused_and_never_raises(case, given):
    scheme, came, secrets, keys = CASES[case]
    header = scheme.header
    other = VendorRequest(came.method, came.url, came.query, {**came.headers, header: given}, BODY)
    assert isinstance(check(scheme, other, secrets, NOW, keys), Invalid)


def test_old_secret_is_good_beside_the_new_one():
    scheme, came, secrets, _ = CASES["hex"]
    assert isinstance(check(scheme, came, ["new", *secrets], NOW), Valid)


def test_body_that_is_not_text_keeps_its_bytes():
    content = b"\xff\xfe\x00 binary"
    came = request({"X-Sig": hashed(content).hexdigest()}, content)
    assert isinstance(check(spec(), came, [SECRET], NOW), Valid)


def test_vendor_that_signs_nothing_is_told_apart():
    assert isinstance(check(None, request(), [], NOW), Absent)


def test_leaving_a_header_out_does_not_choose_a_weaker_scheme():
    strong, weak = spec(header="x-strong"), spec(header="x-weak")
    assert choose([strong, weak], {"x-weak": "1"}) is weak
    came = request()
    chosen = choose([strong, weak], came.headers)
    assert chosen is strong
    assert check(chosen, came, [SECRET], NOW).code == "signature_required"
