"""Events: what became of each, and its content read back from the log."""

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from control.api.executions import APPEARS_WITHIN_S, WAIT_MAX_S, until
from control.api.shapes import Member, Place, PortsDep, failures
from control.ports import Ports
from control.store import executions
from control.store.query import Row
from schemas.access import Caller, needs
from schemas.errors import CorruptEvent, DependencyDown, NotFound
from schemas.incoming import ATTRIBUTE_MAX, read_event
from schemas.topics import EVENTS
from wire.bus import Stored
from wire.database import connection

_KAFKA_DOWN: Final = "kafka_down"
_US_PER_MS: Final = 1_000


class ExecutionOfEvent(BaseModel):
    """An execution that the event started; `pending` until its start is known here."""

    execution_id: str
    status: str


class PayloadShape(BaseModel):
    """The event as it stands on the log."""

    content_type: str
    data: Any = Field(description="The body: JSON as it is, text as text.")
    data_base64: str | None = Field(None, description="The body, where it is neither.")
    user_id: str | None = None
    source: str | None = None
    method: str | None = None
    query: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)


class EventAnswer(BaseModel):
    """What became of an event. Sent twice under one id, it stands on the log twice."""

    event_id: str
    event_type: str | None
    subject: str | None
    mode: str | None
    outcome: Literal["matched", "no_match", "duplicate", "rejected", "parked"]
    reason: str
    place: Place
    accepted_at: datetime
    decided_at: datetime
    executions: list[ExecutionOfEvent]
    repeats: list[Place] = Field(description="Where else it stands on the log.")
    payload: PayloadShape | None = None


EventId = Annotated[
    str,
    Path(min_length=1, max_length=ATTRIBUTE_MAX, examples=["ev_01jd3k5m7n9p1q3r5s7t9v1w3x"]),
]
Wait = Annotated[float, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for its outcome.")]
Include = Annotated[
    Literal["payload"] | None, Query(description="`payload`: read the content from the log too.")
]


async def get_event(
    event_id: EventId,
    caller: Member,
    ports: PortsDep,
    wait: Wait = APPEARS_WITHIN_S,
    include: Include = None,
) -> EventAnswer:
    """Tell what became of an event."""
    rows = await _look(event_id, caller, ports, wait)
    first = rows[0]
    named = list(dict.fromkeys(name for row in rows for name in row["executions"]))
    async with connection(ports.pool) as on:
        known = await executions.statuses(on, caller.workspace_id, named)
    payload = None
    if include is not None:
        payload = await _payload(first, caller, ports)
    return EventAnswer(
        **{name: first[name] for name in ("event_id", "event_type", "subject", "mode")},
        outcome=first["outcome"],
        reason=first["reason"],
        place=_place(first),
        accepted_at=first["event_time"],
        decided_at=first["at"],
        executions=[
            ExecutionOfEvent(execution_id=name, status=known.get(name, "pending")) for name in named
        ],
        repeats=[_place(row) for row in rows[1:]],
        payload=payload,
    )


async def _look(event_id: str, caller: Caller, ports: Ports, wait_s: float) -> list[Row]:
    async def find() -> list[Row] | None:
        async with connection(ports.pool) as on:
            found = await executions.outcomes(on, caller.workspace_id, caller.mode, event_id)
        return found or None

    rows = None if "\x00" in event_id else await until(ports, find, wait_s)
    if rows is None:
        raise NotFound(
            f"No event {event_id[:64]!r} has an outcome here. One that was accepted a moment ago"
            " gets it within about a second (ask with ?wait=5); else the id is unknown, or of"
            " the other mode.",
            code="event_not_found",
        )
    return rows


def _place(row: Mapping[str, Any]) -> Place:
    return Place(topic=EVENTS, partition=row["partition"], offset=row["offset"])


async def _payload(row: Mapping[str, Any], caller: Caller, ports: Ports) -> PayloadShape:
    """Read an event back from its place.

    Raises:
        NotFound: Retention has deleted it.
        DependencyDown: Kafka is away.
    """
    gone = NotFound(
        "The content is gone: the log keeps events for its retention only.", code="payload_gone"
    )
    try:
        found = await ports.log.read(EVENTS, row["partition"], row["offset"], 1)
    except DependencyDown as error:
        if error.code == _KAFKA_DOWN:
            raise
        raise gone from error
    if not found or found[0].place.offset != row["offset"]:
        raise gone
    return _shown(found[0], caller)


def _shown(record: Stored, caller: Caller) -> PayloadShape:
    try:
        envelope, event = read_event(
            record.value, record.headers, record.place, record.time_ms * _US_PER_MS
        )
    except CorruptEvent:
        data = base64.b64encode(record.value or b"").decode()
        kind = record.headers.get("content-type", b"").decode(errors="replace")
        return PayloadShape(content_type=kind, data=None, data_base64=data)
    if envelope.workspace != caller.workspace_id:
        raise NotFound("The event is another workspace's.", code="event_not_found")
    data, encoded = _content(event.data.data)
    return PayloadShape(
        content_type=event.data.content_type,
        data=data,
        data_base64=encoded,
        user_id=event.user,
        source=envelope.source,
        method=event.method,
        query=event.query,
        headers=dict(event.headers),
    )


def _content(data: bytes) -> tuple[Any, str | None]:
    """Give a body as JSON value or text, or else as base 64."""
    try:
        return orjson.loads(data), None
    except orjson.JSONDecodeError:
        pass
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    router.add_api_route(
        "/api/v1/workspaces/{workspace_id}/events/{event_id}",
        get_event,
        methods=["GET"],
        tags=["events in"],
        summary="Get an event's outcome",
        openapi_extra=needs("events:read"),
        responses=failures(401, 404, 422, 503),
    )
