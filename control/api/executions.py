"""Executions: listed, told step by step, cancelled."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from control.api.cancellations import REASON_MAX, cancel_record
from control.api.shapes import (
    USER_ID_MAX,
    Body,
    Member,
    PageQuery,
    PortsDep,
    Text,
    failures,
)
from control.api.shapes import Place as PlaceShape
from control.core.cursor import read_cursor, write_cursor
from control.core.timeline import declared_steps, milliseconds, timeline
from control.ports import Ports
from control.store import executions, workflows
from control.store.query import Borrowed, Row
from schemas.access import Caller, needs
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.ids import is_id
from wire.bus import publish_all
from wire.database import connection

WAIT_MAX_S: Final = 30
# Something accepted a moment ago is looked for this long before it is called unknown: the read side
# is behind the log by its gathering time (0.2 s) and one transaction.
APPEARS_WITHIN_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.05
_LOOK_SELDOM_S: Final = 0.25

Status = Literal["running", "succeeded", "failed", "cancelled"]
T = TypeVar("T")


class ExecutionFilter(PageQuery):
    """Which executions."""

    workflow_id: Annotated[Text, Field(max_length=64)] | None = None
    status: Status | None = None
    user_id: Annotated[Text, Field(max_length=USER_ID_MAX)] | None = None
    since: AwareDatetime | None = Field(None, description="Started at this time or later.")
    until: AwareDatetime | None = Field(None, description="Started before this time.")


class ErrorShape(BaseModel):
    """Why something failed."""

    code: str = ""
    message: str = ""
    detail: str | None = None


class ExecutionItem(BaseModel):
    """An execution."""

    execution_id: str
    workflow_id: str
    workflow_name: str
    version: int
    mode: str
    user_id: str | None
    status: Status
    error: ErrorShape | None
    event_id: str | None
    generation: int
    replay_of: str | None = Field(None, description="The execution that this one runs once more.")
    replay_id: str | None = Field(None, description="The replay that wanted it.")
    event_time: datetime | None = Field(description="When the event was accepted.")
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None = Field(description="From its start to its end.")


class ExecutionPage(BaseModel):
    """Executions, newest first."""

    items: list[ExecutionItem]
    next_cursor: str | None


class StepShape(BaseModel):
    """A step. Those that were not run have no times and places.

    `request` is what the vendor received, without credentials; `response` what it answered.
    """

    step_id: str
    type: Literal["action", "condition", "delay", "wait_event"]
    status: Literal["succeeded", "failed", "unknown", "skipped", "pending", "waiting", "not_run"]
    provider: str | None = None
    action: str | None = None
    loop_index: int = 0
    reason: str | None = Field(None, description="Why it was skipped, or why it waits.")
    waits_since: datetime | None = Field(
        None,
        description="It waits: for a time, an event, its next attempt, or for the customer"
        " to connect again; `reason` says which.",
    )
    waits_until: datetime | None = Field(
        None, description="When it goes on, or fails if what it waits for has not come."
    )
    waits_for: str | None = Field(None, description="What it waits for, in words.")
    condition: dict[str, Any] | None = Field(
        None, description="Its text, its value and the operands as they were."
    )
    outcome: str | None = Field(None, description="How the vendor took it.")
    error: ErrorShape | None = None
    output: Any = None
    output_cut: bool = False
    vendor_id: str | None = Field(None, description="Id of what was made at the vendor.")
    attempts: list[Any] = Field(default_factory=list)
    request: Any = None
    response: Any = None
    connection_id: str | None = None
    effect_key: str | None = Field(None, description="The idempotency key of the effect.")
    command_place: PlaceShape | None = None
    result_place: PlaceShape | None = None
    requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    waited_ms: float | None = None
    duration_ms: float | None = None


class TimelineEntry(BaseModel):
    """Something that happened; `place` is where it stands in Kafka."""

    kind: Literal[
        "event_accepted",
        "event_outcome",
        "execution_started",
        "step",
        "condition",
        "execution_finished",
    ]
    at: datetime | None
    place: PlaceShape | None = None
    step: StepShape | None = None
    event_id: str | None = None
    event_type: str | None = None
    subject: str | None = None
    outcome: str | None = None
    reason: str | None = None
    status: str | None = None
    error: ErrorShape | None = None


class ExecutionAnswer(ExecutionItem):
    """An execution with all that happened."""

    timeline: list[TimelineEntry]


class CancelBody(Body):
    """Why it is to stop."""

    reason: Annotated[Text, Field(max_length=REASON_MAX)] = ""


class CancelAnswer(BaseModel):
    """The wish is on the log; steps under way end, no further one begins."""

    execution_id: str
    status: Literal["cancel_requested"] = "cancel_requested"
    place: PlaceShape


async def list_executions(
    caller: Member, ports: PortsDep, wanted: Annotated[ExecutionFilter, Query()]
) -> ExecutionPage:
    """List executions of the key's mode, newest first."""
    if wanted.since is not None and wanted.until is not None and wanted.since >= wanted.until:
        raise InvalidInput("since must lie before until.", code="bad_time_range")
    filters = wanted.model_dump(exclude={"limit", "cursor"}) | {"mode": caller.mode}
    scope = [caller.workspace_id, {k: str(v) for k, v in filters.items() if v is not None}]
    after = read_cursor("executions", scope, wanted.cursor) if wanted.cursor else None
    async with connection(ports.pool) as on:
        found = await executions.page(on, caller.workspace_id, filters, after, wanted.limit + 1)
    shown = found[: wanted.limit]
    more = len(found) > wanted.limit
    last = (shown[-1]["sort_us"], shown[-1]["execution_id"]) if more else None
    return ExecutionPage(
        items=[ExecutionItem(**_item(row)) for row in shown],
        next_cursor=write_cursor("executions", scope, last) if last else None,
    )


