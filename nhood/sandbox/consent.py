"""The vendor's side of OAuth: consent page, token endpoint, revocation, account look-up.

A browser gets a page with Allow and Deny. A program posts the page's form (`decision=allow|deny`,
and `account=<name>` to choose which of the sandbox's accounts it opens), or puts
`sandbox_auto=allow` (or `deny`) into the address, and is sent back at once.

It is as strict as the strictest vendor: redirect address and client as they were, PKCE S256, single
use of codes, client authentication as the provider file declares it (RFC 6749, 7636, 9700).
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit, urlunsplit

from nhood.sandbox.accounts import ACCOUNT_DEFAULT, account_forms
from nhood.sandbox.acting import token_of, who
from nhood.sandbox.entered import client_of
from nhood.sandbox.grants import CODE_LIFE_S, Code, Tokens
from nhood.sandbox.vendor import Vendor, World
from nhood.sandbox.wire_in import HTML, Answer, Incoming, json_answer
from schemas.expression import ABSENT, Template
from token_vault.apps import TEST_APP

_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,60}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} (sandbox): allow access?</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 0; padding: 1.5rem; }}
main {{ max-width: 32rem; margin: 6vh auto 0; padding: 1.5rem 2rem; border: 1px solid #8886;
  border-radius: .5rem; }}
label {{ display: block; margin: 1rem 0; }}
input {{ font: inherit; padding: .4rem; width: 100%; box-sizing: border-box; }}
button {{ font: inherit; padding: .5rem 1.5rem; margin: .5rem .75rem 0 0; cursor: pointer; }}
li {{ overflow-wrap: anywhere; }}
</style></head><body><main>
<h1>Allow access to {name}?</h1>
<p>This is the <strong>sandbox</strong>: no real {name} account is touched.</p>
<p>NeighbourHood asks for:</p><ul>{scopes}</ul>
<form method="post" action="{action}">{hidden}
<label>Sandbox account <input name="account" value="{account}" maxlength="60" required></label>
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form></main></body></html>
"""

