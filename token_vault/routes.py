"""The vault over HTTP: consent flows and connections.

    POST   /api/v1/integrations/auth-url              begin a consent, with an API key
    POST   /api/integrations/{provider}/connect       the same from a browser, where allowed
    GET    /oauth/callback/{provider}                 the vendor sends the browser back
    …      /connect/…, …/connect-sessions             `token_vault.connect`
    POST   /api/v1/integrations/exchange              code and state of the developer's own callback
    POST   /api/v1/workspaces/{ws}/connections        a bot token or API key
    GET    /api/v1/workspaces/{ws}/connections[/id]
    DELETE /api/v1/workspaces/{ws}/connections/{id}

Errors are raised as `schemas.errors`; whoever mounts the router turns them into problems.
"""

from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import RedirectResponse, Response

from schemas.access import Authenticate, Caller, needs
from schemas.errors import Forbidden, InvalidInput, NotFound, Problem
from token_vault.connect import pages
from token_vault.connect.api import add_api
from token_vault.connect.flow import Connect
from token_vault.connect.pages import with_query
from token_vault.connect.routes import ConnectPages
from token_vault.oauth import USER_ID_CHARS_MAX, Landing, Offer, Wish
from token_vault.store import PAGE_MAX, Connection, Owner
from token_vault.vault import Vault, no_connection
from wire.clock import now
from wire.database import connection

_SHORT: Final = Field(min_length=1, max_length=200)
# States and codes; vendors' codes reach a few hundred characters.
_OPAQUE: Final = Field(min_length=1, max_length=4_096)
_VARIABLES_MAX: Final = 10
_SCOPES_MAX: Final = 100
_PROVIDER: Final = Field(min_length=1, max_length=64, examples=["slack"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AuthUrlBody(_Body):
    """Who is to connect what."""

    workspace_id: Annotated[str, Field(max_length=64)] | None = None
    provider: Annotated[str, _PROVIDER]
    user_id: Annotated[str, Field(min_length=1, max_length=USER_ID_CHARS_MAX)] = Field(
        description="Your own id of the customer who connects."
    )
    label: Annotated[str, Field(max_length=100)] = Field(
        "", description="Tells several accounts of one provider and user apart."
    )
    variables: dict[str, Annotated[str, Field(max_length=500)]] = Field(
        default_factory=dict,
        max_length=_VARIABLES_MAX,
        description="What the provider must know of the account first, such as the subdomain.",
        examples=[{"subdomain": "acme"}],
    )
    redirect_uri: str | None = Field(
        None, description="Your own callback; left out: ours, and the connection is made there."
    )
    return_url: str | None = Field(
        None, description="Where our callback sends the browser in the end."
    )
    scopes: Annotated[list[Annotated[str, _SHORT]], Field(max_length=_SCOPES_MAX)] | None = Field(
        None, description="Instead of the scopes that the provider's actions need."
    )


class ConnectBody(_Body):
    """The same from a customer's browser."""

    workspace_id: Annotated[str, Field(min_length=1, max_length=64)]
    user_id: Annotated[str, Field(min_length=1, max_length=USER_ID_CHARS_MAX)]
    mode: Annotated[str, Field(pattern="^(live|test)$")] = "live"
    label: Annotated[str, Field(max_length=100)] = ""
    variables: dict[str, Annotated[str, Field(max_length=500)]] = Field(
        default_factory=dict, max_length=_VARIABLES_MAX
    )
    return_url: str | None = None


class ExchangeBody(_Body):
    """What came to the developer's own callback."""

    code: Annotated[str, _OPAQUE]
    state: Annotated[str, _OPAQUE]
    user_id: Annotated[str, Field(min_length=1, max_length=USER_ID_CHARS_MAX)]


class CredentialsBody(_Body):
    """A credential that the customer pasted."""

    provider: Annotated[str, _PROVIDER]
    user_id: Annotated[str, Field(min_length=1, max_length=USER_ID_CHARS_MAX)]
    label: Annotated[str, Field(max_length=100)] = ""
    credentials: dict[str, Annotated[str, Field(max_length=10_000)]] = Field(
        max_length=_VARIABLES_MAX, examples=[{"bot_token": "xoxb-…"}]
    )


class AuthUrlAnswer(BaseModel):
    """Send the customer's browser to `url` before `expires_at`."""

    url: str
    state: str
    expires_at: datetime


class ConnectAnswer(BaseModel):
    """Send the customer's browser to `authUrl`."""

    authUrl: str  # noqa: N815 - the name that the client-side flow promises


class ConnectionAnswer(BaseModel):
    """One account of one end customer; never its credential."""

    id: str
    workspace_id: str
    mode: str
    provider: str
    user_id: str
    label: str
    state: str
    auth_kind: str
    account_id: str | None
    account_name: str | None
    variables: dict[str, str]
    scopes: list[str]
    missing_scopes: list[str]
    expires_at: datetime | None
    last_refresh_at: datetime | None
    last_error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class ConnectionPage(BaseModel):
    """Connections, newest first; give `next_cursor` as `cursor` for more."""

    items: list[ConnectionAnswer]
    next_cursor: str | None


class DisconnectAnswer(BaseModel):
    """A receipt: deleted here; `vendor` says `revoked`, `not_offered` or `failed`."""

    id: str
    deleted_at: datetime
    vendor: str


class ConnectionFilter(_Body):
    """Which connections to list."""

    provider: Annotated[str, _SHORT] | None = None
    user_id: Annotated[str, Field(max_length=USER_ID_CHARS_MAX)] | None = None
    state: Annotated[str, Field(pattern="^(active|refreshing|degraded|needs_reauth)$")] | None = (
        None
    )
    cursor: Annotated[str, Field(pattern="^(conn_[0-9a-z]{26})?$")] = ""
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX - 1)] = 50


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
    _add_connections(router, vault, _caller)
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
        wish = Wish(body.redirect_uri, body.return_url, body.variables, scopes)
        offer = await vault.oauth.auth_url(owner, wish)
        return AuthUrlAnswer(url=offer.url, state=offer.state, expires_at=offer.expires_at)

    @router.post(
        "/api/integrations/{provider}/connect",
        tags=["connections"],
        summary="Begin a consent from a browser",
        openapi_extra=needs("public"),
    )
    async def connect(provider: Annotated[str, _PROVIDER], body: ConnectBody) -> ConnectAnswer:
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
        made = await vault.oauth.exchange(caller, body.code, body.state, body.user_id)
        return show(vault, made)


