"""The vault's audit over HTTP: GET /api/v1/workspaces/{ws}/connections/{id}/uses."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from schemas.access import Authenticate, Caller, needs
from token_vault import audit
from wire.database import Pool


class UseAnswer(BaseModel):
    """Who was given the credential, for what, and how often."""

    id: str
    purpose: str = Field(description="step, proxy, refresh, check or revoke")
    execution_id: str | None
    step_id: str | None
    credential_version: int
    process: str = Field(description="Host and process that it was given to.")
    uses: int
    first_at: datetime
    last_at: datetime


class UsesAnswer(BaseModel):
    """Uses, newest first; `next_cursor` gives the page that follows."""

    items: list[UseAnswer]
    next_cursor: str | None


def build_router(pool: Pool, authenticate: Authenticate) -> APIRouter:
    """Build the route.

    Args:
        pool: Of the database.
        authenticate: Says who calls.
    """
    router = APIRouter()

    async def caller_of(request: Request) -> Caller:
        return await authenticate(request.scope)

    @router.get(
        "/api/v1/workspaces/{workspace_id}/connections/{connection_id}/uses",
        tags=["connections"],
        summary="Who was given a connection's credential",
        openapi_extra=needs("audit:read"),
    )
    async def list_uses(
        workspace_id: str,
        connection_id: str,
        caller: Annotated[Caller, Depends(caller_of)],
        cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
        limit: Annotated[int, Query(ge=1, le=audit.PAGE_MAX)] = 50,
    ) -> UsesAnswer:
        caller.require(workspace_id)
        before = int(cursor) if cursor is not None else None
        rows = await audit.page(pool, caller, connection_id, before, limit + 1)
        items = [_show(row) for row in rows[:limit]]
        return UsesAnswer(items=items, next_cursor=str(items[-1].id) if len(rows) > limit else None)

    return router


def _show(row: Any) -> UseAnswer:  # noqa: ANN401 - a row, whose columns stand in `audit.page`
    return UseAnswer(
        **{
            **row,
            "id": str(row["id"]),
            "execution_id": row["execution_id"] or None,
            "step_id": row["step_id"] or None,
        }
    )
