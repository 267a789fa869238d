"""Workflows: checked whole, versioned, in force once the log has them; and started by hand."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi import Body as BodyField
from pydantic import BaseModel, Field, StringConstraints

from control.api.border import seed_of
from control.api.shapes import (
    USER_ID_MAX,
    Body,
    Member,
    PageDep,
    Place,
    PortsDep,
    Text,
    failures,
    moment,
    to_json,
)
from control.core.cursor import read_cursor, write_cursor
from control.definitions import no_workflow
from control.ports import Ports
from control.store import workflows
from control.store.query import Row
from schemas import codec
from schemas.access import Caller, needs
from schemas.errors import InvalidInput, NotFound
from schemas.events import TYPE_EXECUTE, Envelope, Event, Payload
from schemas.ids import derived_id, execution_id, is_id
from schemas.plan import compile_workflow
from schemas.starts import normal_path
from schemas.topics import EVENTS
from schemas.workflow import Workflow
from wire.bus import Record, publish_all
from wire.database import connection

VERSION_MAX: Final = 2**31 - 1

_EXAMPLE: Final = {
    "name": "Welcome New Customer",
    "trigger": {"type": "webhook", "path": "/new-customer"},
    "steps": [
        {
            "provider": "slack",
            "action": "send_message",
            "config": {"channel": "#sales", "text": "New customer: {{customer.name}}"},
        }
    ],
}
Definition = Annotated[
    dict[str, Any],
    BodyField(
        description="name, trigger and steps; docs/workflows.md is its language.",
        examples=[_EXAMPLE],
    ),
]
WorkflowId = Annotated[str, Path(max_length=64, examples=["wf_01jd3k5m7n9p1q3r5s7t9v1w3x"])]
VersionNumber = Annotated[int, Path(ge=1, le=VERSION_MAX)]


class WorkflowAnswer(BaseModel):
    """A workflow and its version in force."""

    workflow_id: str
    workspace_id: str
    mode: str
    name: str
    status: str
    version: int
    webhook_address: str | None = Field(
        description="Where to post to, for a workflow that a webhook starts."
    )
    definition: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class WorkflowPage(BaseModel):
    """Workflows, newest first."""

    items: list[WorkflowAnswer]
    next_cursor: str | None


class VersionItem(BaseModel):
    """A version, without its definition."""

    version: int
    name: str
    created_at: datetime


class VersionPage(BaseModel):
    """Versions, newest first."""

    items: list[VersionItem]
    next_cursor: str | None


class VersionAnswer(BaseModel):
    """One version; it never changes.

    `published` ones were in force; a `withdrawn` one could not be saved.
    """

    workflow_id: str
    version: int
    state: str
    definition: dict[str, Any]
    created_at: datetime


class ExecuteBody(Body):
    """What the workflow's templates read."""

    input: Any = Field(default_factory=dict, examples=[{"customer": {"name": "Ada Lovelace"}}])
    user_id: Annotated[Text, StringConstraints(min_length=1, max_length=USER_ID_MAX)] | None = (
        Field(None, description="Whose accounts are used.")
    )


class Receipt(Place):
    """Kafka has the event; the execution shows up within about a second."""

    event_id: str
    execution_id: str = Field(
        description="Of the version in force now; where another one came into force meanwhile,"
        " GET …/events/{event_id} names the execution."
    )
    workflow_id: str
    version: int
    accepted_at: datetime


async def create_workflow(
    definition: Definition, caller: Member, ports: PortsDep, request: Request, response: Response
) -> WorkflowAnswer:
    """Check a workflow and bring its first version into force."""
    workflow = _checked(definition, caller, ports)
    seed = seed_of(request)
    workflow_id = ports.mint("wf") if seed is None else derived_id("wf", *seed)
    saved = await ports.definitions.create(caller, workflow_id, workflow.name, definition)
    response.headers["Location"] = (
        f"/api/v1/workspaces/{caller.workspace_id}/workflows/{workflow_id}"
    )
    return _show(saved, ports)