def _add_callback(router: APIRouter, vault: Vault, connect_pages: ConnectPages) -> None:
    @router.get(
        "/oauth/callback/{provider}", include_in_schema=False, openapi_extra=needs("public")
    )
    async def callback(provider: Annotated[str, _PROVIDER], request: Request) -> Response:
        shown = await connect_pages.callback(provider, request)
        if shown is not None:
            return shown
        landing = await vault.oauth.callback(provider, dict(request.query_params))
        return _land(vault, landing)


def _add_connections(router: APIRouter, vault: Vault, caller_of: Any) -> None:  # noqa: ANN401
    base = "/api/v1/workspaces/{workspace_id}/connections"

    @router.post(
        base,
        status_code=201,
        tags=["connections"],
        summary="Connect with a bot token or API key",
        openapi_extra=needs("connections:write"),
    )
    async def make(
        workspace_id: str, body: CredentialsBody, caller: Annotated[Caller, Depends(caller_of)]
    ) -> ConnectionAnswer:
        workspace = caller.require(workspace_id)
        owner = Owner(workspace, caller.mode, body.provider, body.user_id, body.label)
        return show(vault, await vault.connect_with(owner, body.credentials))

    @router.get(
        base,
        tags=["connections"],
        summary="List connections",
        openapi_extra=needs("connections:read"),
    )
    async def page(
        workspace_id: str,
        caller: Annotated[Caller, Depends(caller_of)],
        wanted: Annotated[ConnectionFilter, Query()],
    ) -> ConnectionPage:
        filters = {
            "provider": wanted.provider,
            "user_id": wanted.user_id,
            "state": wanted.state,
        }
        rows = await vault.store.page(
            caller.require(workspace_id), caller.mode, filters, wanted.cursor, wanted.limit + 1
        )
        shown = rows[: wanted.limit]
        return ConnectionPage(
            items=[show(vault, row) for row in shown],
            next_cursor=shown[-1].id if len(rows) > wanted.limit else None,
        )

    @router.get(
        base + "/{connection_id}",
        tags=["connections"],
        summary="Get a connection",
        openapi_extra=needs("connections:read"),
    )
    async def get(
        workspace_id: str, connection_id: str, caller: Annotated[Caller, Depends(caller_of)]
    ) -> ConnectionAnswer:
        row = await vault.store.get(caller.require(workspace_id), connection_id)
        if row is None or row.mode != caller.mode:
            raise no_connection(connection_id)
        return show(vault, row)

    @router.delete(
        base + "/{connection_id}",
        tags=["connections"],
        summary="Delete a connection and revoke it at the vendor",
        openapi_extra=needs("connections:write"),
    )
    async def delete(
        workspace_id: str, connection_id: str, caller: Annotated[Caller, Depends(caller_of)]
    ) -> DisconnectAnswer:
        workspace = caller.require(workspace_id)
        outcome = await vault.disconnect(workspace, caller.mode, connection_id)
        return DisconnectAnswer(id=connection_id, deleted_at=now(), vendor=outcome)


def show(vault: Vault, row: Connection) -> ConnectionAnswer:
    """Give what may be seen of a connection."""
    leased = row.lease_until is not None and row.lease_until > now()
    return ConnectionAnswer(
        id=row.id,
        workspace_id=row.workspace_id,
        mode=row.mode,
        provider=row.provider,
        user_id=row.user_id,
        label=row.label,
        state="refreshing" if leased and row.state != "needs_reauth" else row.state,
        auth_kind=row.auth_kind,
        account_id=row.account_id,
        account_name=row.account_name,
        variables=dict(row.variables),
        scopes=list(row.scopes),
        missing_scopes=list(vault.missing_scopes(row)),
        expires_at=row.expires_at,
        last_refresh_at=row.last_refresh_at,
        last_error=dict(row.last_error) if row.last_error is not None else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


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
    wish = Wish(return_url=body.return_url, variables=body.variables, vouched=False)
    return await vault.oauth.auth_url(owner, wish)


def _land(vault: Vault, landing: Landing) -> Response:
    try:
        name = vault.catalogue.get(landing.provider).name
    except NotFound:
        name = "The account"
    made, error = landing.connection, landing.error
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
