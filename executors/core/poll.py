"""Looks at a vendor's list for what is new since the last look; pure.

state ─▶ asked ─▶ the action's params ─▶ … output … ─▶ looked ─▶ new items, next state

The first look tells nothing: what is there then is old. Each look sees again what stands at the
edge of the one before, so that nothing is missed there, and leaves out what it knows by its id.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from schemas.errors import InvalidInput
from schemas.events import rfc3339_seconds
from schemas.expression import ABSENT, Template
from schemas.polling import PollSpec
from schemas.transforms import as_text

LOOK_BACK: Final = timedelta(minutes=10)
"""Where the first look begins, for vendors whose clock is not ours; what it finds is old."""


@dataclass(frozen=True, slots=True)
class State:
    """What a look leaves behind.

    Attributes:
        cursor: Where the next one begins; None: not known yet.
        seen: Ids of the items that the last one saw.
    """

    cursor: Any = None
    seen: frozenset[str] = frozenset()

    def written(self) -> dict[str, Any]:
        """Give it as JSON value."""
        return {"cursor": self.cursor, "seen": sorted(self.seen)}

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> "State":
        """Read what `written` gave."""
        return cls(value.get("cursor"), frozenset(value.get("seen") or ()))


@dataclass(frozen=True, slots=True)
class Item:
    """One new thing.

    Attributes:
        id: Tells it from others of the same look.
        value: As the vendor shows it.
    """

    id: str
    value: Any


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Attributes:
        items: The new ones, oldest first where the vendor says when.
        more: Whether there is more to be had at once.
    """

    items: Sequence[Item]
    state: State
    more: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the vendor.

    Attributes:
        starts: It only tells where to begin.
    """

    action: str
    params: Mapping[str, Any]
    starts: bool


def asked(
    poll: PollSpec, params: Mapping[str, Any], state: State | None, now: datetime
) -> Question:
    """Say what to ask.

    Raises:
        MissingPath: The file refers to what is not there.
    """
    roots: dict[str, Any] = {"params": params, "ago": rfc3339_seconds(now - LOOK_BACK)}
    if state is None and poll.start is not None:
        return Question(poll.start.action, poll.start.params.render(roots), starts=True)
    if poll.newest is not None and state is None:
        roots["cursor"] = roots["ago"]
    elif state is not None:
        roots["cursor"] = state.cursor
    return Question(poll.action, poll.params.render(roots), starts=False)


def started(poll: PollSpec, output: object) -> State:
    """Read where to begin.

    Raises:
        InvalidInput: `no_cursor`: the answer does not say.
    """
    assert poll.start is not None  # noqa: S101 - for the type checker
    found = poll.start.cursor.find({"output": output})
    if found is ABSENT or found in (None, ""):
        raise InvalidInput("The vendor's answer does not say where to begin.", code="no_cursor")
    return State(found)


def looked(poll: PollSpec, state: State | None, output: object, now: datetime) -> Look:
    """Read a look's answer.

    Raises:
        InvalidInput: `no_list`: the answer holds no list where the file says; `poll_stuck`: there
            is more than one look can hold at one place.
    """
    listed = poll.items.find({"output": output})
    if listed is ABSENT or listed is None:
        listed = []
    if not isinstance(listed, list):
        raise InvalidInput("The vendor's answer holds no list.", code="no_list")
    more = poll.more is not None and poll.more.holds({"output": output, "count": len(listed)})
    if poll.positions:
        return _by_position(state, listed, more=more)
    found = [_named(poll, roots) for roots in _roots(poll, listed)]
    before = State() if state is None else state
    fresh = [one for one in found if one[0].id not in before.seen]
    cursor = _cursor(poll, before, output, listed, now)
    if more and not fresh and cursor == before.cursor and state is not None:
        text = "More things have the same time than one look can hold; narrow the poll's params."
        raise InvalidInput(text, code="poll_stuck")
    if poll.newest is not None:
        fresh.sort(key=lambda one: one[1])
    # A poll that begins by a call of its own knows its place before the first look.
    old = state is None
    return Look(
        items=() if old else list({item.id: item for item, _ in fresh}.values()),
        state=State(cursor, frozenset(one[0].id for one in found)),
        more=more,
    )


def _by_position(state: State | None, listed: Sequence[Any], *, more: bool) -> Look:
    """Rows below those that were there; where rows were taken out, those below moved up."""
    first = len(listed) if state is None else int(state.cursor or 0)
    fresh = [Item(str(place), listed[place]) for place in range(first, len(listed))]
    return Look(fresh, State(len(listed)), more)


def _roots(poll: PollSpec, listed: Sequence[Any]) -> list[dict[str, Any]]:
    if poll.within is None:
        return [{"item": one, "outer": one} for one in listed]
    found = []
    for outer in listed:
        inside = poll.within.find({"item": outer})
        found += [
            {"item": one, "outer": outer} for one in (inside if isinstance(inside, list) else ())
        ]
    return found


def _named(poll: PollSpec, roots: Mapping[str, Any]) -> tuple[Item, Any]:
    value = roots["item"]
    named = ABSENT if poll.id is None else poll.id.find(roots)
    if named is ABSENT or named in (None, ""):
        content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        named = hashlib.sha256(content).hexdigest()[:32]
    when = _rank(None if poll.newest is None else _found(poll.newest, roots))
    return Item(as_text(named), value), when


def _cursor(
    poll: PollSpec, before: State, output: object, listed: Sequence[Any], now: datetime
) -> Any:  # noqa: ANN401 - JSON values
    if poll.newest is not None:
        stamps = [_found(poll.newest, {"item": one, "outer": one}) for one in listed]
        known = [stamp for stamp in (*stamps, before.cursor) if stamp is not None]
        if stamps and known:
            return max(known, key=_rank)
    if poll.cursor is not None:
        found = poll.cursor.find({"output": output, "cursor": before.cursor})
        return before.cursor if found is ABSENT or found is None else found
    if poll.newest is not None and before.cursor is None:
        return rfc3339_seconds(now - LOOK_BACK)
    return before.cursor


def _found(template: Template, roots: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON values
    found = template.find(roots)
    return None if found is ABSENT else found


def _rank(stamp: object) -> tuple[int, float, str]:
    """Order numbers as numbers, also where they are told as texts, and times as texts."""
    if isinstance(stamp, int | float):
        return (0, stamp, "")
    text = "" if stamp is None else as_text(stamp)
    return (0, int(text), "") if text.isdigit() else (1, 0, text)
