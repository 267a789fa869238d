"""What all nouns of the API share: who calls, pages, places, texts."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from control.core.address import client_address, networks
from control.core.cursor import CURSOR_MAX, LIMIT_DEFAULT, LIMIT_MAX
from control.doors import Person
from control.ports import Ports
from schemas.access import Caller
from schemas.errors import InvalidInput, Problem

NAME_MAX: Final = 200
USER_ID_MAX: Final = 256


class Body(BaseModel):
    """A request body: what is not declared is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Place(BaseModel):
    """Where a record stands in Kafka."""

    topic: str = Field(examples=["nhood.events.v1"])
    partition: int
    offset: int


class ProblemItem(BaseModel):
    """One thing that is wrong."""

    place: str = Field(examples=["steps[2].config.channel"])
    message: str
    mend: str
    code: str


class ProblemAnswer(BaseModel):
    """RFC 9457 problem details; look at `code`, it is stable."""

    type: str = Field(examples=["urn:nhood:problem:invalid_input"])
    title: str
    status: int
    code: str
    detail: str
    instance: str = Field(examples=["urn:nhood:request:rq_01jd…"])
    problems: list[ProblemItem] | None = None


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    return text


Text = Annotated[str, AfterValidator(_no_nul)]

Name = Annotated[Text, StringConstraints(min_length=1, max_length=NAME_MAX)]
Email = Annotated[
    Text,
    StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254, strip_whitespace=True),
]

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="`nhood_sk_live_…` or `nhood_sk_test_…`: what a key makes belongs to its mode."
    " Or the access token of a log-in, with `Nhood-Mode: live` for live data.",
)


def ports_of(request: Request) -> Ports:
    """Give the ports that the router was built with."""
    ports: Ports = request.state.control
    return ports


PortsDep = Annotated[Ports, Depends(ports_of)]


async def caller_of(
    request: Request, ports: PortsDep, _shown: Annotated[object, Security(_bearer)]
) -> Caller:
    """Tell who calls, where they may do what the route declares.

    `_shown` only puts the padlock into the documentation.
    """
    return await ports.doors.caller(request.scope)


async def person_of(
    request: Request, ports: PortsDep, _shown: Annotated[object, Security(_bearer)]
) -> Person:
    """Tell who is logged in."""
    return await ports.doors.person(request.scope)


PersonDep = Annotated[Person, Depends(person_of)]


async def member_of(
    workspace_id: Annotated[str, Path(examples=["ws_01jd3k5m7n9p1q3r5s7t9v1w3x"], max_length=64)],
    caller: Annotated[Caller, Depends(caller_of)],
) -> Caller:
    """Tell who calls, and let them into their own workspace only."""
    caller.require(workspace_id)
    return caller


Member = Annotated[Caller, Depends(member_of)]


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX, description="Items a page.")] = LIMIT_DEFAULT
    cursor: Annotated[
        Text | None, Field(max_length=CURSOR_MAX, description="`next_cursor` of the page before.")
    ] = None


PageDep = Annotated[PageQuery, Query()]


class ProviderPageQuery(PageQuery):
    """Which page, of one provider's or of all."""

    provider: Annotated[Text, Field(max_length=64)] | None = None


ProviderPageDep = Annotated[ProviderPageQuery, Query()]


def address_of(request: Request, ports: Ports) -> str:
    """Tell where a request comes from, as far as it can be believed."""
    peer = request.client.host if request.client is not None else ""
    trusted = networks(ports.settings.trusted_proxies)
    return client_address(peer, request.headers.getlist("x-forwarded-for"), trusted)


def to_json(value: object, place: str) -> bytes:
    """Write a value of the body as JSON again.

    Raises:
        InvalidInput: A number in it has more than 64 bits.
    """
    try:
        return orjson.dumps(value)
    except TypeError as error:
        problem = Problem(
            place,
            "holds a whole number of more than 64 bits",
            "Send it as a text.",
            "number_too_large",
        )
        raise InvalidInput(f"{place} {problem.message}.", problems=[problem]) from error


def moment(time_us: int) -> datetime:
    """Turn microseconds since 1970 into a time."""
    seconds, micros = divmod(time_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route may answer with."""
    return {
        status: {"model": ProblemAnswer, "content": {"application/problem+json": {}}}
        for status in statuses
    }
