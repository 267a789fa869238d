"""Polls: what is looked for at vendors that do not tell; made, listed, changed, deleted."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Path
from pydantic import BaseModel, Field, StringConstraints

from control.api.shapes import Body, Member, PortsDep, ProviderPageDep, Text, failures
from control.core.cursor import read_cursor, write_cursor
from control.ports import Ports
from control.store import polls as store
from control.store.query import Row
from schemas.access import Caller, needs
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.polling import EVERY_S_MIN, PollSpec, poll_of
from schemas.provider import ProviderSpec
from token_vault.store import require
from wire.database import connection

_TAGS: Final[list[Any]] = ["polls"]
POLLS_MAX: Final = 500
"""Per workspace; each takes a call a minute of its vendor's limits."""
PARAMS_BYTES_MAX: Final = 16_384
EVERY_S_MAX: Final = 86_400
_READ: Final = needs("integrations:read")
_WRITE: Final = needs("integrations:write")
_Id = Annotated[str, Path(max_length=64, examples=["poll_01jd3k5m7n9p1q3r5s7t9v1w3x"])]
_Label = Annotated[Text, StringConstraints(max_length=200)]
_Every = Annotated[int, Field(ge=EVERY_S_MIN, le=EVERY_S_MAX)]


class PollBody(Body):
    """A new poll."""

    provider: Text = Field(max_length=64, examples=["discord"])
    event: Text = Field(max_length=64, examples=["message_sent"])
    connection_id: Text = Field(max_length=64, description="With whose account to look.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="What to look at; what an event takes stands in its provider's page.",
        examples=[{"channel_id": "290926798999357250"}],
    )
    label: _Label = ""
    every_seconds: _Every | None = Field(None, description="null: as often as the provider allows.")


class PollChange(Body):
    """What is to be changed; null: as it was."""

    label: _Label | None = None
    every_seconds: _Every | None = None
    paused: bool | None = Field(None, description="One that goes on looks from where it stood.")


class PollAnswer(BaseModel):
    """A poll."""

    poll_id: str
    provider: str
    event: str
    mode: str
    connection_id: str
    label: str
    params: dict[str, Any]
    every_seconds: int
    state: Literal["starting", "active", "failing", "paused"] = Field(
        description="`starting`: it has not looked yet; what is there when it first does is old."
        " `failing`: the last look failed (`error`); it is tried again."
    )
    found: int = Field(description="Events that it found.")
    looked_at: datetime | None = Field(description="When a look last went well.")
    next_at: datetime | None
    failures: int = Field(description="Looks that failed one after the other.")
    error_code: str | None
    error: str | None
    missed_from: datetime | None = Field(
        description="The vendor no longer told what changed from here to `missed_to`: it keeps its"
        " changes for a while only."
    )
    missed_to: datetime | None
    created_at: datetime
    updated_at: datetime


class PollPage(BaseModel):
    """Polls."""

    items: list[PollAnswer]
    next_cursor: str | None


async def create_poll(body: PollBody, caller: Member, ports: PortsDep) -> PollAnswer:
    """Look for an event at a vendor that does not tell; the first look follows at once."""
    spec = ports.catalogue.get(body.provider)
    spec.require_open(caller.mode)
    poll = poll_of(spec, body.event)
    if len(orjson.dumps(body.params)) > PARAMS_BYTES_MAX:
        raise InvalidInput(f"params may have {PARAMS_BYTES_MAX} bytes.", code="too_long")
    problems = poll.checker.check(body.params, templated=False)
    if problems:
        text = "; ".join(problem.message for problem in problems)
        raise InvalidInput(f"{text}.", problems=problems, code="invalid_params")
    every = body.every_seconds or poll.every_s
    _require_pace(spec, poll, every)
    name = ports.mint("poll")
    async with connection(ports.pool) as on:
        workspace, mode = caller.workspace_id, caller.mode
        if await store.count(on, workspace) >= POLLS_MAX:
            text = f"A workspace has up to {POLLS_MAX} polls; delete one."
            raise Conflict(text, code="too_many_polls")
        await require(on, workspace, mode, body.provider, body.connection_id)
        values = {
            "id": name,
            "workspace": workspace,
            "mode": mode,
            "provider": body.provider,
            "event": body.event,
            "connection_id": body.connection_id,
            "label": body.label,
            "params": body.params,
            "every_s": every,
        }
        await store.insert(on, values)
    return await _shown(ports, caller, name)


