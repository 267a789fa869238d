"""The vault over HTTP: consent flows and connections.

    POST   /api/v1/integrations/auth-url              begin a consent, with an API key
    POST   /api/integrations/{provider}/connect       the same from a browser, where allowed
    GET    /oauth/callback/{provider}                 the vendor sends the browser back
    …      /connect/…, …/connect-sessions             `token_vault.connect`
    POST   /api/v1/integrations/exchange              code and state of the developer's own callback
    …      /api/v1/workspaces/{ws}/connections…       `token_vault.connection_routes`
    …      /api/v1/workspaces/{ws}/integrations/{provider}/credentials   `token_vault.app_routes`

Errors are raised as `schemas.errors`; whoever mounts the router turns them into problems.
"""

from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from schemas.access import Authenticate, Caller, needs
from schemas.errors import Forbidden, InvalidInput, NotFound, Problem
from token_vault.app_routes import add_apps
from token_vault.connect import pages
from token_vault.connect.api import add_api
from token_vault.connect.flow import Connect
from token_vault.connect.pages import with_query
from token_vault.connect.routes import ConnectPages
from token_vault.connection_routes import add_connections, show
from token_vault.oauth import AccountChoice, Landing, Offer, Wish
from token_vault.shapes import (
    PROVIDER,
    AuthUrlAnswer,
    AuthUrlBody,
    ConnectAnswer,
    ConnectBody,
    ConnectionAnswer,
    ExchangeBody,
)
from token_vault.states import Terms
from token_vault.store import Owner
from token_vault.vault import Vault
from wire.clock import now
from wire.database import connection


def build_router(vault: Vault, authenticate: Authenticate) -> APIRouter:
    """Build the routes.

    Args:
        vault: The vault.
        authenticate: Turns a request into a caller who may do what its route declares.
    """
    router = APIRouter()

    async def _caller(request: Request) -> Caller:
        return await authenticate(request.scope)

    connect = Connect(vault, now)
    connect_pages = ConnectPages(vault, connect)
    add_api(router, vault, connect, _caller)
    connect_pages.add_routes(router)
    _add_flows(router, vault, _caller)
    _add_callback(router, vault, connect_pages)
    add_connections(router, vault, _caller)
    add_apps(router, vault, _caller)
    return router


def _add_flows(router: APIRouter, vault: Vault, caller_of: Any) -> None:  # noqa: ANN401
    @router.post(
        "/api/v1/integrations/auth-url",
        tags=["connections"],
        summary="Begin a consent",
        openapi_extra=needs("connections:write"),
    )
    async def auth_url(
        body: AuthUrlBody, caller: Annotated[Caller, Depends(caller_of)]
    ) -> AuthUrlAnswer:
        if body.workspace_id is not None:
            caller.require(body.workspace_id)
        owner = Owner(caller.workspace_id, caller.mode, body.provider, body.user_id, body.label)
        scopes = tuple(body.scopes) if body.scopes is not None else None
        terms = Terms(require_all_scopes=body.require_all_scopes)
        wish = Wish(body.redirect_uri, body.return_url, body.variables, scopes, terms)
        offer = await vault.oauth.auth_url(owner, wish)
        return AuthUrlAnswer(url=offer.url, state=offer.state, expires_at=offer.expires_at)

    @router.post(
        "/api/integrations/{provider}/connect",
        tags=["connections"],
        summary="Begin a consent from a browser",
        openapi_extra=needs("public"),
    )
    async def connect(provider: Annotated[str, PROVIDER], body: ConnectBody) -> ConnectAnswer:
        offer = await _client_side(vault, provider, body)
        return ConnectAnswer(authUrl=offer.url)

    @router.post(
        "/api/v1/integrations/exchange",
        tags=["connections"],
        summary="Finish a consent that came to your own callback",
        openapi_extra=needs("connections:write"),
    )
    async def exchange(
        body: ExchangeBody, caller: Annotated[Caller, Depends(caller_of)]
    ) -> ConnectionAnswer:
        made = await vault.oauth.exchange(
            caller, body.code or "", body.state, body.user_id, body.account_id
        )
        return show(vault, made)


def _add_callback(router: APIRouter, vault: Vault, connect_pages: ConnectPages) -> None:
    @router.get(
        "/oauth/callback/{provider}", include_in_schema=False, openapi_extra=needs("public")
    )
    async def callback(provider: Annotated[str, PROVIDER], request: Request) -> Response:
        shown = await connect_pages.callback(provider, request)
        if shown is not None:
            return shown
        answer = dict(request.query_params)
        landing = await vault.oauth.callback(provider, answer)
        return _land(vault, landing, answer.get("state", ""))


async def _client_side(vault: Vault, provider: str, body: ConnectBody) -> Offer:
    """Begin a consent for a browser that has no key: only where the workspace allows it."""
    async with connection(vault.pool) as on:
        cursor = await on.execute(
            "SELECT settings FROM workspaces WHERE id = %s", (body.workspace_id,)
        )
        row = await cursor.fetchone()
    settings = row[0] if row is not None else {}
    if row is None or settings.get("allow_client_integrations") is not True:
        raise Forbidden(
            "This workspace takes no connections begun in a browser; its developer can allow them"
            " by the setting allow_client_integrations, or call POST /api/v1/integrations/auth-url"
            " from a server.",
            code="client_integrations_off",
        )
    domains = settings.get("custom_domains") or []
    if body.return_url is not None and urlsplit(body.return_url).hostname not in domains:
        problem = Problem(
            "return_url",
            "is not on one of the workspace's custom_domains",
            "Add its host to the workspace's custom_domains, or leave return_url out.",
            "foreign_domain",
        )
        raise InvalidInput(f"return_url {problem.message}.", problems=[problem])
    owner = Owner(body.workspace_id, body.mode, provider, body.user_id, body.label)
    terms = Terms(vouched=False)
    wish = Wish(return_url=body.return_url, variables=body.variables, terms=terms)
    return await vault.oauth.auth_url(owner, wish)


def _land(vault: Vault, landing: Landing, state: str) -> Response:
    try:
        name = vault.catalogue.get(landing.provider).name
    except NotFound:
        name = "The account"
    made, error = landing.connection, landing.error
    if isinstance(error, AccountChoice):
        return pages.choose(name, landing.provider, state, error.choices)
    if landing.return_url is not None:
        told = {"provider": landing.provider}
        if made is not None:
            told |= {"status": "connected", "connection_id": made.id}
        else:
            told |= {"status": "failed", "error": error.code if error else "internal"}
        address = with_query(landing.return_url, told)
        return RedirectResponse(address, 303, {"Cache-Control": "no-store"})
    if made is not None:
        return pages.connected(name, made.account_name)
    if error is None:
        return pages.failed(name, "internal", 500)
    return pages.failed(name, error.code, error.status)
