"""The requests around a credential besides the token endpoint: account look-up, revocation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from schemas.errors import Conflict, DependencyDown, InvalidInput, NeighbourhoodError, Problem
from schemas.expression import ABSENT, Roots, Template
from schemas.provider import ProviderSpec, render_all
from schemas.provider_auth import AccountStep, HttpStep
from schemas.settings import Settings
from token_vault import endpoints
from token_vault.core.grants import App, Held, basic_pair
from token_vault.core.headers import proof_of, roots_of
from token_vault.exchange import TIMEOUT_S, json_of
from wire.clock import now
from wire.http import map_http_failure

TEXT_CHARS_MAX: Final = 300
# What a vendor answers to credentials that it does not take; 400 and 404 are those whose address
# or parameters hold them.
_NOT_TAKEN: Final = frozenset((400, 401, 403, 404))


@dataclass(frozen=True, slots=True)
class Whose:
    """Which account a grant is for."""

    id: str | None
    name: str | None
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Visit:
    """What the requests of one connection's flow have in common.

    Attributes:
        spec: The provider, with the way in which it is connected as its `auth`.
        held: The credential.
    """

    spec: ProviderSpec
    mode: str
    settings: Settings
    app: App | None
    variables: Mapping[str, str]
    held: Held

    def roots(self) -> dict[str, Any]:
        """Give what templates of these requests read."""
        held = self.held
        token, refresh = held.access_token.reveal(), held.refresh_token
        return {
            **roots_of(self.spec, token, held.fields, self.variables),
            "refresh_token": refresh.reveal() if refresh else None,
            "client_id": self.app.client_id if self.app else None,
            "client_secret": self.app.client_secret.reveal() if self.app else None,
        }


async def look_up(
    client: httpx.AsyncClient, visit: Visit, answer: Mapping[str, Any]
) -> list[Whose]:
    """Find out which account was connected; of credentials that were entered, whether they work.

    Returns:
        One account, or all that the grant covers.

    Args:
        client: To ask the vendor.
        visit: The connection that is about to be made.
        answer: The token endpoint's; empty where there was none.

    Raises:
        DependencyDown: The vendor does not tell just now.
        Conflict: It says that the grant covers no account.
        InvalidInput: It does not take the credentials that were entered.
    """
    step = visit.spec.auth.account
    if step is None:
        return [Whose(None, None, {})]
    roots: dict[str, Any] = {
        "token": answer,
        "connection": visit.spec.connection(visit.variables),
        "body": {},
        "status": 200,
        "headers": {},
    }
    if step.request is not None:
        roots |= await _ask(client, visit, step, step.request)
    if step.each is not None:
        told = step.each.find(roots)
        listed = told if isinstance(told, list) else []
        accounts = [one for one in listed if _is_ours(step, roots, one)]
        if not accounts:
            raise Conflict(
                f"{visit.spec.name} granted access, but to no account; choose one on its consent"
                " page, or ask its administrator for access.",
                code="no_account",
            )
        return [_whose(step, {**roots, "body": account}) for account in accounts]
    return [_whose(step, roots)]


def _is_ours(step: AccountStep, roots: Roots, account: object) -> bool:
    """Say whether a grant's account is one of this provider: Basecamp's grants cover HEY, too."""
    return step.each_when is None or step.each_when.holds({**roots, "body": account})


def _whose(step: AccountStep, roots: Roots) -> Whose:
    found = {n: t for n, t in render_all(step.variables, roots).items() if t is not None}
    return Whose(
        id=_text(step.id, roots),
        name=_text(step.name, roots),
        variables={name: str(value) for name, value in found.items()},
    )


async def _ask(
    client: httpx.AsyncClient, visit: Visit, account: AccountStep, step: HttpStep
) -> dict[str, Any]:
    try:
        response = await perform(client, visit, step)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _not_told(visit, map_http_failure(error)[1]) from None
    body = json_of(response)
    roots: dict[str, Any] = {
        "status": response.status_code,
        "headers": {name.lower(): value for name, value in response.headers.items()},
        "body": body,
    }
    refused = account.error_when is not None and account.error_when.holds(roots)
    if visit.held.fields and (refused or response.status_code in _NOT_TAKEN):
        raise not_taken(visit.spec, f"http_{response.status_code}")
    if response.status_code >= 400 or refused or body is None:
        raise _not_told(visit, f"http_{response.status_code}")
    return roots


def not_taken(spec: ProviderSpec, code: str) -> InvalidInput:
    """Say that the vendor does not take what was entered; nothing was stored."""
    problems = [
        Problem(f"credentials.{item.name}", f"was not taken by {spec.name}", item.help, "refused")
        for item in spec.auth.credentials
        if item.secret
    ]
    return InvalidInput(
        f"{spec.name} does not take these credentials ({code}), so nothing was stored. Check that"
        " they are complete, not revoked, and of this account.",
        problems=problems,
        code="credentials_refused",
    )


def _not_told(visit: Visit, code: str) -> NeighbourhoodError:
    if visit.held.fields:
        return DependencyDown(
            f"{visit.spec.name} cannot be asked whether these credentials work ({code}), so nothing"
            " was stored; try again in a while.",
            code="vendor_unavailable",
        )
    return DependencyDown(
        f"{visit.spec.name} granted access but does not say to which account ({code}); connect"
        " again in a while.",
        code="account_unknown",
    )


async def revoke(client: httpx.AsyncClient, visit: Visit) -> str:
    """Take a grant back at the vendor, as far as that can be had.

    Returns:
        `revoked`, `not_offered` (the vendor has no such call) or `failed`.
    """
    step = visit.spec.auth.revoke
    if step is None:
        return "not_offered"
    try:
        response = await perform(client, visit, step)
    except (httpx.HTTPError, httpx.InvalidURL, NeighbourhoodError):
        return "failed"
    body = json_of(response)
    refused = isinstance(body, Mapping) and body.get("ok") is False
    gone = response.status_code < 400 or response.status_code in (401, 404)
    return "revoked" if gone and not refused else "failed"


async def perform(client: httpx.AsyncClient, visit: Visit, step: HttpStep) -> httpx.Response:
    """Send one of these requests.

    Raises:
        httpx.HTTPError, httpx.InvalidURL: See `wire.http.map_http_failure`.
        InvalidInput: A variable that it needs is not there.
    """
    roots = visit.roots()
    headers = {name: template.text(roots) for name, template in step.headers.items()}
    headers.setdefault("Accept", "application/json")
    url = endpoints.resolve(
        step.url.text(roots), visit.spec, visit.mode, visit.settings, visit.variables
    )
    proof = proof_of(visit.spec.auth, roots) if step.token_header else None
    if proof is not None:
        url = proof.url(url)
    form = step.form.render(roots) if step.form else {}
    auth: tuple[str, str] | None = None
    if visit.app is not None and step.client_auth == "basic":
        auth = basic_pair(visit.app)
    elif visit.app is not None and step.client_auth == "post":
        secret = visit.app.client_secret.reveal()
        form = {**form, "client_id": visit.app.client_id, "client_secret": secret}
    content = None
    if step.json is not None:
        content = orjson.dumps(step.json.render(roots))
        headers["Content-Type"] = "application/json"
    request = client.build_request(
        step.method,
        url,
        params=step.query.render(roots) if step.query else None,
        headers=headers,
        data=form or None,
        content=content,
        timeout=TIMEOUT_S,
    )
    if proof is not None:
        sent = {
            name: request.headers[name] for name in ("content-type",) if name in request.headers
        }
        request.headers.update(
            proof.headers(request.method, str(request.url), sent, request.content, now())
        )
    return await client.send(request, auth=auth)


def _text(template: Template | None, roots: Roots) -> str | None:
    value = template.find(roots) if template is not None else None
    return None if value is None or value is ABSENT else str(value)[:TEXT_CHARS_MAX]
