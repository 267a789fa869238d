"""Cancels executions: one by its id, or all that fit a filter."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field

from control.api.shapes import USER_ID_MAX, Body, Member, PortsDep, Text, failures
from control.store import cancellations, executions
from schemas import codec
from schemas.access import needs
from schemas.errors import InvalidInput
from schemas.events import CancelRequested, Envelope
from schemas.topics import RESULTS
from wire.bus import Record, publish_all
from wire.database import connection

REASON_MAX: Final = 500
CANCELLED_MAX: Final = 1_000  # executions cancelled by one call: one batch to the broker


def cancel_record(workspace: str, execution_id: str, reason: str, now_us: int) -> Record:
    """Build the wish that an execution stops, for the router."""
    request = CancelRequested(workspace, execution_id, reason, now_us)
    envelope = Envelope(
        f"{execution_id}/cancel",
        "nhood.execution.cancel_requested",
        "/control",
        workspace,
        now_us,
        subject=execution_id,
    )
    return Record(RESULTS, execution_id.encode(), codec.encode(request), envelope.headers())


class CancelManyBody(Body):
    """Which executions are to stop; all that is given has to fit, and something has to be."""

    workflow_id: Annotated[Text, Field(max_length=64)] | None = None
    user_id: Annotated[Text, Field(max_length=USER_ID_MAX)] | None = None
    status: Annotated[Text, Field(max_length=32)] | None = Field(
        None, description="One that is no end, such as running."
    )
    since: AwareDatetime | None = Field(None, description="Started at this time or later.")
    until: AwareDatetime | None = Field(None, description="Started before this time.")
    reason: Annotated[Text, Field(max_length=REASON_MAX)] = ""
    limit: Annotated[int, Field(ge=1, le=CANCELLED_MAX)] = CANCELLED_MAX


class CancelManyAnswer(BaseModel):
    """How far it got. Call again until nothing remains: what was asked for before costs nothing."""

    requested: int = Field(description="Executions whose cancellation is on the log now.")
    remaining: int = Field(description="Executions that fit too and were not asked for yet.")


async def cancel_executions(
    caller: Member, ports: PortsDep, body: CancelManyBody
) -> CancelManyAnswer:
    """Ask executions to stop, the oldest first."""
    filters = body.model_dump(exclude={"reason", "limit"})
    if all(value is None for value in filters.values()):
        raise InvalidInput(
            "Say which executions: workflow_id, user_id, status, since or until. Every one that"
            ' runs is {"status": "running"}.',
            code="filter_missing",
        )
    if body.since is not None and body.until is not None and body.since >= body.until:
        raise InvalidInput("since must lie before until.", code="bad_time_range")
    async with connection(ports.pool) as on:
        ids, count = await cancellations.unfinished(
            on, caller.workspace_id, filters | {"mode": caller.mode}, body.limit
        )
    now_us = ports.clock()
    records = [cancel_record(caller.workspace_id, each, body.reason, now_us) for each in ids]
    if records:
        await publish_all(ports.publisher, records)
        async with connection(ports.pool) as on:
            await executions.drop_waiting(on, caller.workspace_id, ids)
    return CancelManyAnswer(requested=len(ids), remaining=max(0, count - len(ids)))


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    tags: list[Any] = ["executions"]
    router.add_api_route(
        "/api/v1/workspaces/{workspace_id}/executions/cancel",
        cancel_executions,
        methods=["POST"],
        status_code=202,
        tags=tags,
        summary="Cancel the executions that fit a filter",
        openapi_extra=needs("executions:write"),
        responses=failures(401, 404, 422, 503),
    )