_REFUSED: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name} (sandbox)</title></head>
<body><main><h1>This cannot go on</h1><p role="alert">{reason}</p></main></body></html>
"""


def authorize(world: World, vendor: Vendor, incoming: Incoming) -> Answer:
    """Answer the consent page, and its form."""
    asked = dict(incoming.query_data())
    if incoming.method == "POST":
        data = incoming.data
        asked.update(data if isinstance(data, dict) else {})
    redirect = asked.get("redirect_uri", "")
    if asked.get("client_id") != TEST_APP.client_id:
        return _refuse(vendor, "There is no app with this client_id.")
    if not _is_address(redirect):
        return _refuse(vendor, "redirect_uri is missing or no address that can be gone to.")
    wrong = _wrong(vendor, asked)
    if wrong is not None:
        return _back(redirect, {"error": wrong[0], "error_description": wrong[1]}, asked)
    decision = asked.get("decision") if incoming.method == "POST" else asked.get("sandbox_auto")
    if decision is None:
        return _page(vendor, incoming, asked)
    return _decide(world, vendor, asked, allowed=decision in ("allow", "1"))


def _decide(world: World, vendor: Vendor, asked: Mapping[str, str], *, allowed: bool) -> Answer:
    redirect = asked["redirect_uri"]
    if not allowed:
        told = {"error": "access_denied", "error_description": "The user denied the request"}
        return _back(redirect, told, asked)
    account = asked.get("account") or asked.get("sandbox_account") or ACCOUNT_DEFAULT
    if _ACCOUNT.fullmatch(account) is None:
        return _refuse(vendor, "An account's name has letters, digits, spaces and . _ -")
    code = Code(
        slug=vendor.spec.slug,
        account=account,
        redirect_uri=redirect,
        scopes=tuple(_scopes(vendor, asked)),
        challenge=asked.get("code_challenge"),
        expires_at=world.clock() + CODE_LIFE_S,
    )
    return _back(redirect, {"code": world.grants.new_code(code)}, asked)


def _wrong(vendor: Vendor, asked: Mapping[str, str]) -> tuple[str, str] | None:
    auth = vendor.spec.auth
    if asked.get("response_type") != "code":
        return "unsupported_response_type", "response_type must be code"
    known = {*auth.default_scopes, *(s for a in vendor.spec.actions.values() for s in a.scopes)}
    unknown = [scope for scope in _scopes(vendor, asked) if scope not in known]
    if unknown:
        return "invalid_scope", f"There is no scope {unknown[0]}"
    challenge = asked.get("code_challenge")
    if auth.pkce == "required" and not challenge:
        return "invalid_request", "code_challenge is required"
    if challenge and auth.pkce != "unsupported" and asked.get("code_challenge_method") != "S256":
        return "invalid_request", "code_challenge_method must be S256"
    return None


def _scopes(vendor: Vendor, asked: Mapping[str, str]) -> list[str]:
    text = asked.get(vendor.spec.auth.scope_param, "")
    separator = vendor.spec.auth.scope_separator
    return [scope for scope in (part.strip() for part in text.split(separator)) if scope]


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and parts.scheme in ("https", "http") and not parts.fragment


def _back(redirect: str, told: dict[str, str], asked: Mapping[str, str]) -> Answer:
    """Send the browser back to the client."""
    if "state" in asked:
        told["state"] = asked["state"]
    parts = urlsplit(redirect)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *told.items()])
    address = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    return Answer(302, b"", {"location": address, "cache-control": "no-store"}, HTML)


def _page(vendor: Vendor, incoming: Incoming, asked: Mapping[str, str]) -> Answer:
    scopes = _scopes(vendor, asked) or ["what the app is allowed by its settings"]
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in asked.items()
        if name not in ("account", "decision")
    )
    page = _PAGE.format(
        name=escape(vendor.spec.name),
        scopes="".join(f"<li><code>{escape(scope)}</code></li>" for scope in scopes),
        action=escape(f"/{vendor.spec.slug}{incoming.path}"),
        hidden=hidden,
        account=escape(asked.get("sandbox_account", ACCOUNT_DEFAULT)),
    )
    headers = {"cache-control": "no-store", "x-frame-options": "DENY"}
    return Answer(200, page.encode(), headers, HTML)


def _refuse(vendor: Vendor, reason: str) -> Answer:
    page = _REFUSED.format(name=escape(vendor.spec.name), reason=escape(reason))
    return Answer(400, page.encode(), {"cache-control": "no-store"}, HTML)


def token(world: World, vendor: Vendor, incoming: Incoming) -> Answer:
    """Answer the token endpoint."""
    auth = vendor.spec.auth
    if auth.token_body == "form" and not incoming.is_form:  # noqa: S105 - a format
        return _error(vendor, "invalid_request", "The body must be a form")
    data = incoming.data
    if not isinstance(data, dict):
        return _error(vendor, "invalid_request", "The body cannot be read")
    asked = {name: str(value) for name, value in data.items()}
    kind = asked.get("grant_type")
    signs_in = any(way.token_json is not None for way in vendor.entered)
    if kind == "client_credentials" or (kind is None and signs_in):
        return _own(world, vendor, incoming)
    if not _is_client(vendor, incoming, asked):
        return _error(vendor, "invalid_client", "Client authentication failed", 401)
    if kind in _GRANTS:
        return _GRANTS[kind](world, vendor, asked)
    return _error(vendor, "unsupported_grant_type", "grant_type is not supported")


def _exchange(world: World, vendor: Vendor, asked: Mapping[str, str]) -> Answer:
    auth = vendor.spec.auth
    text = asked.get("code", "")
    code = world.grants.use_code(text)
    if code is None or code.slug != vendor.spec.slug:
        return _error(vendor, "invalid_grant", "The code is invalid, used or expired")
    if not hmac.compare_digest(asked.get("redirect_uri", ""), code.redirect_uri):
        return _error(vendor, "invalid_grant", "redirect_uri is not the one that was used before")
    if code.challenge is not None and auth.pkce != "unsupported":
        verifier = asked.get("code_verifier", "")
        if _VERIFIER.fullmatch(verifier) is None or _challenge(verifier) != code.challenge:
            return _error(vendor, "invalid_grant", "code_verifier does not fit")
    refresh = auth.refresh != "none" and answers_refresh(vendor)
    tokens = world.grants.issue(
        text, code, vendor.sheet.prefix, auth.access_token_seconds, refresh=refresh
    )
    return json_answer(200, _token_body(world, vendor, tokens, first=True), _NO_STORE)


def _own(world: World, vendor: Vendor, incoming: Incoming) -> Answer:
    """Give a client a token of its own (RFC 6749 §4.4): no refresh token comes with it."""
    found = client_of(vendor, incoming)
    if found is None:
        return _error(vendor, "invalid_client", "Client authentication failed", 401)
    way, key = found
    slug, scopes = vendor.spec.slug, way.default_scopes
    consent = Code(slug, key, "", scopes, None, world.clock() + CODE_LIFE_S)
    text = secrets.token_urlsafe(24)
    life = way.access_token_seconds
    tokens = world.grants.issue(text, consent, vendor.sheet.prefix, life, refresh=False)
    if way.token_json is not None:
        return json_answer(200, _token_body(world, vendor, tokens, first=True), _NO_STORE)
    said = {
        "access_token": tokens.access,
        "expires_in": life,
        "scope": way.scope_separator.join(scopes),
    }
    body = {name: value for name, value in said.items() if value is not None}
    return json_answer(200, {"token_type": "Bearer", **body}, _NO_STORE)


def _renew(world: World, vendor: Vendor, asked: Mapping[str, str]) -> Answer:
    auth = vendor.spec.auth
    found = world.grants.find_refresh(asked.get("refresh_token", ""))
    if found is None or found[0].slug != vendor.spec.slug or found[0].revoked:
        return _error(vendor, "invalid_grant", "The refresh token is invalid or was revoked")
    grant, good = found
    if not good:
        if vendor.sheet.reuse_revokes:
            world.grants.revoke(grant)
        return _error(vendor, "invalid_grant", "The refresh token was used already")
    rotate = auth.refresh == "rotating"
    tokens = world.grants.renew(
        grant, vendor.sheet.prefix, auth.access_token_seconds, rotate=rotate
    )
    return json_answer(200, _token_body(world, vendor, tokens, first=False), _NO_STORE)


_GRANTS: Final = {"authorization_code": _exchange, "refresh_token": _renew}
_NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}


def revoke(world: World, vendor: Vendor, incoming: Incoming) -> Answer:
    """Answer the revocation endpoint: the token of the body, the query, or the header itself."""
    data = incoming.data if isinstance(incoming.data, Mapping) else {}
    given = data.get("token") or incoming.query_data().get("token") or data.get("access_token")
    if not given and _is_app(incoming) and _revoke_account(world, vendor, data):
        return json_answer(200, data)
    given = given or token_of(vendor, incoming)
    if not given or not world.grants.revoke_token(str(given)):
        if "token" in data or "token" in incoming.query_data():
            return _error(vendor, "invalid_token", "There is no such token")  # RFC 7009 is milder
        return vendor.error("unauthorised", message="The access token is invalid")
    return json_answer(200, {"ok": True, "revoked": True})


def _is_app(incoming: Incoming) -> bool:
    """Say whether a request bears the app's secret instead of a customer's token."""
    secret = TEST_APP.client_secret.reveal()
    given = incoming.headers.get("authorization", "").partition(" ")[2]
    return hmac.compare_digest(given.encode(), secret.encode())


def _revoke_account(world: World, vendor: Vendor, data: Mapping[str, Any]) -> bool:
    """Take back what an account gave, where the request names the account instead of a token."""
    step, tree = vendor.spec.auth.account, vendor.sheet.account
    if step is None or step.id is None or tree is None:
        return False
    ended = [
        grant
        for grant in world.grants.of(vendor.spec.slug)
        if step.id.find({"body": tree.render(_roots(world, vendor, grant.account, grant.scopes))})
        in data.values()
    ]
    for grant in ended:
        world.grants.revoke(grant)
    return bool(ended)


def account(world: World, vendor: Vendor, incoming: Incoming) -> Answer:
    """Answer the look-up of the account."""
    found = who(world, vendor, incoming)
    if found is None:
        return vendor.error("unauthorised", message="The access token is invalid or expired")
    key, grant = found
    scopes = grant.scopes if grant is not None else []
    tree = vendor.sheet.account
    body = tree.render(_roots(world, vendor, key, scopes)) if tree is not None else {}
    return json_answer(200, body)


def _is_client(vendor: Vendor, incoming: Incoming, asked: Mapping[str, str]) -> bool:
    how = vendor.spec.auth.client_auth
    given = (asked.get("client_id", ""), asked.get("client_secret", ""))
    if how == "none":
        return given[0] == TEST_APP.client_id
    if how == "basic":
        given = _basic(incoming)
    secret = TEST_APP.client_secret.reveal()
    return given[0] == TEST_APP.client_id and hmac.compare_digest(given[1], secret)


def _basic(incoming: Incoming) -> tuple[str, str]:
    kind, _, text = incoming.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return "", ""
    try:
        name, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote_plus(name), unquote_plus(secret)


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _error(vendor: Vendor, code: str, message: str, status: int | None = None) -> Answer:
    answer = vendor.fill(vendor.sheet.oauth_error, {"error": code, "message": message})
    if status is not None and answer.status != 200:
        return Answer(status, answer.body, {**answer.headers, **_NO_STORE}, answer.content_type)
    return answer


def answers_refresh(vendor: Vendor) -> bool:
    """Say whether this vendor's token answer carries a refresh token at all."""
    tree = vendor.sheet.token
    return tree is None or any("refresh_token" in path.source for path in tree.paths)


