"""What OAuth answers mean and what its requests look like; pure, driven by a provider's `auth`.

    authorize_url   the consent page's address, with scopes and PKCE as the vendor wants them
    code_request    ─┐
    refresh_request ─┼─ the token endpoint's request, client authentication included
    client_request  ─┘
    read_token      its answer: Granted, or Refused as `dead`, `wrong` or `unavailable`
    merged          an answer laid over what is stored: what is absent never overwrites
    due_at          when a token is to be refreshed

Authlib builds the protocol's parts (RFC 6749, RFC 7636); the vendors' differences are data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast
from urllib.parse import quote_plus

import orjson
from authlib.common.urls import add_params_to_qs, url_decode
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from schemas.expression import ABSENT, Roots, Template
from schemas.provider_auth import AuthSpec
from schemas.settings import Secret

# A token is refreshed this long before it ends, or at 80 % of its life where that is shorter.
REFRESH_AHEAD_S: Final = 60
REFRESH_AHEAD_PART: Final = 0.2
# Longer lives are taken as this one: no vendor means more, and dates have an end.
LIFE_S_MAX: Final = 10 * 365 * 86_400
MESSAGE_CHARS_MAX: Final = 300
TOKEN_CHARS_MAX: Final = 64 * 1024

# Where the client itself is the credential, a client that is not known is a dead credential.
_DEAD_CLIENTS: Final = frozenset({"invalid_client", "unauthorized_client"})
# RFC 6749 §5.2: this refresh token (or code) is no longer good, whoever asks.
_DEAD_CODES: Final = frozenset({"invalid_grant"})
_BUSY_CODES: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_CLIENT_AUTH: Final = {
    "basic": "client_secret_basic",
    "post": "client_secret_post",
    "none": "none",
}


@dataclass(frozen=True, slots=True)
class App:
    """An OAuth app: ours or the workspace's own."""

    client_id: str
    client_secret: Secret


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token endpoint; its content holds secrets."""

    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """What is stored of a grant.

    Attributes:
        issued_at, expires_at: UTC; None where the vendor does not tell.
        scopes: As granted; empty where the vendor does not tell.
        variables: What the answer says of the account, such as `instance_url`.
        previous: The refresh token before this one, until the vendor was seen to accept this grant.
        fields: Credentials that the customer entered, by name; the access token is then empty,
            except where it was got with them (client credentials).
    """

    access_token: Secret
    refresh_token: Secret | None
    issued_at: datetime
    expires_at: datetime | None
    scopes: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    previous: Secret | None = None
    fields: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Granted:
    """A token endpoint's good answer; `held` has None and empty where it says nothing.

    Attributes:
        answer: The whole body, for what else it says of the account.
    """

    held: Held
    answer: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A token endpoint's bad answer.

    Attributes:
        kind: `dead`: this code or refresh token will never work, the customer must consent again;
            `wrong`: the vendor does not take our request or app, the developer must mend it;
            `unavailable`: nobody knows, asking later may help.
        may_have_happened: The vendor may have done it all the same, and a new pair was lost.
    """

    kind: Literal["dead", "wrong", "unavailable"]
    code: str
    message: str
    may_have_happened: bool = False


@dataclass(frozen=True, slots=True)
class Consent:
    """What we ask a customer's consent for.

    Attributes:
        redirect_uri: Where the vendor sends the browser back.
        state: Single-use; it finds the request again.
        verifier: The PKCE verifier, None where the vendor takes none.
    """

    client_id: str
    redirect_uri: str
    state: str = field(repr=False)
    scopes: tuple[str, ...]
    verifier: str | None = field(repr=False)


def authorize_url(auth: AuthSpec, url: str, consent: Consent) -> str:
    """Build the consent page's address.

    Args:
        auth: How the vendor wants it.
        url: Its authorize endpoint for this account.
        consent: What is asked for.
    """
    extra = {name: text for name, text in auth.authorize_params.items() if name != "response_type"}
    asked = auth.scope_separator.join(consent.scopes)
    if auth.scope_param != "scope" and asked:
        extra[auth.scope_param] = asked
    if consent.verifier is not None:
        extra["code_challenge"] = create_s256_code_challenge(consent.verifier)
        extra["code_challenge_method"] = "S256"
    address = prepare_grant_uri(
        url,
        consent.client_id,
        auth.authorize_params.get("response_type", "code"),
        redirect_uri=consent.redirect_uri,
        scope=(asked or None) if auth.scope_param == "scope" else None,
        state=consent.state,
        **extra,
    )
    return cast("str", address)


