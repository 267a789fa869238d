"""Changes of a connection over HTTP: GET /api/v1/workspaces/{ws}/connections/{id}/events."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from schemas.access import Authenticate, Caller, needs
from token_vault import changes
from wire.database import Pool


class ChangeAnswer(BaseModel):
    """One change of a connection's state."""

    id: str
    before: str | None = Field(description="null: it was made.")
    after: str = Field(description="active, refreshing, degraded, needs_reauth or revoked")
    reason: str = Field(
        description="connected, reconnected, due, refused, refreshed, deleted, or an error's code"
    )
    message: str = Field(description="What the vendor said, where it said something.")
    credential_version: int
    at: datetime
    notified_at: datetime | None = Field(
        description="When your webhook_url took the news; null: it is not told, or not yet."
    )
    notify_attempts: int
    notify_error: str | None = Field(description="Why the last attempt to tell you failed.")


class ChangesAnswer(BaseModel):
    """Changes, newest first; `next_cursor` gives the page that follows."""

    items: list[ChangeAnswer]
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
        "/api/v1/workspaces/{workspace_id}/connections/{connection_id}/events",
        tags=["connections"],
        summary="Changes of a connection's state",
        openapi_extra=needs("connections:read"),
    )
    async def list_changes(
        workspace_id: str,
        connection_id: str,
        caller: Annotated[Caller, Depends(caller_of)],
        cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
        limit: Annotated[int, Query(ge=1, le=changes.PAGE_MAX)] = 50,
    ) -> ChangesAnswer:
        caller.require(workspace_id)
        before = int(cursor) if cursor is not None else None
        rows = await changes.page(pool, caller, connection_id, before, limit + 1)
        items = [_show(row) for row in rows[:limit]]
        more = len(rows) > limit
        return ChangesAnswer(items=items, next_cursor=items[-1].id if more else None)

    return router


def _show(row: Any) -> ChangeAnswer:  # noqa: ANN401 - a row, whose columns stand in `changes.page`
    return ChangeAnswer(**{**row, "id": str(row["id"]), "credential_version": row["version"]})
