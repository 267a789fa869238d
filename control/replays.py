"""Replays asked for, confirmed, paused and ended; `control.replay_job` carries them out.

    asked ─▶ awaiting_confirmation (force) ─▶ running ◀─▶ paused
                                                 └─▶ finished | failed;  cancelled from any of them

What is replayed is chosen once, when it is asked for: what happens later does not change it.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from control.core.replays import Kind
from control.store import replays as store
from control.store import workflows
from control.store.query import Borrowed, Row
from schemas.access import Caller
from schemas.errors import Conflict, Forbidden, InvalidInput, NotFound
from schemas.ids import is_id
from wire.clock import mint
from wire.database import Pool, connection

ITEMS_MAX: Final = 50_000  # of one replay: more are several ranges
CONFIRM_WITHIN: Final = timedelta(minutes=10)
RATE_DEFAULT: Final = 20
RATE_MAX: Final = 500
ENDED_STATUSES: Final = ("succeeded", "failed", "cancelled")
_OPEN: Final = ("awaiting_confirmation", "running", "paused")


@dataclass(frozen=True, slots=True)
class Asked:
    """A replay that somebody wants.

    Attributes:
        selection: execution_id, or workflow_id, statuses, since, until, offsets, unmatched.
        version: `pinned`, `current` or a number.
        input: JSON in place of the event's body.
    """

    kind: Kind
    selection: Mapping[str, Any]
    version: str = "pinned"
    from_step: str | None = None
    input: bytes | None = None
    rate_per_s: int = RATE_DEFAULT


async def ask(pool: Pool, caller: Caller, asked: Asked, at: datetime) -> tuple[Row, str | None]:
    """Choose what is to be replayed, and begin; a forced one waits for its confirmation.

    Returns:
        The replay, and the token that confirms it: it is shown this once.

    Raises:
        InvalidInput: What was asked for does not fit together, or is too much.
        NotFound: No such execution.
    """
    _check(asked)
    token = secrets.token_urlsafe(32) if asked.kind == "force" else None
    replay = mint("rpl")
    values = {
        "id": replay,
        "workspace": caller.workspace_id,
        "mode": caller.mode,
        "kind": asked.kind,
        "selection": dict(asked.selection),
        "version": asked.version,
        "from_step": asked.from_step,
        "input": asked.input,
        "rate_per_s": asked.rate_per_s,
        "status": "awaiting_confirmation" if token else "running",
        "confirmation": _digest(token) if token else None,
        "confirm_until": at + CONFIRM_WITHIN if token else None,
        "by": caller.person_id or caller.key_id,
    }
    async with connection(pool) as on:
        await _check_there(on, caller, asked)
        await store.insert(on, values)
        count = await store.fill(on, replay, _wanted(caller, asked.selection), ITEMS_MAX + 1)
        if count > ITEMS_MAX:
            raise InvalidInput(
                f"These are more than {ITEMS_MAX} executions; replay them in several ranges.",
                code="replay_too_large",
            )
        row = await _known(on, caller, replay)
    return row, token


async def confirm(pool: Pool, caller: Caller, replay: str, token: str, at: datetime) -> Row:
    """Begin a forced replay.

    Raises:
        Forbidden: `wrong_confirmation`; not this token, or it came too late.
        Conflict: It does not wait for a confirmation.
    """
    async with connection(pool) as on:
        row = await _known(on, caller, replay)
        if row["status"] != "awaiting_confirmation":
            raise _conflict(row, "confirmed")
        good = secrets.compare_digest(bytes(row["confirmation"] or b""), _digest(token))
        if not good or row["confirm_until"] < at:
            raise Forbidden(
                "This is not the confirmation of this replay, or its 10 minutes are over; ask for"
                " the replay again.",
                code="wrong_confirmation",
            )
        await store.set_status(on, replay, ["awaiting_confirmation"], "running")
        return await _known(on, caller, replay)


async def pause(pool: Pool, caller: Caller, replay: str) -> Row:
    """Hold a replay; what was sent goes on.

    Raises:
        Conflict: It does not run.
    """
    return await _turn(pool, caller, replay, ("running",), "paused")


async def resume(pool: Pool, caller: Caller, replay: str) -> Row:
    """Go on with a paused replay.

    Raises:
        Conflict: It is not paused.
    """
    return await _turn(pool, caller, replay, ("paused",), "running")


async def cancel(pool: Pool, caller: Caller, replay: str) -> Row:
    """End a replay; executions that it began go on (cancel those by themselves).

    Raises:
        Conflict: It has ended.
    """
    row = await _turn(pool, caller, replay, _OPEN, "cancelled")
    async with connection(pool) as on:
        await store.drop_pending(on, replay)
    return row


async def known(pool: Pool, caller: Caller, replay: str) -> Row:
    """Give a replay.

    Raises:
        NotFound: There is none that the caller can see.
    """
    async with connection(pool) as on:
        return await _known(on, caller, replay)


async def _turn(
    pool: Pool, caller: Caller, replay: str, before: tuple[str, ...], status: str
) -> Row:
    async with connection(pool) as on:
        row = await _known(on, caller, replay)
        if not await store.set_status(on, replay, before, status):
            raise _conflict(row, status)
        return await _known(on, caller, replay)


async def _known(on: Borrowed, caller: Caller, replay: str) -> Row:
    row = None
    if is_id("rpl", replay):  # anything else, a NUL for one, Postgres would not even take
        row = await store.get(on, caller.workspace_id, caller.mode, replay)
    if row is None:
        raise NotFound(
            f"There is no replay {replay[:64]!r} that this API key can see.",
            code="replay_not_found",
        )
    return row


def _check(asked: Asked) -> None:
    one = asked.selection.get("execution_id") is not None
    if not any(asked.selection.get(name) for name in ("execution_id", "since", "offsets")):
        raise _wrong("selection", "names no range; give execution_id, since or offsets")
    if one and len([name for name, value in asked.selection.items() if value]) > 1:
        raise _wrong("selection", "names an execution: leave the other fields out")
    if asked.input is not None and not one:
        raise _wrong("input", "can be edited for one execution only; give execution_id")
    if asked.from_step is not None and asked.kind == "repair":
        raise _wrong(
            "from_step", "is for force and dry: a repair calls what is missing, wherever it is"
        )
    if asked.version not in ("pinned", "current"):
        chosen = one or asked.selection.get("workflow_id")
        if not (asked.version.isascii() and asked.version.isdigit() and chosen):
            raise _wrong(
                "version", "is pinned, current, or a number where an execution or workflow is named"
            )
    if asked.selection.get("unmatched") and asked.version != "current":
        raise _wrong("selection.unmatched", "needs version current: they have none of their own")


async def _check_there(on: Borrowed, caller: Caller, asked: Asked) -> None:
    name = asked.selection.get("execution_id")
    found = None
    if name is not None:
        found = await store.original(on, caller.workspace_id, caller.mode, name)
        if found is None:
            raise NotFound(
                f"There is no execution {name[:64]!r} that this API key can see.",
                code="execution_not_found",
            )
    if asked.version.isdigit():
        workflow = found["workflow_id"] if found else asked.selection["workflow_id"]
        number = int(asked.version)
        if await workflows.version(on, caller.workspace_id, workflow, number) is None:
            raise NotFound(f"There is no version {number} of it.", code="version_not_found")


def _wanted(caller: Caller, selection: Mapping[str, Any]) -> dict[str, Any]:
    offsets = selection.get("offsets") or None
    return {
        "workspace": caller.workspace_id,
        "mode": caller.mode,
        "execution_id": selection.get("execution_id"),
        "workflow_id": selection.get("workflow_id"),
        "statuses": list(selection.get("statuses") or ENDED_STATUSES),
        "since": selection.get("since"),
        "until": selection.get("until"),
        "partitions": offsets and [part["partition"] for part in offsets],
        "firsts": offsets and [part["first"] for part in offsets],
        "ends": offsets and [part["end"] for part in offsets],
        "unmatched": bool(selection.get("unmatched")),
    }


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _wrong(place: str, what: str) -> InvalidInput:
    return InvalidInput(f"{place} {what}.", code="bad_replay")


def _conflict(row: Row, wanted: str) -> Conflict:
    return Conflict(
        f"The replay is {row['status'].replace('_', ' ')} and cannot be {wanted} now.",
        code="replay_status",
    )
