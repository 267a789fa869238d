"""Connections over the API.

POST   /api/v1/workspaces/{ws}/connections                   with entered credentials
GET    /api/v1/workspaces/{ws}/connections[/{id}]
PATCH  /api/v1/workspaces/{ws}/connections/{id}              its label
POST   /api/v1/workspaces/{ws}/connections/{id}/reconnect    the same connection, anew
DELETE /api/v1/workspaces/{ws}/connections/{id}              revoked at the vendor as well
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from schemas.access import Caller, needs
from token_vault.entered import Entry
from token_vault.keeper import no_connection
from token_vault.oauth import Wish
from token_vault.shapes import (
    ConnectionAnswer,
    ConnectionFilter,
    ConnectionPage,
    CredentialsBody,
    DisconnectAnswer,
    LabelBody,
    ReconnectAnswer,
    ReconnectBody,
)
from token_vault.states import Terms
from token_vault.store import Connection, Owner
from token_vault.vault import Vault
from wire.clock import now

_BASE = "/api/v1/workspaces/{workspace_id}/connections"
_ONE = _BASE + "/{connection_id}"


def add_connections(router: APIRouter, vault: Vault, caller_of: Any) -> None:  # noqa: ANN401
    """Add the routes."""
    _add_reading(router, vault, caller_of)
    _add_changing(router, vault, caller_of)


def _add_reading(router: APIRouter, vault: Vault, caller_of: Any) -> None:  # noqa: ANN401
    @router.get(
        _BASE,
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
        _ONE,
        tags=["connections"],
        summary="Get a connection",
        openapi_extra=needs("connections:read"),
    )
    async def get(
        workspace_id: str, connection_id: str, caller: Annotated[Caller, Depends(caller_of)]
    ) -> ConnectionAnswer:
        return show(vault, await _row(vault, caller, workspace_id, connection_id))


def _add_changing(router: APIRouter, vault: Vault, caller_of: Any) -> None:  # noqa: ANN401
    @router.post(
        _BASE,
        status_code=201,
        tags=["connections"],
        summary="Connect with credentials that the customer entered",
        description="They are tried at the vendor first; what it does not take is not stored.",
        openapi_extra=needs("connections:write"),
    )
    async def make(
        workspace_id: str, body: CredentialsBody, caller: Annotated[Caller, Depends(caller_of)]
    ) -> ConnectionAnswer:
        workspace = caller.require(workspace_id)
        owner = Owner(workspace, caller.mode, body.provider, body.user_id, body.label)
        entry = Entry(body.credentials, body.variables, body.kind)
        return show(vault, await vault.entered.connect(owner, entry, Terms()))

    @router.patch(
        _ONE,
        tags=["connections"],
        summary="Give a connection another label",
        openapi_extra=needs("connections:write"),
    )
    async def label(
        workspace_id: str,
        connection_id: str,
        body: LabelBody,
        caller: Annotated[Caller, Depends(caller_of)],
    ) -> ConnectionAnswer:
        row = await _row(vault, caller, workspace_id, connection_id)
        changed = await vault.store.label(row.workspace_id, row.id, body.label)
        if changed is None:
            raise no_connection(connection_id)
        return show(vault, changed)

    @router.post(
        _ONE + "/reconnect",
        tags=["connections"],
        summary="Connect a connection again; it keeps its id",
        openapi_extra=needs("connections:write"),
    )
    async def reconnect(
        workspace_id: str,
        connection_id: str,
        body: ReconnectBody,
        caller: Annotated[Caller, Depends(caller_of)],
    ) -> ReconnectAnswer:
        row = await _row(vault, caller, workspace_id, connection_id)
        return await _reconnect(vault, row, body)

    @router.delete(
        _ONE,
        tags=["connections"],
        summary="Delete a connection and revoke it at the vendor",
        openapi_extra=needs("connections:write"),
    )
    async def delete(
        workspace_id: str, connection_id: str, caller: Annotated[Caller, Depends(caller_of)]
    ) -> DisconnectAnswer:
        workspace = caller.require(workspace_id)
        receipt = await vault.disconnect(workspace, caller.mode, connection_id)
        row = receipt.connection
        return DisconnectAnswer(
            id=row.id,
            provider=row.provider,
            user_id=row.user_id,
            label=row.label,
            account_id=row.account_id,
            account_name=row.account_name,
            scopes=list(row.scopes),
            deleted_at=receipt.deleted_at,
            vendor=receipt.vendor,
            revoked_at=receipt.revoked_at,
        )


async def _reconnect(vault: Vault, row: Connection, body: ReconnectBody) -> ReconnectAnswer:
    """Begin a consent for a connection, or check and store its new credentials."""
    owner = Owner(row.workspace_id, row.mode, row.provider, row.user_id, row.label)
    terms = Terms(
        connection_id=row.id,
        allow_other_account=body.allow_other_account,
        require_all_scopes=body.require_all_scopes,
    )
    declared = vault.catalogue.get(row.provider).auth.variables
    told = {name: v for name, v in row.variables.items() if declared[name].source == "customer"}
    variables = {**told, **body.variables}
    if body.credentials is not None:
        entry = Entry(body.credentials, variables, body.kind)
        made = await vault.entered.connect(owner, entry, terms)
        return ReconnectAnswer(url=None, state=None, expires_at=None, connection=show(vault, made))
    scopes = tuple(body.scopes) if body.scopes is not None else tuple(row.asked_scopes) or None
    wish = Wish(body.redirect_uri, body.return_url, variables, scopes, terms)
    offer = await vault.oauth.auth_url(owner, wish)
    return ReconnectAnswer(
        url=offer.url, state=offer.state, expires_at=offer.expires_at, connection=None
    )


async def _row(vault: Vault, caller: Caller, workspace_id: str, connection_id: str) -> Connection:
    row = await vault.store.get(caller.require(workspace_id), connection_id)
    if row is None or row.mode != caller.mode:
        raise no_connection(connection_id)
    return row


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
        client_id=row.client_id,
        expires_at=row.expires_at,
        last_refresh_at=row.last_refresh_at,
        last_error=dict(row.last_error) if row.last_error is not None else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