async def list_polls(
    caller: Member,
    ports: PortsDep,
    page: ProviderPageDep,
) -> PollPage:
    """List the polls of the key's mode."""
    kind, filters = "polls", [caller.workspace_id, caller.mode, page.provider]
    after = read_cursor(kind, filters, page.cursor)[1] if page.cursor else ""
    async with connection(ports.pool) as on:
        found = await store.page(
            on, caller.workspace_id, caller.mode, page.provider, after, page.limit + 1
        )
    shown = found[: page.limit]
    more = write_cursor(kind, filters, (0, shown[-1]["id"])) if len(found) > page.limit else None
    return PollPage(items=[_answer(one) for one in shown], next_cursor=more)


async def get_poll(poll_id: _Id, caller: Member, ports: PortsDep) -> PollAnswer:
    """Show a poll: how it stands, what it found, why it failed."""
    return await _shown(ports, caller, poll_id)


async def change_poll(
    poll_id: _Id, body: PollChange, caller: Member, ports: PortsDep
) -> PollAnswer:
    """Pause a poll, let it go on, or change its label and pace."""
    now = await _shown(ports, caller, poll_id)
    if body.every_seconds is not None:
        spec = ports.catalogue.get(now.provider)
        _require_pace(spec, poll_of(spec, now.event), body.every_seconds)
    wish = {"label": body.label, "every_s": body.every_seconds, "paused": body.paused}
    async with connection(ports.pool) as on:
        await store.change(on, caller.workspace_id, caller.mode, poll_id, wish)
    return await _shown(ports, caller, poll_id)


async def look_now(poll_id: _Id, caller: Member, ports: PortsDep) -> PollAnswer:
    """Look now instead of when it is time."""
    found = await _shown(ports, caller, poll_id)
    async with connection(ports.pool) as on:
        if not await store.look(on, caller.workspace_id, caller.mode, poll_id):
            text = f"{found.poll_id} is paused; let it go on with PATCH and paused: false."
            raise Conflict(text, code="paused")
    return await _shown(ports, caller, poll_id)


async def delete_poll(poll_id: _Id, caller: Member, ports: PortsDep) -> None:
    """Delete a poll; nothing is looked for any more."""
    async with connection(ports.pool) as on:
        if not await store.delete(on, caller.workspace_id, caller.mode, poll_id):
            raise _not_found(poll_id)


def _require_pace(spec: ProviderSpec, poll: PollSpec, every_s: int) -> None:
    if every_s < poll.every_s:
        text = f"{spec.name} is looked at every {poll.every_s} s at the most for {poll.event}."
        raise InvalidInput(text, code="too_often")


async def _shown(ports: Ports, caller: Caller, poll_id: str) -> PollAnswer:
    async with connection(ports.pool) as on:
        found = await store.get(on, caller.workspace_id, caller.mode, poll_id)
    if found is None:
        raise _not_found(poll_id)
    return _answer(found)


def _not_found(poll_id: str) -> NotFound:
    return NotFound(f"There is no poll {poll_id!r}.", code="poll_not_found")


def _answer(row: Row) -> PollAnswer:
    if row["next_at"] is None:
        state = "paused"
    elif row["error_code"] is not None:
        state = "failing"
    else:
        state = "active" if row["begun"] else "starting"
    kept = {name: row[name] for name in PollAnswer.model_fields if name in row}
    kept |= {"poll_id": row["id"], "every_seconds": row["every_s"], "state": state}
    return PollAnswer(**kept)


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/polls"
    one = f"{many}/{{poll_id}}"
    for path, method, does, says, needed, status, fails in (
        (many, "POST", create_poll, "Look for events at a vendor", _WRITE, 201, (409, 422)),
        (many, "GET", list_polls, "List polls", _READ, 200, (422,)),
        (one, "GET", get_poll, "Get a poll", _READ, 200, ()),
        (one, "PATCH", change_poll, "Pause, resume or change a poll", _WRITE, 200, (422,)),
        (f"{one}/look", "POST", look_now, "Look now", _WRITE, 202, (409,)),
        (one, "DELETE", delete_poll, "Delete a poll", _WRITE, 204, ()),
    ):
        router.add_api_route(
            path,
            does,
            methods=[method],
            status_code=status,
            tags=_TAGS,
            summary=says,
            openapi_extra=needed,
            responses=failures(401, 403, 404, *fails),
        )