ExecutionId = Annotated[str, Path(max_length=64, examples=["ex_01jd3k5m7n9p1q3r5s7t9v1w3x"])]
Wait = Annotated[
    float | None,
    Query(
        ge=0,
        le=WAIT_MAX_S,
        description="Seconds to wait for its end; without it, a second for it to appear.",
    ),
]


async def get_execution(
    execution_id: ExecutionId, caller: Member, ports: PortsDep, wait: Wait = None
) -> ExecutionAnswer:
    """Tell an execution step by step; with `wait`, as soon as it is finished."""
    row = await _look(execution_id, caller, ports, wait)
    async with connection(ports.pool) as on:
        return await _tell(on, caller, row)


async def cancel_execution(
    execution_id: ExecutionId, caller: Member, ports: PortsDep, body: CancelBody | None = None
) -> CancelAnswer:
    """Ask an execution to stop."""
    row = await _look(execution_id, caller, ports, None)
    if row["status"] in executions.TERMINAL:
        raise Conflict(
            f"The execution has ended already ({row['status']}).", code="already_finished"
        )
    reason = (body or CancelBody()).reason
    record = cancel_record(caller.workspace_id, execution_id, reason, ports.clock())
    (place,) = await publish_all(ports.publisher, [record])
    async with connection(ports.pool) as on:
        await executions.drop_waiting(on, caller.workspace_id, [execution_id])
    return CancelAnswer(
        execution_id=execution_id,
        place=PlaceShape(topic=place.topic, partition=place.partition, offset=place.offset),
    )


async def until(ports: Ports, find: Callable[[], Awaitable[T | None]], wait_s: float) -> T | None:
    """Look again and again until something is found or the time is up.

    Args:
        ports: For the bound on requests that wait at the same time; over it nobody waits.
        find: Gives what is looked for, or None.
        wait_s: Seconds.
    """
    found = await find()
    if found is not None or wait_s <= 0 or ports.waiters.locked():
        return found
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with ports.waiters:
        while found is None and (waited := loop.time() - begun) < wait_s:
            pause = _LOOK_EVERY_S if waited < 1 else _LOOK_SELDOM_S
            await asyncio.sleep(min(pause, wait_s - waited))
            found = await find()
    return found


async def _look(execution_id: str, caller: Caller, ports: Ports, wait_s: float | None) -> Row:
    """Find an execution; with a time to wait, its end if that comes before.

    Raises:
        NotFound: It did not appear.
    """
    if not is_id("ex", execution_id):
        raise _unknown(execution_id)
    last: Row | None = None

    async def find() -> Row | None:
        nonlocal last
        async with connection(ports.pool) as on:
            last = await executions.get(on, caller.workspace_id, caller.mode, execution_id)
        if last is None or wait_s is None:
            return last
        return last if last["status"] in executions.TERMINAL else None

    await until(ports, find, APPEARS_WITHIN_S if wait_s is None else wait_s)
    if last is None:
        raise _unknown(execution_id)
    return last


def _unknown(execution_id: str) -> NotFound:
    return NotFound(
        f"There is no execution {execution_id[:64]!r} that this API key can see. One whose event"
        " was accepted just now shows up within about a second (ask with ?wait=5); an event that"
        " matched no workflow has none: GET …/events/{event_id} tells.",
        code="execution_not_found",
    )


async def _tell(on: Borrowed, caller: Caller, row: Row) -> ExecutionAnswer:
    steps = await executions.steps(on, caller.workspace_id, row["execution_id"])
    version = await workflows.version(on, caller.workspace_id, row["workflow_id"], row["version"])
    accepted = None
    if row["event_offset"] is not None:
        accepted = await executions.outcome_at(on, row["event_partition"], row["event_offset"])
    declared = declared_steps(version["definition"]) if version is not None else {}
    waiting: list[Row] = []
    if row["status"] not in executions.TERMINAL:
        waiting += await executions.waiting(on, caller.workspace_id, row["execution_id"])
        waiting += await executions.pauses(on, caller.workspace_id, row["execution_id"])
    told = timeline(row, steps, accepted, declared, waiting)
    return ExecutionAnswer(**_item(row), timeline=[TimelineEntry(**entry) for entry in told])


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ExecutionItem.model_fields if name in row}
    return shown | {"duration_ms": milliseconds(row["started_at"], row["finished_at"])}


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/executions"
    one = f"{many}/{{execution_id}}"
    tags: list[Any] = ["executions"]
    router.add_api_route(
        many,
        list_executions,
        methods=["GET"],
        tags=tags,
        summary="List executions",
        openapi_extra=needs("executions:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        one,
        get_execution,
        methods=["GET"],
        tags=tags,
        summary="Get an execution with its timeline",
        openapi_extra=needs("executions:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        f"{one}/cancel",
        cancel_execution,
        methods=["POST"],
        status_code=202,
        tags=tags,
        summary="Cancel an execution",
        openapi_extra=needs("executions:write"),
        responses=failures(401, 404, 409, 422, 503),
    )