def code_request(
    auth: AuthSpec, app: App, *, code: str, redirect_uri: str, verifier: str | None
) -> TokenRequest:
    """Build the request that exchanges a code (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    body = prepare_token_request(
        "authorization_code", "", redirect_uri=redirect_uri, code=code, code_verifier=verifier
    )
    return _token_request(auth, app, body, auth.token_params)


def refresh_request(auth: AuthSpec, app: App, refresh_token: Secret) -> TokenRequest:
    """Build the request that refreshes a token (RFC 6749 §6)."""
    body = prepare_token_request("refresh_token", "", refresh_token=refresh_token.reveal())
    return _token_request(auth, app, body, auth.refresh_params)


def client_app(fields: Mapping[str, Secret]) -> App:
    """Give the app that was entered as client credentials: `client_id` and `client_secret`."""
    return App(fields["client_id"].reveal(), fields["client_secret"])


def client_request(
    auth: AuthSpec, fields: Mapping[str, Secret], variables: Mapping[str, str]
) -> TokenRequest:
    """Build the request for a token of the client's own (RFC 6749 §4.4).

    Args:
        auth: Of kind `client_credentials`.
        fields: What was entered: `client_id` and `client_secret`, or what `token_json` names.
        variables: Of the account.
    """
    if auth.token_json is not None:
        entered = {name: value.reveal() for name, value in fields.items()}
        body = auth.token_json.render({"credentials": entered, "connection": variables})
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        return TokenRequest({**headers, **auth.token_headers}, orjson.dumps(body))
    app = client_app(fields)
    scope = auth.scope_separator.join(auth.default_scopes)
    named = {auth.scope_param: scope} if scope else {}
    asked = prepare_token_request("client_credentials", "", **named)
    return _token_request(auth, app, asked, auth.token_params)


def _token_request(auth: AuthSpec, app: App, body: str, params: Mapping[str, Any]) -> TokenRequest:
    headers = {"Accept": "application/json", **auth.token_headers}
    client = (app.client_id, app.client_secret.reveal())
    if auth.client_auth == "basic":
        client = basic_pair(app)
    signer = ClientAuth(*client, _CLIENT_AUTH[auth.client_auth])
    if auth.token_body == "json":  # noqa: S105 - a format
        _, headers, body = signer.prepare("POST", "", headers, body)
        content = orjson.dumps({**dict(url_decode(body)), **params})
        headers["Content-Type"] = "application/json"
        return TokenRequest(headers, content)
    named = [(name, _form_text(value)) for name, value in params.items()]
    _, headers, body = signer.prepare("POST", "", headers, add_params_to_qs(body, named))
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    return TokenRequest(headers, body.encode())


def basic_pair(app: App) -> tuple[str, str]:
    """Give an app's id and secret as HTTP basic carries them.

    Both are form-encoded first, so that a secret may hold any character (RFC 6749 §2.3.1); letters,
    digits and `-._` stay as they are, so vendors that leave the encoding out see no difference.
    """
    return quote_plus(app.client_id), quote_plus(app.client_secret.reveal())


def _form_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def read_token(
    auth: AuthSpec, status: int, headers: Mapping[str, str], body: object, now: datetime
) -> Granted | Refused:
    """Read a token endpoint's answer.

    Args:
        auth: How the vendor answers.
        status: HTTP status.
        headers: With lower-case names.
        body: Parsed JSON; None where it is none (HTML, cut off).
        now: UTC.
    """
    roots: Roots = {"status": status, "headers": headers, "body": body if body is not None else {}}
    spec = auth.token
    failed = status >= 400 or (spec.error_when is not None and spec.error_when.holds(roots))
    if not failed:
        access = _text(spec.access_token, roots)
        if access and len(access) <= TOKEN_CHARS_MAX and isinstance(body, Mapping):
            return Granted(_held(auth, access, roots, now), body)
    code = _text(spec.error_code, roots) or ""
    message = (_text(spec.error_message, roots) or "")[:MESSAGE_CHARS_MAX]
    if spec.dead_when is not None and spec.dead_when.holds(roots):
        return Refused("dead", code or "invalid_grant", message)
    if status >= 500 or status in (408, 425, 429) or code in _BUSY_CODES:
        # 503: it did not take the request on (RFC 9110 §15.6.4).
        is_open = status >= 500 and status != 503
        return Refused("unavailable", code or f"http_{status}", message, is_open)
    # Some say so with 200.
    if code in _DEAD_CODES or (auth.kind == "client_credentials" and code in _DEAD_CLIENTS):
        return Refused("dead", code, message)
    if not failed or not isinstance(body, Mapping):
        # A proxy's page, cut-off JSON or an answer without a token tells nothing about the grant.
        return Refused("unavailable", code or "unreadable_answer", message, status < 400)
    return Refused("wrong", code or f"http_{status}", message)


def _held(auth: AuthSpec, access: str, roots: Roots, now: datetime) -> Held:
    spec = auth.token
    refresh = _text(spec.refresh_token, roots)
    life = life_seconds(spec.expires_in.find(roots), auth.access_token_seconds)
    granted = spec.scope.find(roots)
    variables = {name: _text(template, roots) for name, template in spec.variables.items()}
    return Held(
        access_token=Secret(access),
        refresh_token=Secret(refresh) if refresh and len(refresh) <= TOKEN_CHARS_MAX else None,
        issued_at=now,
        expires_at=None if life is None else now + timedelta(seconds=life),
        scopes=split_scopes(granted, auth.scope_separator),
        variables={name: text for name, text in variables.items() if text},
    )


def life_seconds(told: object, declared: int | None) -> int | None:
    """Say how long a token lives.

    Args:
        told: `expires_in` of the answer as it came: a number, text, null or absent.
        declared: What the vendor's documentation says, None where it says nothing.

    Returns:
        Seconds; None where nobody tells, so that only a refused call shows the end. A missing
        value, one that is no number, 0 and negative ones count as not told: vendors send them for
        tokens without an end as well as by mistake, and a token is never thrown away for it.
    """
    seconds: float = 0
    if isinstance(told, int | float) and not isinstance(told, bool):
        seconds = told
    elif isinstance(told, str):
        try:
            seconds = float(told)
        except ValueError:
            seconds = 0
    if not math.isfinite(seconds) or seconds <= 0:
        return declared
    return max(1, int(min(seconds, LIFE_S_MAX)))


def split_scopes(told: object, separator: str) -> tuple[str, ...]:
    """Read granted scopes: a list, or text with the vendor's separator, commas or spaces."""
    if isinstance(told, list | tuple):
        return tuple(dict.fromkeys(str(item) for item in told if item))
    if not isinstance(told, str):
        return ()
    text = told.replace(separator, " ").replace(",", " ")
    return tuple(dict.fromkeys(text.split()))


