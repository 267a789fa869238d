"""What a vendor's webhooks are: the `triggers` section of a provider file, compiled on first use.

    handshake    requests that want an answer and are no event: a challenge, a first call
    signature    how a request proves where it comes from; alternatives are tried in order
    each         the list of events in one request, where a vendor sends several
    event_type, delivery_id, account_id, payload    read from each event

Templates and conditions read `body` (JSON, or a form's fields), `headers` (names in lower case),
`query`, `method`, `url`, `raw` (the body as text), `item` (one event) and `timestamp`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, Literal

from schemas.errors import InvalidInput, Problem
from schemas.expression import Condition, Template, Tree
from schemas.provider import ProviderSpec, Unchanging, nearest

Algorithm = Literal[
    "hmac-sha256", "hmac-sha1", "sha256", "ed25519", "ecdsa-p256-sha256", "jwt-hs256", "oidc",
    "sns", "rsa-sha256-cert", "basic", "token", "none",
]  # fmt: skip
Encoding = Literal["hex", "base64"]
Holder = Literal["app", "subscription", "customer"]

_ALGORITHMS: Final = frozenset(Algorithm.__args__)  # type: ignore[attr-defined]  # a Literal has them
_HASHED: Final = frozenset({"hmac-sha256", "hmac-sha1", "sha256"})
_SIGNED: Final = _HASHED | {"ed25519", "ecdsa-p256-sha256", "rsa-sha256-cert"}
_KEYLESS: Final = frozenset({"none", "oidc", "sns", "rsa-sha256-cert"})


@dataclass(frozen=True, slots=True)
class SignatureSpec:
    """One way in which a vendor proves that a request is its own.

    Attributes:
        header: Where the signature stands, in lower case; empty where `value` tells.
        prefix: What stands before it there: `sha256=`.
        pairs: Names of timestamp and signature where the header is a list such as `t=1,v1=ab`.
        signed: What was signed, a template.
        timestamp: When, a template; None: the vendor says nothing of it.
        tolerance_s: How old a request may be; None: of any age.
        key: How the secret's text becomes the key.
        secret: Who has it: our app's settings at the vendor (`app`), each subscription, or the
            customer who typed it in.
        value: What is compared with the secret itself (`token`), a template.
        keys: Address of the vendor's public keys, a template.
        hosts: Hosts that this address may have, as shell patterns.
        issuer: Of a token.
    """

    algorithm: Algorithm
    header: str = ""
    encoding: Encoding = "hex"
    prefix: str = ""
    pairs: tuple[str, str] | None = None
    signed: Template | None = None
    timestamp: Template | None = None
    tolerance_s: int | None = None
    key: Literal["text", "base64", "hex", "whsec"] = "text"
    secret: Holder = "app"  # noqa: S105 - says who has it
    value: Template | None = None
    keys: Template | None = None
    hosts: tuple[str, ...] = ()
    issuer: str = ""

    @property
    def keyless(self) -> bool:
        """Whether no secret of ours is part of it.

        PayPal signs with a certificate of its own what holds the subscription's id, which then is
        the secret.
        """
        paths = () if self.signed is None else self.signed.paths
        return self.algorithm in _KEYLESS and all(path.root != "secret" for path in paths)


@dataclass(frozen=True, slots=True)
class HandshakeSpec:
    """A request that wants an answer and is no event.

    Attributes:
        when: Holds for such a request.
        signed: Whether it must bear a right signature as events do.
        text, json: The answer's body; neither: an empty one.
        headers: Of the answer.
        hmac: What is signed for the answer (`${hmac.hex}`, `${hmac.base64}`), with the secret.
        secret: Where the vendor tells the secret of the subscription in this very request.
    """

    when: Condition
    status: int
    text: Template | None
    json: Tree | None
    content_type: str
    headers: Mapping[str, Template]
    hmac: Template | None
    hmac_algorithm: str
    secret: Template | None
    signed: bool


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """What a vendor wants to hear when its events were taken."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """The webhooks of one vendor.

    Attributes:
        events: Names of the most used events; `open` says whether others are taken as well.
        payload_field: Field of a form that holds the event as JSON.
        register: How a subscription comes about, for people; empty: by the vendor's API
            (`schemas.registration`).
        skip_when: Holds for requests that are neither events nor a handshake (GitHub's ping).
    """

    events: tuple[str, ...]
    open: bool
    register: str
    signatures: tuple[SignatureSpec, ...]
    handshakes: tuple[HandshakeSpec, ...]
    answer: AnswerSpec
    each: Template | None
    event_type: Template | None
    delivery_id: Template | None
    account_id: Template | None
    payload: Template | None
    payload_field: str
    skip_when: Condition | None

    @property
    def receivable(self) -> bool:
        """Whether its webhooks can be taken: an event's name can be told."""
        return self.event_type is not None

    @property
    def signed_by(self) -> Holder | None:
        """Who has the secret; None where none is needed."""
        for signature in self.signatures:
            if not signature.keyless:
                return signature.secret
        return None

    def check_event(self, name: str) -> Problem | None:
        """Check the name of an event that a workflow wants; patterns such as `issues.*` are good.

        Returns:
            What is wrong, with the nearest name; None: nothing.
        """
        if self.open or any(
            name == known or fnmatchcase(known, name) or fnmatchcase(name, known)
            for known in self.events
        ):
            return None
        hint = nearest(name, dict.fromkeys(self.events)) or f"; known: {', '.join(self.events)}"
        return Problem("event", f"{name!r} is not an event of this provider{hint}", "", "bad_event")


def triggers_of(spec: ProviderSpec) -> TriggerSpec | None:
    """Give a provider's webhooks; None where it sends none.

    Raises:
        InvalidInput: `bad_provider`; the file says what cannot be.
    """
    return _compiled(spec.slug, Unchanging(spec.triggers)) if spec.triggers else None


@lru_cache(maxsize=256)
def _compiled(slug: str, section: Unchanging[Mapping[str, Any]]) -> TriggerSpec:
    data = section.value
    try:
        return TriggerSpec(
            events=tuple(data.get("events") or ()),
            open=bool(data.get("open", True)),
            register=data["register"] if isinstance(data.get("register"), str) else "",
            signatures=tuple(_signature(one) for one in _schemes(data)),
            handshakes=tuple(_handshake(one) for one in _listed(data.get("handshake"))),
            answer=AnswerSpec(**(data.get("answer") or {})),
            each=_template(data, "each"),
            event_type=_template(data, "event_type"),
            delivery_id=_template(data, "delivery_id"),
            account_id=_template(data, "account_id"),
            payload=_template(data, "payload"),
            payload_field=data.get("payload_field", ""),
            skip_when=Condition(data["skip_when"]) if "skip_when" in data else None,
        )
    except (InvalidInput, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{slug}/provider.yaml: triggers cannot be used: {error}", code="bad_provider"
        ) from error


def _listed(value: object) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else [value]


def _schemes(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*_listed(data.get("signature")), *_listed(data.get("signature_alternatives"))]


def _template(data: Mapping[str, Any], key: str) -> Template | None:
    value = data.get(key)
    return Template(value) if isinstance(value, str) else None


def _signature(data: Mapping[str, Any]) -> SignatureSpec:
    algorithm = data["algorithm"]
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"{algorithm!r} is no algorithm; known: {', '.join(sorted(_ALGORITHMS))}")
    if algorithm in _SIGNED and "signed" not in data:
        raise ValueError(f"{algorithm} needs `signed`")
    if algorithm == "token" and "value" not in data:
        raise ValueError("token needs `value`")
    header = data.get("header") or ""
    timestamp = _template(data, "timestamp")
    if timestamp is None and data.get("timestamp_header"):
        timestamp = Template(f"${{headers['{data['timestamp_header'].lower()}']}}")
    pairs = data.get("pairs")
    return SignatureSpec(
        algorithm=algorithm,
        header=header.lower(),
        encoding=data.get("encoding") or "hex",
        prefix=data.get("prefix", ""),
        pairs=(pairs["timestamp"], pairs["signature"]) if pairs else None,
        signed=_template(data, "signed"),
        timestamp=timestamp,
        tolerance_s=data.get("tolerance_seconds"),
        key=data.get("key", "text"),
        secret=data.get("secret", "app"),
        value=_template(data, "value"),
        keys=_template(data, "keys"),
        hosts=tuple(_listed(data.get("hosts"))),
        issuer=data.get("issuer", ""),
    )


def _handshake(data: Mapping[str, Any]) -> HandshakeSpec:
    signing = data.get("hmac") or {}
    return HandshakeSpec(
        when=Condition(data["when"]),
        status=data.get("status", 200),
        text=_template(data, "answer"),
        json=Tree(data["json"]) if "json" in data else None,
        content_type=data.get("content_type", "text/plain"),
        headers={name: Template(value) for name, value in (data.get("headers") or {}).items()},
        hmac=_template(signing, "signed"),
        hmac_algorithm=signing.get("algorithm", "hmac-sha256"),
        secret=_template(data, "learn_secret"),
        signed=bool(data.get("signed", False)),
    )
