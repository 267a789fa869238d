"""What is asked of vendors that do not tell: the `polls` section of a provider file, compiled.

    polls:
      ticket_updated:                      name of the event
        summary: …
        params: {…}                        JSON Schema of what the developer says
        example: {…}                       such params
        start: {action, with, cursor}      asked once, where the vendor names the place to begin
        action: list_tickets               one of the provider's own, that only reads
        with: {updated_since: "${cursor}"} its params
        items: "${output.items}"           the list in the step's output
        within: "${item.messagesAdded}"    a list inside each, whose things are the items
        id: "${item.id}"                   what tells one from another; else all that is in it
        newest: "${item.updated_at}"       where the next look begins: the greatest of the items,
        cursor: "${output.cursor}"         or what the vendor says (also where there is no item),
        positions: true                    or how many items there were: rows of a sheet
        more: "output.has_more"            holds while there is more to be had at once
        expired: [reset]                   codes of a vendor that knows the place no more
        every_seconds: 60                  at the most often

With none of `newest`, `cursor` and `positions`, items are new that the look before did not see.
Templates read `params`, `cursor`, `ago` (ten minutes before the first look, RFC 3339), `output`,
`item`, `outer` (the thing that `within` is in); `more` reads `output` and `count` of items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from schemas.errors import InvalidInput, NotFound
from schemas.expression import Condition, Template, Tree
from schemas.params import ParamsChecker
from schemas.provider import ProviderSpec, Unchanging, nearest

EVERY_S_MIN: Final = 60
"""A vendor's limits are for steps; a poll may take a call a minute of them."""

_PARTS: Final = frozenset({
    "summary", "notes", "params", "example", "start", "action", "with", "items", "within", "id",
    "newest", "cursor", "positions", "more", "expired", "every_seconds",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class StartSpec:
    """The call that tells where to begin.

    Attributes:
        params: Of the action.
        cursor: Read from its output.
    """

    action: str
    params: Tree
    cursor: Template


@dataclass(frozen=True, slots=True)
class PollSpec:
    """One event that is looked for.

    Attributes:
        schema: JSON Schema of what the developer says.
        checker: Of that.
        params: Of the action.
        expired: Codes of outcomes after which it begins anew; what lay between is missed.
        every_s: The shortest pause between two looks, in seconds.
    """

    event: str
    summary: str
    notes: tuple[str, ...]
    example: Mapping[str, Any]
    schema: Mapping[str, Any]
    checker: ParamsChecker
    start: StartSpec | None
    action: str
    params: Tree
    items: Template
    within: Template | None
    id: Template | None
    newest: Template | None
    cursor: Template | None
    positions: bool
    more: Condition | None
    expired: frozenset[str]
    every_s: int


def polls_of(spec: ProviderSpec) -> Mapping[str, PollSpec]:
    """Give the events of a provider that can be looked for, by name.

    Raises:
        InvalidInput: `bad_provider`; the file says what cannot be.
    """
    return _compiled(Unchanging(spec)) if spec.polls else {}


@lru_cache(maxsize=64)
def _compiled(one: Unchanging[ProviderSpec]) -> Mapping[str, PollSpec]:
    spec, found = one.value, {}
    for event, data in (spec.polls or {}).items():
        try:
            found[event] = _read(event, data)
            _check(spec, found[event])
        except (InvalidInput, NotFound, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"{spec.slug}/provider.yaml: polls.{event} cannot be used: {error}",
                code="bad_provider",
            ) from error
    return found


def poll_of(spec: ProviderSpec, event: str) -> PollSpec:
    """Give one.

    Raises:
        NotFound: `unknown_poll`, with the nearest name.
    """
    found = polls_of(spec)
    if event in found:
        return found[event]
    if not found:
        text = f"{spec.name} has nothing to be looked for; its webhooks tell."
    else:
        hint = nearest(event, found) or f"; it has: {', '.join(found)}"
        text = f"{spec.name} has no event {event[:64]!r} that is looked for{hint}"
    raise NotFound(text, code="unknown_poll")


def _read(event: str, data: Mapping[str, Any]) -> PollSpec:
    unknown = sorted(set(data) - _PARTS)
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is not known")
    start = data.get("start")
    schema = {"type": "object", "additionalProperties": False, **(data.get("params") or {})}
    return PollSpec(
        event=event,
        summary=data["summary"],
        notes=tuple(data.get("notes") or ()),
        example=data.get("example") or {},
        schema=schema,
        checker=ParamsChecker(schema),
        start=StartSpec(start["action"], Tree(start.get("with") or {}), Template(start["cursor"]))
        if start
        else None,
        action=data["action"],
        params=Tree(data.get("with") or {}),
        items=Template(data["items"]),
        within=_template(data, "within"),
        id=_template(data, "id"),
        newest=_template(data, "newest"),
        cursor=_template(data, "cursor"),
        positions=bool(data.get("positions", False)),
        more=Condition(data["more"]) if "more" in data else None,
        expired=frozenset(data.get("expired") or ()),
        every_s=max(EVERY_S_MIN, int(data.get("every_seconds", EVERY_S_MIN))),
    )


def _template(data: Mapping[str, Any], key: str) -> Template | None:
    return Template(data[key]) if key in data else None


def _check(spec: ProviderSpec, poll: PollSpec) -> None:
    for name in (poll.action, *([poll.start.action] if poll.start else ())):
        if not spec.action(name).read_only:
            raise ValueError(f"{name} does more than read")
    if poll.positions and (poll.newest or poll.cursor):
        raise ValueError("positions stands alone")
    for problem in poll.checker.check(poll.example, templated=False):
        raise ValueError(f"example: {problem.message}")
    if poll.event in ((spec.triggers or {}).get("events") or ()):
        raise ValueError("a webhook has the same name")
    known = (poll.schema.get("properties") or {}).keys()
    for path in (*poll.params.paths, *(poll.start.params.paths if poll.start else ())):
        if path.root == "params" and path.steps and path.steps[0] not in known:
            raise ValueError(f"{path.source} is not declared in params")
