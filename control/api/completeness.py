"""Completeness over HTTP: what became of all that was accepted, every gap, signed statements."""

import base64
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from control.api.shapes import Member, PageDep, Place, PortsDep, failures, moment
from control.completeness import Report, Wanted, check
from control.core.completeness import Gap
from control.core.cursor import read_cursor, write_cursor
from control.core.statements import ALGORITHM, document
from control.store import statements
from control.store.query import Row
from schemas.access import needs
from schemas.errors import InvalidInput, NotFound
from wire.database import connection

_SEQUENCE_MAX: Final = 2**31 - 1


class RangeQuery(BaseModel):
    """Which events, by when they were accepted."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_: AwareDatetime | None = Field(None, alias="from", description="At this time or later.")
    to: AwareDatetime | None = Field(None, description="Before this time.")
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        60, description="What is younger may still be on its way, and is no gap."
    )


class OffsetsShape(BaseModel):
    """Offsets of one partition of the events topic that were looked at."""

    partition: int
    first: int
    end: int = Field(description="The one after the last.")


class GapShape(BaseModel):
    """Something that was accepted and did not come to its end."""

    kind: Literal["no_outcome", "no_execution", "not_finished"]
    place: Place = Field(description="Of the event.")
    event_id: str | None
    execution_id: str | None
    since: datetime | None
    why: str


class CompletenessAnswer(BaseModel):
    """Accepted events joined with outcomes, and executions with their ends; both modes."""

    complete: bool = Field(description="No gap.")
    offsets: list[OffsetsShape]
    accepted: int
    in_flight: int = Field(description="Accepted within the grace, without an outcome yet.")
    outcomes: dict[str, int] = Field(examples=[{"matched": 120, "no_match": 3}])
    executions: dict[str, int] = Field(
        description="By status; `missing`: an outcome names it, and it never began."
    )
    gaps: list[GapShape] = Field(description="At most 1,000.")
    unnamed: int = Field(description="Gaps beyond those listed.")
    behind: int = Field(
        description="Facts that the read side has still to read: until it is 0, a gap may be none."
    )


class KeyShape(BaseModel):
    """A public key that signs statements."""

    key_id: str
    algorithm: str
    public_key: str = Field(description="The raw 32 bytes, base 64.")
    created_at: datetime


class KeyList(BaseModel):
    """All keys that ever signed, newest first."""

    items: list[KeyShape]


class StatementShape(BaseModel):
    """A signed statement; `nhood verify --statement` checks it without any server."""

    sequence: int
    until: datetime
    statement: str = Field(description="The signed text, byte for byte.")
    signature: str = Field(description="Ed25519 over it, base 64.")
    algorithm: str
    key_id: str
    public_key: str


class StatementPage(BaseModel):
    """Statements, newest first."""

    items: list[StatementShape]
    next_cursor: str | None


async def get_completeness(
    caller: Member, ports: PortsDep, wanted: Annotated[RangeQuery, Query()]
) -> CompletenessAnswer:
    """Join what was accepted with what became of it, and name every gap."""
    if wanted.from_ is not None and wanted.to is not None and wanted.from_ >= wanted.to:
        raise InvalidInput("from must lie before to.", code="bad_time_range")
    asked = Wanted(caller.workspace_id, wanted.from_, wanted.to, wanted.grace_s)
    report = await check(ports.pool, ports.log, asked, moment(ports.clock()))
    return CompletenessAnswer.model_validate(told(report))


def told(report: Report) -> dict[str, Any]:
    """Tell a report as JSON values."""
    return {
        "complete": report.complete,
        "offsets": [
            {"partition": partition, "first": first, "end": end}
            for partition, (first, end) in sorted(report.ranges.items())
        ],
        "accepted": report.accepted,
        "in_flight": report.in_flight,
        "outcomes": report.outcomes,
        "executions": report.executions,
        "gaps": [gap_told(gap) for gap in report.gaps],
        "unnamed": report.unnamed,
        "behind": report.behind,
    }


def gap_told(gap: Gap) -> dict[str, Any]:
    """Tell a gap as JSON values."""
    at = gap.place
    return {
        "kind": gap.kind,
        "place": {"topic": at.topic, "partition": at.partition, "offset": at.offset},
        "event_id": gap.event_id,
        "execution_id": gap.execution_id,
        "since": gap.since,
        "why": gap.why,
    }


async def list_statements(caller: Member, ports: PortsDep, page: PageDep) -> StatementPage:
    """List the workspace's signed statements, newest first."""
    scope = [caller.workspace_id]
    before = read_cursor("statements", scope, page.cursor)[0] if page.cursor else None
    async with connection(ports.pool) as on:
        found = await statements.page(on, caller.workspace_id, before, page.limit + 1)
    shown = found[: page.limit]
    more = write_cursor("statements", scope, (shown[-1]["sequence"], "")) if shown[-1:] else None
    return StatementPage(
        items=[_shown(row) for row in shown],
        next_cursor=more if len(found) > page.limit else None,
    )


Sequence = Annotated[int, Path(ge=1, le=_SEQUENCE_MAX)]


async def get_statement(sequence: Sequence, caller: Member, ports: PortsDep) -> StatementShape:
    """Give one signed statement."""
    async with connection(ports.pool) as on:
        row = await statements.get(on, caller.workspace_id, sequence)
    if row is None:
        raise NotFound(f"There is no statement {sequence} yet.", code="statement_not_found")
    return _shown(row)


async def list_keys(ports: PortsDep) -> KeyList:
    """List the public keys of statements; to be kept where the statements are checked."""
    async with connection(ports.pool) as on:
        found = await statements.keys(on)
    return KeyList(
        items=[
            KeyShape(
                key_id=row["id"],
                algorithm=ALGORITHM,
                public_key=base64.b64encode(bytes(row["public_key"])).decode(),
                created_at=row["created_at"],
            )
            for row in found
        ]
    )


def _shown(row: Row) -> StatementShape:
    signed = document(bytes(row["body"]), bytes(row["signature"]), bytes(row["public_key"]))
    return StatementShape(sequence=row["sequence"], until=row["hour"], **signed)


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    base = "/api/v1/workspaces/{workspace_id}/completeness"
    tags: list[Any] = ["completeness"]
    router.add_api_route(
        base,
        get_completeness,
        methods=["GET"],
        tags=tags,
        summary="Join accepted events with what became of them",
        openapi_extra=needs("events:read"),
        responses=failures(401, 404, 422, 503),
    )
    router.add_api_route(
        f"{base}/statements",
        list_statements,
        methods=["GET"],
        tags=tags,
        summary="List signed statements",
        openapi_extra=needs("events:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        f"{base}/statements/{{sequence}}",
        get_statement,
        methods=["GET"],
        tags=tags,
        summary="Get a signed statement",
        openapi_extra=needs("events:read"),
        responses=failures(401, 404, 422),
    )
    router.add_api_route(
        "/api/v1/statement-keys",
        list_keys,
        methods=["GET"],
        tags=tags,
        summary="List the public keys of statements",
        openapi_extra=needs("public"),
        responses=failures(503),
    )