def merged(old: Held, new: Held) -> Held:
    """Lay a refresh's answer over what is stored; what it does not say stays as it was."""
    is_rotated = new.refresh_token is not None and new.refresh_token != old.refresh_token
    return replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        previous=old.refresh_token if is_rotated else None,
        scopes=new.scopes or old.scopes,
        variables={**old.variables, **new.variables},
        fields=new.fields or old.fields,
    )


def due_at(held: Held) -> datetime | None:
    """Say when a token is to be refreshed; None where that cannot be told from the clock."""
    if held.expires_at is None or not _is_renewable(held):
        return None
    life = (held.expires_at - held.issued_at).total_seconds()
    ahead = min(REFRESH_AHEAD_S, max(0.0, life * REFRESH_AHEAD_PART))
    return held.expires_at - timedelta(seconds=ahead)


def _is_renewable(held: Held) -> bool:
    """Say whether a new token can be had: with a refresh token, or with the client's own secret."""
    return held.refresh_token is not None or bool(held.access_token.reveal() and held.fields)


def missing_scopes(asked: Sequence[str], granted: Sequence[str]) -> tuple[str, ...]:
    """Name what was asked for and not granted; nothing where the vendor does not tell."""
    return tuple(scope for scope in asked if scope not in set(granted)) if granted else ()


def to_stored(held: Held) -> bytes:
    """Write a grant as the JSON that is sealed."""
    return orjson.dumps(
        {
            "access_token": held.access_token.reveal(),
            "refresh_token": held.refresh_token.reveal() if held.refresh_token else None,
            "issued_at": held.issued_at.isoformat(),
            "expires_at": held.expires_at.isoformat() if held.expires_at else None,
            "previous": held.previous.reveal() if held.previous else None,
            "fields": {name: value.reveal() for name, value in held.fields.items()},
        }
    )


def from_stored(
    stored: bytes, scopes: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> Held:
    """Read what `to_stored` wrote; scopes and variables lie beside it in the row."""
    data = orjson.loads(stored)
    refresh, expires = data["refresh_token"], data["expires_at"]
    previous = data.get("previous")
    return Held(
        access_token=Secret(data["access_token"]),
        refresh_token=Secret(refresh) if refresh else None,
        issued_at=datetime.fromisoformat(data["issued_at"]),
        expires_at=datetime.fromisoformat(expires) if expires else None,
        scopes=tuple(scopes),
        variables=dict(variables or {}),
        previous=Secret(previous) if previous else None,
        fields={name: Secret(value) for name, value in data.get("fields", {}).items()},
    )


def _text(template: Template, roots: Roots) -> str | None:
    value = template.find(roots)
    if value is ABSENT or value is None or isinstance(value, Mapping | list):
        return None
    return str(value)