def _token_body(world: World, vendor: Vendor, tokens: Tokens, *, first: bool) -> Any:  # noqa: ANN401
    auth, grant = vendor.spec.auth, tokens.grant
    sheet = vendor.sheet
    tree = sheet.token if first else (sheet.refresh or sheet.token)
    said: dict[str, Any] = {
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_in": auth.access_token_seconds,
        "scope": auth.scope_separator.join(grant.scopes),
        "scopes": grant.scopes,
    }
    roots = {**_roots(world, vendor, grant.account, grant.scopes), "grant": said}
    body = tree.render(roots) if tree is not None else _usual(vendor, said)
    if tokens.refresh is None and isinstance(body, dict):
        body = {name: value for name, value in body.items() if value is not None}
    return body


def _usual(vendor: Vendor, said: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as the provider file reads it, where no sheet says how the vendor writes it."""
    spec = vendor.spec.auth.token
    body: dict[str, Any] = {"token_type": "Bearer"}
    places: list[tuple[Template, str]] = [
        (spec.access_token, "access_token"),
        (spec.refresh_token, "refresh_token"),
        (spec.expires_in, "expires_in"),
        (spec.scope, "scope"),
    ]
    for template, name in places:
        if not template.paths or said[name] is None or template.find({"body": body}) is not ABSENT:
            continue
        inside = body
        *way, last = (str(step) for step in template.paths[0].steps)
        for step in way:
            inside = inside.setdefault(step, {})
        inside[last] = said[name]
    return body


def _roots(world: World, vendor: Vendor, key: str, scopes: list[str]) -> dict[str, Any]:
    """Give what the sheet's OAuth answers read: the account, in the forms that vendors use."""
    return {
        "account": account_forms(vendor.spec.slug, key, scopes),
        "now_ms": str(int(world.clock() * 1000)),
    }
