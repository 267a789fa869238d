"""API keys: made, listed, rotated, revoked. A key is shown once; only its SHA-256 is kept.

Rotating leaves two keys active, the new one and, for its grace, the old one; never three. A revoked
key is refused at once by the process that revoked it and within a second by all others
(`control.keys.KNOWN_S`).
"""

import os
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, Field

from control.api.shapes import Body, Member, Name, PageDep, PortsDep, failures
from control.core.access import KEY_BYTES, Mode, new_api_key
from control.core.cursor import read_cursor, write_cursor
from control.core.roles import ALL, SCOPES_MAX, check_scopes, of_scopes, require_grantable
from control.ports import Ports
from control.store import keys, members
from control.store.query import Borrowed, Row
from schemas.access import Caller, Need, needs
from schemas.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem
from wire.database import connection

OVERLAP_DEFAULT_H: Final = 24
OVERLAP_MAX_H: Final = 7 * 24
# Active ones of a workspace; more than anybody can keep an eye on.
KEYS_MAX: Final = 100
_TAGS: Final[list[Any]] = ["API keys"]
_Id = Annotated[str, Path(max_length=64)]
_Scope = Annotated[str, Field(max_length=100)]


class KeyBody(Body):
    """A new key."""

    name: Name = Field(examples=["billing service"])
    mode: Mode
    scopes: Annotated[list[_Scope], Field(min_length=1, max_length=SCOPES_MAX)] = Field(
        default=[ALL], description="What it may do.", examples=[["events:write", "workflows:*"]]
    )
    expires_at: AwareDatetime | None = Field(None, description="null: never by itself.")


class RotateBody(Body):
    """How long the old key goes on working."""

    overlap_hours: Annotated[int, Field(ge=0, le=OVERLAP_MAX_H)] = OVERLAP_DEFAULT_H


class KeyAnswer(BaseModel):
    """A key that works, without itself."""

    key_id: str
    mode: Mode
    name: str
    prefix: str
    scopes: list[str]
    replaces: str | None = Field(description="The key that it took over from.")
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class KeyPage(BaseModel):
    """Keys that work, newest first."""

    items: list[KeyAnswer]
    next_cursor: str | None


class NewKeyAnswer(KeyAnswer):
    """The new key, shown this once."""

    api_key: str = Field(examples=["nhood_sk_live_…"])


async def create_key(body: KeyBody, caller: Member, ports: PortsDep) -> NewKeyAnswer:
    """Make a key with its own name and scopes."""
    scopes = check_scopes(body.scopes)
    require_grantable(caller, of_scopes(scopes, body.mode), "these scopes")
    require_mode(caller, body.mode)
    if body.expires_at is not None and body.expires_at <= ports.sessions.clock():
        problem = Problem("expires_at", "is over already", "Give a time to come.", "in_the_past")
        raise InvalidInput(f"expires_at {problem.message}.", problems=[problem])
    async with connection(ports.pool) as on:
        await keys.lock(on, caller.workspace_id)
        await check_room(on, caller.workspace_id)
        told = {"name": body.name, "scopes": scopes, "expires_at": body.expires_at}
        return await _make(on, caller, ports, body.mode, told)


