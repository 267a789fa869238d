"""Connect sessions over the API: a developer's server asks for a link for one of its customers.

POST /api/v1/workspaces/{ws}/connect-sessions
GET  /api/v1/workspaces/{ws}/connect-sessions/{id}
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from schemas.access import Caller, needs
from token_vault.connect.flow import Connect
from token_vault.connect.sessions import Asked
from token_vault.core.addresses import USER_ID_CHARS_MAX
from token_vault.vault import Vault

_PROVIDERS_MAX: Final = 100


class SessionBody(BaseModel):
    """Who is to connect what."""

    model_config = ConfigDict(extra="forbid")

    user_id: Annotated[str, Field(min_length=1, max_length=USER_ID_CHARS_MAX)] = Field(
        description="Your own id of the customer who connects."
    )
    providers: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=64)]],
            Field(min_length=1, max_length=_PROVIDERS_MAX),
        ]
        | None
    ) = Field(None, description="What may be connected; left out: all.", examples=[["slack"]])
    label: Annotated[str, Field(max_length=100)] = Field(
        "", description="Tells several accounts of one provider and user apart."
    )
    return_url: str | None = Field(
        None, description="Where the customer goes in the end; `status` and more are added."
    )
    connection_id: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Connect this one again; it keeps its id, provider and label."
    )


class LinkAnswer(BaseModel):
    """Send the customer's browser to `url` before `expires_at`; it opens once."""

    id: str
    url: str
    expires_at: datetime


class SessionAnswer(BaseModel):
    """How far a link has come."""

    id: str
    status: Literal["pending", "opened", "connected", "failed", "expired"]
    user_id: str
    provider: str | None = Field(description="The one that was tried last.")
    connection_id: str | None = Field(description="What was connected.")
    error: str | None = Field(description="Why the last try failed.")
    expires_at: datetime


def add_api(router: APIRouter, vault: Vault, connect: Connect, caller_of: Any) -> None:  # noqa: ANN401
    """Add the routes."""
    base = "/api/v1/workspaces/{workspace_id}/connect-sessions"

    @router.post(
        base,
        status_code=201,
        tags=["connections"],
        summary="Make a link with which a customer connects an account",
        openapi_extra=needs("connections:write"),
    )
    async def make_connect_session(
        workspace_id: str, body: SessionBody, caller: Annotated[Caller, Depends(caller_of)]
    ) -> LinkAnswer:
        asked = Asked(
            workspace=caller.require(workspace_id),
            mode=caller.mode,
            user_id=body.user_id,
            label=body.label,
            providers=body.providers,
            connection_id=body.connection_id,
            return_url=body.return_url,
        )
        made = await connect.make(caller, asked)
        url = f"{vault.settings.gateway_url}/connect/{made.token}"
        return LinkAnswer(id=made.id, url=url, expires_at=made.expires_at)

    @router.get(
        base + "/{session_id}",
        tags=["connections"],
        summary="See how far a link has come",
        openapi_extra=needs("connections:read"),
    )
    async def get_connect_session(
        workspace_id: str, session_id: str, caller: Annotated[Caller, Depends(caller_of)]
    ) -> SessionAnswer:
        found = await connect.look(caller.require(workspace_id), caller.mode, session_id)
        return SessionAnswer.model_validate(
            {
                "id": found.id,
                "status": connect.state_of(found),
                "user_id": found.user_id,
                "provider": found.provider,
                "connection_id": found.result_id,
                "error": found.error,
                "expires_at": found.expires_at,
            }
        )