async def list_workflows(caller: Member, ports: PortsDep, page: PageDep) -> WorkflowPage:
    """List the workflows of the key's mode, newest first."""
    scope = [caller.workspace_id, caller.mode]
    after = read_cursor("workflows", scope, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        found = await workflows.page(on, caller.workspace_id, caller.mode, after, page.limit + 1)
    shown = found[: page.limit]
    more = len(found) > page.limit
    last = (shown[-1]["sort_us"], shown[-1]["workflow_id"]) if more else None
    return WorkflowPage(
        items=[_show(item, ports) for item in shown],
        next_cursor=write_cursor("workflows", scope, last) if last else None,
    )


async def get_workflow(workflow_id: WorkflowId, caller: Member, ports: PortsDep) -> WorkflowAnswer:
    """Show a workflow with the version in force."""
    _require_id(workflow_id)
    async with connection(ports.pool) as on:
        found = await workflows.get(on, caller.workspace_id, caller.mode, workflow_id)
    if found is None:
        raise no_workflow(workflow_id)
    return _show(found, ports)


async def replace_workflow(
    workflow_id: WorkflowId, definition: Definition, caller: Member, ports: PortsDep
) -> WorkflowAnswer:
    """Check a workflow and bring it into force as a new version.

    Executions under way go on with the version that they started with. What says the same as the
    version in force makes no new one.
    """
    _require_id(workflow_id)
    workflow = _checked(definition, caller, ports)
    saved = await ports.definitions.replace(caller, workflow_id, workflow.name, definition)
    return _show(saved, ports)


async def delete_workflow(workflow_id: WorkflowId, caller: Member, ports: PortsDep) -> None:
    """Let no event start it any more; executions under way go on."""
    _require_id(workflow_id)
    await ports.definitions.delete(caller, workflow_id)


async def list_versions(
    workflow_id: WorkflowId, caller: Member, ports: PortsDep, page: PageDep
) -> VersionPage:
    """List every version that was in force, newest first."""
    await _visible(workflow_id, caller.workspace_id, caller.mode, ports)
    scope = [caller.workspace_id, workflow_id]
    before = read_cursor("versions", scope, page.cursor)[0] if page.cursor else None
    async with connection(ports.pool) as on:
        found = await workflows.versions(
            on, caller.workspace_id, workflow_id, before, page.limit + 1
        )
    shown = [VersionItem(**item) for item in found[: page.limit]]
    more = len(found) > page.limit
    return VersionPage(
        items=shown,
        next_cursor=write_cursor("versions", scope, (shown[-1].version, "")) if more else None,
    )


async def get_version(
    workflow_id: WorkflowId, version: VersionNumber, caller: Member, ports: PortsDep
) -> VersionAnswer:
    """Show one version."""
    await _visible(workflow_id, caller.workspace_id, caller.mode, ports)
    async with connection(ports.pool) as on:
        found = await workflows.version(on, caller.workspace_id, workflow_id, version)
    if found is None:
        raise NotFound(
            f"The workflow has no version {version}; …/versions lists them.",
            code="version_not_found",
        )
    return VersionAnswer(workflow_id=workflow_id, **found)


async def execute_workflow(
    workflow_id: WorkflowId, body: ExecuteBody, caller: Member, ports: PortsDep, request: Request
) -> Receipt:
    """Start a workflow without its trigger: an event of its own goes to Kafka."""
    _require_id(workflow_id)
    async with connection(ports.pool) as on:
        found = await workflows.get(on, caller.workspace_id, caller.mode, workflow_id)
    if found is None:
        raise no_workflow(workflow_id)
    await ports.usage.require(caller.workspace_id)
    seed = seed_of(request)
    event_id = ports.mint("ev") if seed is None else derived_id("ev", *seed)
    now_us = ports.clock()
    event = Event(data=Payload(to_json(body.input, "input")), user=body.user_id, mode=caller.mode)
    envelope = Envelope(
        event_id,
        TYPE_EXECUTE,
        "/control",
        caller.workspace_id,
        now_us,
        subject=workflow_id,
        minted=seed is None,
    )
    record = Record(EVENTS, event_id.encode(), codec.encode(event), envelope.headers())
    (place,) = await publish_all(ports.publisher, [record])
    return Receipt(
        event_id=event_id,
        execution_id=execution_id(event_id, workflow_id, found["version"], 0),
        workflow_id=workflow_id,
        version=found["version"],
        accepted_at=moment(now_us),
        topic=place.topic,
        partition=place.partition,
        offset=place.offset,
    )


def _checked(definition: Mapping[str, Any], caller: Caller, ports: Ports) -> Workflow:
    """Check a workflow whole.

    Raises:
        InvalidInput: With every problem and its place.
    """
    to_json(definition, "body")
    try:
        return compile_workflow(definition, ports.actions.in_mode(caller.mode)).workflow
    except RecursionError:
        raise InvalidInput("The workflow is nested too deep.", code="too_deep") from None


async def _visible(workflow_id: str, workspace: str, mode: str, ports: Ports) -> None:
    _require_id(workflow_id)
    async with connection(ports.pool) as on:
        if not await workflows.exists(on, workspace, mode, workflow_id):
            raise no_workflow(workflow_id)


def _require_id(workflow_id: str) -> None:
    if not is_id("wf", workflow_id):
        raise no_workflow(workflow_id)


def _show(row: Row, ports: Ports) -> WorkflowAnswer:
    trigger = row["definition"]["trigger"]  # checked when it was saved
    address = None
    if trigger["type"] == "webhook":
        path = normal_path(trigger["path"])
        address = f"{ports.settings.gateway_url}/webhooks/{row['workspace_id']}{path}"
    return WorkflowAnswer(webhook_address=address, **{k: row[k] for k in row if k != "sort_us"})


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/workflows"
    one = f"{many}/{{workflow_id}}"
    tags: list[Any] = ["workflows"]
    router.add_api_route(
        many,
        create_workflow,
        methods=["POST"],
        status_code=201,
        tags=tags,
        summary="Save a workflow",
        openapi_extra=needs("workflows:write"),
        responses=failures(401, 403, 404, 422, 503),
    )
    router.add_api_route(
        many,
        list_workflows,
        methods=["GET"],
        tags=tags,
        summary="List workflows",
        openapi_extra=needs("workflows:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        one,
        get_workflow,
        methods=["GET"],
        tags=tags,
        summary="Get a workflow",
        openapi_extra=needs("workflows:read"),
        responses=failures(401, 404),
    )
    router.add_api_route(
        one,
        replace_workflow,
        methods=["PUT"],
        tags=tags,
        summary="Save a new version",
        openapi_extra=needs("workflows:write"),
        responses=failures(401, 404, 422, 503),
    )
    router.add_api_route(
        one,
        delete_workflow,
        methods=["DELETE"],
        status_code=204,
        tags=tags,
        summary="Delete a workflow",
        openapi_extra=needs("workflows:write"),
        responses=failures(401, 404, 503),
    )
    router.add_api_route(
        f"{one}/versions",
        list_versions,
        methods=["GET"],
        tags=tags,
        summary="List versions",
        openapi_extra=needs("workflows:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        f"{one}/versions/{{version}}",
        get_version,
        methods=["GET"],
        tags=tags,
        summary="Get a version",
        openapi_extra=needs("workflows:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        f"{one}/execute",
        execute_workflow,
        methods=["POST"],
        status_code=202,
        tags=tags,
        summary="Start a workflow",
        openapi_extra=needs("executions:write"),
        responses=failures(401, 404, 422, 503),
    )