async def list_keys(caller: Member, ports: PortsDep, page: PageDep) -> KeyPage:
    """List the keys that work."""
    kind, filters = "api_keys", caller.workspace_id
    after = read_cursor(kind, filters, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        found = await keys.page(on, caller.workspace_id, after, page.limit + 1)
    shown = found[: page.limit]
    last = (shown[-1]["sort_us"], shown[-1]["key_id"]) if len(found) > page.limit else None
    return KeyPage(
        items=[KeyAnswer(**row) for row in shown],
        next_cursor=write_cursor(kind, filters, last) if last else None,
    )


async def get_key(key_id: _Id, caller: Member, ports: PortsDep) -> KeyAnswer:
    """Show a key that works, without itself."""
    async with connection(ports.pool) as on:
        return KeyAnswer(**await _there(on, caller.workspace_id, key_id))


async def rotate_key(
    key_id: _Id, caller: Member, ports: PortsDep, body: RotateBody | None = None
) -> NewKeyAnswer:
    """Make the key that takes over: same name, scopes, mode and lifetime."""
    overlap = timedelta(hours=(body or RotateBody()).overlap_hours)
    workspace, now = caller.workspace_id, ports.sessions.clock()
    async with connection(ports.pool) as on:
        await keys.lock(on, workspace)
        old = await _there(on, workspace, key_id)
        require_grantable(caller, of_scopes(old["scopes"], old["mode"]), "this key")
        require_mode(caller, old["mode"])
        await _check_two(on, workspace, old)
        await keys.expire(on, workspace, key_id, now + overlap)
        lifetime = old["expires_at"] - old["created_at"] if old["expires_at"] else None
        told = {
            "name": old["name"],
            "scopes": old["scopes"],
            "expires_at": now + lifetime if lifetime else None,
            "replaces": key_id,
        }
        made = await _make(on, caller, ports, old["mode"], told)
    ports.keys.forget()
    return made


async def revoke_key(key_id: _Id, caller: Member, ports: PortsDep) -> None:
    """End a key now."""
    workspace = caller.workspace_id
    async with connection(ports.pool) as on:
        await keys.lock(on, workspace)
        old = await _there(on, workspace, key_id)
        is_way_in = old["mode"] == "live" and old["scopes"] == [ALL]
        if (
            is_way_in
            and await keys.other_full_keys(on, workspace, key_id) == 0
            and await members.owners(on, workspace) == 0
        ):
            raise Conflict(
                "This is the last unrestricted key of a workspace that has no owner: nobody could"
                " get in any more. Rotate it, or invite an owner first.",
                code="last_key",
            )
        await keys.revoke(on, workspace, key_id)
    ports.keys.forget()


def require_mode(caller: Caller, mode: str) -> None:
    """Keep test keys from live ones: they lie in places that must not reach live data.

    Raises:
        Forbidden: `beyond_own_mode`.
    """
    if caller.person_id is None and caller.mode == "test" and mode == "live":
        raise Forbidden("A test key cannot make live keys.", code="beyond_own_mode")


async def check_room(on: Borrowed, workspace: str) -> None:
    """Refuse one key more where there are too many.

    Raises:
        Conflict: `key_limit_reached`.
    """
    if await keys.count(on, workspace) >= KEYS_MAX:
        raise Conflict(f"This workspace has {KEYS_MAX} keys; revoke one.", code="key_limit_reached")


async def _check_two(on: Borrowed, workspace: str, old: Row) -> None:
    """Refuse a rotation while another one of the same key is in its grace."""
    newer = await keys.successor(on, workspace, old["key_id"])
    if newer is not None:
        raise Conflict(
            f"This key was rotated: {newer['key_id']} took over. Rotate that one.",
            code="already_rotated",
        )
    older = await keys.get(on, workspace, old["replaces"]) if old["replaces"] else None
    if older is not None:
        raise Conflict(
            f"The key before it, {older['key_id']}, still works until {older['expires_at']}: two"
            " are active already. Revoke that one first.",
            code="rotation_under_way",
        )


async def _make(
    on: Borrowed, caller: Caller, ports: Ports, mode: Mode, told: dict[str, Any]
) -> NewKeyAnswer:
    key, key_id = new_api_key(mode, os.urandom(KEY_BYTES)), ports.mint("key")
    by = caller.person_id or caller.key_id
    await keys.insert(on, caller.workspace_id, key_id, key, created_by=by, **told)
    shown = await _there(on, caller.workspace_id, key_id)
    return NewKeyAnswer(**shown, api_key=key.text.reveal())


async def _there(on: Borrowed, workspace: str, key_id: str) -> Row:
    found = await keys.get(on, workspace, key_id)
    if found is None:
        raise NotFound("There is no key with this id that works.", code="key_not_found")
    return found


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/api-keys"
    one = f"{many}/{{key_id}}"
    read: Need = "keys:read"
    write: Need = "keys:write"
    for path, endpoint, method, status, need, summary, told in (
        (many, create_key, "POST", 201, write, "Make a key", (401, 403, 404, 409, 422)),
        (many, list_keys, "GET", 200, read, "List keys", (401, 403, 404, 422)),
        (one, get_key, "GET", 200, read, "Get a key", (401, 403, 404)),
        (f"{one}/rotate", rotate_key, "POST", 201, write, "Rotate a key", (401, 403, 404, 409)),
        (one, revoke_key, "DELETE", 204, write, "Revoke a key", (401, 403, 404, 409)),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            tags=_TAGS,
            summary=summary,
            openapi_extra=needs(need),
            responses=failures(*told),
        )
