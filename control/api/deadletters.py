"""Dead letters: records that nobody could handle; listed, shown, sent again.

A letter's record often cannot be read, so whether it is live or test data is not known: these
addresses take a live key. Letters that belong to no workspace are the operator's (`nhood dlq`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from control import deadletters
from control.api.shapes import Body, Member, PageQuery, Place, PortsDep, Text, failures
from control.core.cursor import read_cursor, write_cursor
from control.core.letters import read_name, shown_bytes
from control.ports import Ports
from control.store import letters
from schemas.access import Caller, needs
from schemas.errors import Forbidden, InvalidInput
from schemas.events import DeadLetter
from schemas.lineage import place_name
from wire.database import connection

# So many are sent within one request, at RATE a second: it answers within some seconds.
REDRIVE_MAX: Final = 500
REDRIVE_DEFAULT: Final = 100
_NAME_MAX: Final = 64
CLASSES: Final = "unreadable, unknown_schema, invalid, refused or exhausted"

Word = Annotated[Text, Field(max_length=_NAME_MAX)]
Outcome = Literal["would_send", "sent", "already_redriven", "gone", "refused", "replay"]


class LetterFilter(PageQuery):
    """Which letters."""

    class_: Word | None = Field(None, alias="class")
    code: Word | None = None
    stage: Word | None = None
    topic: Annotated[Text, Field(max_length=250)] | None = Field(None, description="Original one.")
    since: AwareDatetime | None = Field(None, description="Put aside at this time or later.")
    until: AwareDatetime | None = Field(None, description="Put aside before this time.")
    redriven: bool | None = Field(None, description="Only those that were, or were not, sent again")


class Redriven(BaseModel):
    """That a letter was sent again."""

    at: datetime
    by: str
    times: int
    place: Place | None = Field(description="Where it stands now; null: not known.")


class LetterItem(BaseModel):
    """A dead letter."""

    letter_id: str = Field(examples=["nhood.events.v1:0:12"])
    place: Place = Field(description="Where the record stood.")
    stage: str = Field(description="Who could not handle it.")
    class_: str = Field(alias="class", description=CLASSES)
    code: str
    reason: str
    attempts: int
    at: datetime
    redriven: Redriven | None


class LetterPage(BaseModel):
    """Dead letters, newest first."""

    items: list[LetterItem]
    next_cursor: str | None


class BytesShape(BaseModel):
    """Bytes: as text where they are text, else as base 64."""

    text: str | None
    base64: str | None


class LetterAnswer(LetterItem):
    """A dead letter with its record; null where the log has it no more."""

    key: BytesShape | None
    value: BytesShape | None
    headers: dict[str, BytesShape] | None


class RedriveBody(Body):
    """Which letters to send again; without `dry_run: false` it only tells which those are."""

    letter_ids: list[Annotated[Text, Field(max_length=300)]] | None = Field(
        None, max_length=REDRIVE_MAX, description="These; else by the filter."
    )
    class_: Word | None = Field(None, alias="class")
    code: Word | None = None
    stage: Word | None = None
    topic: Annotated[Text, Field(max_length=250)] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    dry_run: bool = True
    again: Annotated[bool, Field(description="Also those that were sent again before.")] = False
    limit: Annotated[int, Field(ge=1, le=REDRIVE_MAX)] = REDRIVE_DEFAULT
    rate_per_s: Annotated[int, Field(ge=1, le=deadletters.RATE_MAX)] = deadletters.RATE_DEFAULT


class RedriveItem(BaseModel):
    """What became of one letter."""

    letter_id: str
    outcome: Outcome
    reason: str = ""
    place: Place | None = None


class RedriveAnswer(BaseModel):
    """What was, or would be, sent again: oldest first."""

    dry_run: bool
    counts: dict[str, int]
    items: list[RedriveItem]
    remaining: int = Field(description="Letters of the filter beyond `limit`; call again.")


async def list_letters(
    caller: Member, ports: PortsDep, wanted: Annotated[LetterFilter, Query()]
) -> LetterPage:
    """List dead letters, newest first."""
    _live_only(caller)
    filters = _filters(wanted, exclude={"limit", "cursor"})
    scope = [caller.workspace_id, {k: str(v) for k, v in filters.items() if v is not None}]
    after = None
    if wanted.cursor:
        micros, name = read_cursor("dead-letters", scope, wanted.cursor)
        after = (micros, read_name(name))
    found = await deadletters.find(
        _ports(ports), caller.workspace_id, filters, after, wanted.limit + 1
    )
    shown = found[: wanted.limit]
    last = None
    if len(found) > wanted.limit:
        last = (shown[-1]["sort_us"], place_name(deadletters.place_of(shown[-1])))
    return LetterPage(
        items=[LetterItem.model_validate(item(row)) for row in shown],
        next_cursor=write_cursor("dead-letters", scope, last) if last else None,
    )


LetterId = Annotated[str, Path(max_length=300, examples=["nhood.events.v1:0:12"])]


async def get_letter(letter_id: LetterId, caller: Member, ports: PortsDep) -> LetterAnswer:
    """Show a dead letter with the record that it holds."""
    _live_only(caller)
    place = read_name(letter_id)
    row, letter = await deadletters.show(_ports(ports), caller.workspace_id, place)
    return LetterAnswer.model_validate(item(row) | content(letter))


async def redrive_letters(caller: Member, ports: PortsDep, body: RedriveBody) -> RedriveAnswer:
    """Send the records of dead letters again: as they were, to their topics, oldest first."""
    _live_only(caller)
    filters = _filters(body, exclude={"letter_ids", "dry_run", "again", "limit", "rate_per_s"})
    workspace = caller.workspace_id
    remaining = 0
    async with connection(ports.pool) as on:
        if body.letter_ids is not None:
            if any(value is not None for value in filters.values()):
                raise InvalidInput("Give letter_ids or a filter, not both.", code="bad_filter")
            places = [read_name(name) for name in dict.fromkeys(body.letter_ids)]
            named = [await letters.get(on, workspace, place) for place in places]
            rows = [row for row in named if row is not None]
            rows.sort(key=lambda row: (row["at"], row["topic"], row["partition"], row["offset"]))
        else:
            if not body.again:
                filters["redriven"] = False
            rows = await letters.oldest(on, workspace, filters, body.limit)
            remaining = max(0, await letters.count(on, workspace, filters) - len(rows))
    by = caller.person_id or caller.key_id
    how = deadletters.How(by, body.dry_run, body.again, body.rate_per_s)
    told = [sent async for sent in deadletters.redrive(_ports(ports), rows, how)]
    counts: dict[str, int] = {}
    for sent in told:
        counts[sent.outcome] = counts.get(sent.outcome, 0) + 1
    items = [
        RedriveItem.model_validate(
            {"letter_id": s.letter, "outcome": s.outcome, "reason": s.reason, "place": _place(s)}
        )
        for s in told
    ]
    return RedriveAnswer(dry_run=body.dry_run, counts=counts, items=items, remaining=remaining)


def _place(sent: deadletters.Sent) -> dict[str, Any] | None:
    if sent.place is None:
        return None
    at = sent.place
    return {"topic": at.topic, "partition": at.partition, "offset": at.offset}


def _live_only(caller: Caller) -> None:
    if caller.mode != "live":
        raise Forbidden(
            "Dead letters may hold live data: use a live key, or Nhood-Mode: live.",
            code="live_only",
        )


def _filters(wanted: BaseModel, exclude: set[str]) -> dict[str, Any]:
    return wanted.model_dump(by_alias=True, exclude=exclude)


def _ports(ports: Ports) -> deadletters.Ports:
    return deadletters.Ports(ports.pool, ports.publisher, ports.log)


def item(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tell a letter by its row."""
    place = {name: row[name] for name in ("topic", "partition", "offset")}
    again = None
    if row["redriven_at"] is not None:
        names = ("at", "by", "times", "place")
        again = {name: row[f"redriven_{name}"] for name in names}
    told = {name: row[name] for name in ("stage", "class", "code", "reason", "attempts", "at")}
    name = place_name(deadletters.place_of(dict(row)))
    return {"letter_id": name, "place": place, **told, "redriven": again}


def content(letter: DeadLetter | None) -> dict[str, Any]:
    """Tell the record that a letter holds."""
    if letter is None:
        return {"key": None, "value": None, "headers": None}
    headers = {name: shown_bytes(value) for name, value in letter.headers.items()}
    return {
        "key": shown_bytes(letter.key),
        "value": shown_bytes(letter.value),
        "headers": headers,
    }


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/dead-letters"
    tags: list[Any] = ["dead letters"]
    router.add_api_route(
        many,
        list_letters,
        methods=["GET"],
        tags=tags,
        summary="List dead letters",
        openapi_extra=needs("events:read"),
        responses=failures(401, 403, 404, 422),
    )
    router.add_api_route(
        f"{many}/redrive",
        redrive_letters,
        methods=["POST"],
        tags=tags,
        summary="Send dead letters again",
        openapi_extra=needs("events:write"),
        responses=failures(401, 403, 404, 422, 503),
    )
    router.add_api_route(
        f"{many}/{{letter_id}}",
        get_letter,
        methods=["GET"],
        tags=tags,
        summary="Get a dead letter with its record",
        openapi_extra=needs("events:read"),
        responses=failures(401, 403, 404, 422, 503),
    )
