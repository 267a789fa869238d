"""Replays over HTTP: asked for, looked at, paused, resumed, cancelled, compared."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from control import replays
from control.api.shapes import Body, Member, PageDep, PageQuery, PortsDep, Text, failures
from control.api.shapes import to_json as json_of
from control.core.cursor import read_cursor, write_cursor
from control.core.replays import differences
from control.ports import Ports
from control.replay_job import told_change
from control.store import replays as store
from control.store.query import Row
from schemas.access import needs
from schemas.errors import Conflict, InvalidInput
from wire.clock import now
from wire.database import connection

if TYPE_CHECKING:
    from collections.abc import Callable

_ID_MAX: Final = 64
_RANGES_MAX: Final = 100
_STEP_MAX: Final = 128
COMPARED_MAX: Final = 1_000  # items of two dry replays that one answer compares

Word = Annotated[Text, Field(max_length=_ID_MAX)]
Status = Literal["awaiting_confirmation", "running", "paused", "finished", "cancelled", "failed"]
Ended = Literal["succeeded", "failed", "cancelled"]


class OffsetRange(Body):
    """Offsets of one partition of the events topic."""

    partition: Annotated[int, Field(ge=0, le=100_000)]
    first: Annotated[int, Field(ge=0, lt=2**62)]
    end: Annotated[int, Field(ge=0, lt=2**62, description="The one after the last.")]


class Selection(Body):
    """What to replay: one execution, or those whose events lie in a range."""

    execution_id: Word | None = None
    workflow_id: Word | None = None
    statuses: Annotated[list[Ended] | None, Field(max_length=3)] = None
    since: AwareDatetime | None = Field(None, description="Event accepted at this time or later.")
    until: AwareDatetime | None = None
    offsets: Annotated[list[OffsetRange] | None, Field(max_length=_RANGES_MAX)] = None
    unmatched: Annotated[
        bool, Field(description="Also events that started nothing; with version `current`.")
    ] = False


class ReplayBody(Body):
    """A replay."""

    mode: Literal["dry", "repair", "force"] = "dry"
    selection: Selection
    version: Annotated[
        Text, Field(max_length=10, description="`pinned`: as it was; `current`; or a number.")
    ] = "pinned"
    from_step: Annotated[Text, Field(max_length=_STEP_MAX)] | None = Field(
        None, description="With force and dry: steps before it keep their results."
    )
    input: Any = Field(None, description="In place of the event's body, for one execution.")
    rate_per_s: Annotated[int, Field(ge=1, le=replays.RATE_MAX)] = replays.RATE_DEFAULT


class ReplayItem(BaseModel):
    """A replay."""

    replay_id: str
    mode: Literal["dry", "repair", "force"]
    status: Status
    selection: dict[str, Any]
    version: str
    from_step: str | None
    rate_per_s: int
    total: int = Field(description="What it replays.")
    created_by: str
    created_at: datetime
    finished_at: datetime | None


class ReplayAnswer(ReplayItem):
    """A replay with its progress."""

    items: dict[str, int] = Field(
        description="By status: pending, sent, reported (dry), skipped, cancelled."
    )
    executions: dict[str, int] = Field(description="What it started, by status.")
    confirmation: str | None = Field(
        None, description="Of a forced one, this once: POST it to …/confirm within 10 minutes."
    )


class ReplayPage(BaseModel):
    """Replays, newest first."""

    items: list[ReplayItem]
    next_cursor: str | None


class ConfirmBody(Body):
    """The token that the first call gave."""

    confirmation: Annotated[Text, Field(min_length=1, max_length=128)]


class ItemShape(BaseModel):
    """One thing that is replayed."""

    sequence: int
    execution_id: str | None = Field(description="null: an event that had started nothing.")
    partition: int | None
    offset: int | None
    status: Literal["pending", "sent", "reported", "skipped", "cancelled"]
    reason: str
    new_execution_id: str | None
    execution_status: str | None
    report: dict[str, Any] | None = Field(
        description="Of a dry one: steps with their answers, and `changes` against what was."
    )
    at: datetime | None


class ItemPage(BaseModel):
    """Items in the order in which they are sent."""

    items: list[ItemShape]
    next_cursor: str | None


class ChangeShape(BaseModel):
    """How one step of two runs differs."""

    step: str | None = Field(description="null: the execution itself.")
    kind: Literal["branch", "status", "request"]
    before: Any
    after: Any
    paths: list[str]


class Differing(BaseModel):
    """An execution that two dry replays run otherwise."""

    execution_id: str
    changes: list[ChangeShape]


class DiffAnswer(BaseModel):
    """Two dry replays compared, execution by execution."""

    compared: int
    equal: int
    only_here: list[str]
    only_there: list[str]
    differing: list[Differing]


async def ask_for_replay(caller: Member, ports: PortsDep, body: ReplayBody) -> ReplayAnswer:
    """Choose what to replay and begin; a forced one waits for its confirmation."""
    selection = body.selection.model_dump(mode="json", exclude_defaults=True)
    if (
        body.selection.since
        and body.selection.until
        and (body.selection.since >= body.selection.until)
    ):
        raise InvalidInput("since must lie before until.", code="bad_time_range")
    edited = "input" in body.model_fields_set
    asked = replays.Asked(
        body.mode,
        selection,
        body.version,
        body.from_step,
        json_of(body.input, "input") if edited else None,
        body.rate_per_s,
    )
    row, token = await replays.ask(ports.pool, caller, asked, now())
    return await _answer(ports, row, token)


async def list_replays(caller: Member, ports: PortsDep, page: PageDep) -> ReplayPage:
    """List replays of the key's mode, newest first."""
    scope = [caller.workspace_id, caller.mode]
    after = read_cursor("replays", scope, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        found = await store.page(on, caller.workspace_id, caller.mode, after, page.limit + 1)
    shown = found[: page.limit]
    last = None
    if len(found) > page.limit:
        last = (shown[-1]["sort_us"], shown[-1]["replay_id"])
    return ReplayPage(
        items=[ReplayItem(**_item(row)) for row in shown],
        next_cursor=write_cursor("replays", scope, last) if last else None,
    )


ReplayId = Annotated[str, Path(max_length=_ID_MAX, examples=["rpl_01jd3k5m7n9p1q3r5s7t9v1w3x"])]


async def get_replay(replay_id: ReplayId, caller: Member, ports: PortsDep) -> ReplayAnswer:
    """Tell a replay with its progress."""
    return await _answer(ports, await replays.known(ports.pool, caller, replay_id))


async def confirm_replay(
    replay_id: ReplayId, caller: Member, ports: PortsDep, body: ConfirmBody
) -> ReplayAnswer:
    """Begin a forced replay."""
    row = await replays.confirm(ports.pool, caller, replay_id, body.confirmation, now())
    return await _answer(ports, row)


async def pause_replay(replay_id: ReplayId, caller: Member, ports: PortsDep) -> ReplayAnswer:
    """Hold a replay; what was sent goes on."""
    return await _answer(ports, await replays.pause(ports.pool, caller, replay_id))


async def resume_replay(replay_id: ReplayId, caller: Member, ports: PortsDep) -> ReplayAnswer:
    """Go on with a paused replay."""
    return await _answer(ports, await replays.resume(ports.pool, caller, replay_id))


async def cancel_replay(replay_id: ReplayId, caller: Member, ports: PortsDep) -> ReplayAnswer:
    """End a replay; executions that it began go on."""
    return await _answer(ports, await replays.cancel(ports.pool, caller, replay_id))


async def list_items(
    replay_id: ReplayId, caller: Member, ports: PortsDep, page: Annotated[PageQuery, Query()]
) -> ItemPage:
    """List what a replay runs once more, and what came of it."""
    await replays.known(ports.pool, caller, replay_id)
    scope = [caller.workspace_id, replay_id]
    after = read_cursor("replay-items", scope, page.cursor)[0] if page.cursor else 0
    async with connection(ports.pool) as on:
        found = await store.items(on, replay_id, after, page.limit + 1)
    shown = found[: page.limit]
    more = len(found) > page.limit
    last = (shown[-1]["sequence"], "") if more else None
    return ItemPage(
        items=[ItemShape(**_shown(row)) for row in shown],
        next_cursor=write_cursor("replay-items", scope, last) if last else None,
    )


Other = Annotated[
    str, Query(alias="with", max_length=_ID_MAX, description="The replay to compare with.")
]


async def compare(replay_id: ReplayId, caller: Member, ports: PortsDep, other: Other) -> DiffAnswer:
    """Compare two dry replays: branches taken, steps run, requests changed."""
    reports = []
    for name in (replay_id, other):
        row = await replays.known(ports.pool, caller, name)
        if row["kind"] != "dry" or row["status"] != "finished":
            raise Conflict(f"{name} is no finished dry replay.", code="replay_status")
        async with connection(ports.pool) as on:
            found = await store.items(on, name, 0, COMPARED_MAX)
        reports.append({r["execution_id"]: r["report"] for r in found if r["report"]})
    here, there = reports
    both = [name for name in here if name in there]
    differing = []
    for name in both:
        changes = [told_change(each) for each in differences(here[name], there[name])]
        if changes:
            differing.append(
                Differing(execution_id=name, changes=[ChangeShape(**each) for each in changes])
            )
    return DiffAnswer(
        compared=len(both),
        equal=len(both) - len(differing),
        only_here=[name for name in here if name not in there],
        only_there=[name for name in there if name not in here],
        differing=differing,
    )


async def _answer(ports: Ports, row: Row, token: str | None = None) -> ReplayAnswer:
    async with connection(ports.pool) as on:
        items = await store.counts(on, row["replay_id"])
        started = await store.executions(on, row["replay_id"])
    return ReplayAnswer(**_item(row), items=items, executions=started, confirmation=token)


def _item(row: Row) -> dict[str, Any]:
    names = [name for name in ReplayItem.model_fields if name != "mode"]
    return {name: row[name] for name in names} | {"mode": row["kind"]}


def _shown(row: Row) -> dict[str, Any]:
    told = {name: row[name] for name in ItemShape.model_fields if name in row}
    return told | {"partition": row["event_partition"], "offset": row["event_offset"]}


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/replays"
    one = f"{many}/{{replay_id}}"
    tags: list[Any] = ["replays"]
    router.add_api_route(
        many,
        ask_for_replay,
        methods=["POST"],
        status_code=201,
        tags=tags,
        summary="Replay executions",
        openapi_extra=needs("executions:write"),
        responses=failures(401, 404, 422),
    )
    reads: tuple[tuple[str, Callable[..., Any], str], ...] = (
        (many, list_replays, "List replays"),
        (one, get_replay, "Get a replay with its progress"),
        (f"{one}/items", list_items, "List what a replay runs once more"),
        (f"{one}/diff", compare, "Compare two dry replays"),
    )
    for path, handler, summary in reads:
        router.add_api_route(
            path,
            handler,
            methods=["GET"],
            tags=tags,
            summary=summary,
            openapi_extra=needs("executions:read"),
            responses=failures(401, 404, 409, 422),
        )
    turns: tuple[tuple[str, Callable[..., Any], str], ...] = (
        ("confirm", confirm_replay, "Confirm a forced replay"),
        ("pause", pause_replay, "Hold a replay"),
        ("resume", resume_replay, "Go on with a replay"),
        ("cancel", cancel_replay, "End a replay"),
    )
    for word, handler, summary in turns:
        router.add_api_route(
            f"{one}/{word}",
            handler,
            methods=["POST"],
            tags=tags,
            summary=summary,
            openapi_extra=needs("executions:write"),
            responses=failures(401, 403, 404, 409, 422),
        )
