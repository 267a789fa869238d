"""Members of a workspace, and invitations to become one.

There is no mail server here: an invitation's token is shown once to who invites, and they pass it
on. It is good for one address, once, for 7 days. Nobody can give, take or change more than they
hold themselves, and the last owner stays.
"""

import os
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from control.api.shapes import Body, Email, Member, PageDep, PersonDep, PortsDep, failures
from control.core.cursor import read_cursor, write_cursor
from control.core.roles import Role, of_role, require_grantable
from control.core.tokens import (
    INVITATION_S,
    TOKEN_BYTES,
    digest,
    looks_like_invitation,
    new_invitation_token,
    normal_email,
)
from control.store import members, people, workspaces
from control.store.query import Borrowed, Row
from schemas.access import Need, needs
from schemas.errors import Conflict, Forbidden, NotFound
from wire.database import connection

# Open ones of a workspace.
INVITATIONS_MAX: Final = 200
_TAGS: Final[list[Any]] = ["people"]
_Id = Annotated[str, Path(max_length=64)]


class InvitationBody(Body):
    """Who is to become what."""

    email: Email = Field(examples=["grace@acme.example"])
    role: Role = "developer"


class RoleBody(Body):
    """What a member is to be."""

    role: Role


class AcceptBody(Body):
    """The token that somebody passed on."""

    token: Annotated[str, Field(max_length=100)]


class MemberAnswer(BaseModel):
    """A member."""

    person_id: str
    email: str
    name: str
    role: Role
    created_at: datetime


class MemberPage(BaseModel):
    """Members, newest first."""

    items: list[MemberAnswer]
    next_cursor: str | None


class InvitationAnswer(BaseModel):
    """An invitation that can still be accepted."""

    invitation_id: str
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime


class InvitationPage(BaseModel):
    """Invitations, newest first."""

    items: list[InvitationAnswer]
    next_cursor: str | None


class NewInvitation(BaseModel):
    """An invitation; the token is shown this once, pass it on."""

    invitation_id: str
    token: str = Field(examples=["nhood_inv_…"])
    email: str
    role: Role
    expires_at: datetime


class WorkspaceItem(BaseModel):
    """A workspace that the person is a member of."""

    workspace_id: str
    name: str
    role: Role
    created_at: datetime


class WorkspacePage(BaseModel):
    """Workspaces, newest first."""

    items: list[WorkspaceItem]
    next_cursor: str | None


async def list_members(caller: Member, ports: PortsDep, page: PageDep) -> MemberPage:
    """List the members."""
    kind, filters = "members", caller.workspace_id
    after = read_cursor(kind, filters, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        found = await members.page(on, caller.workspace_id, after, page.limit + 1)
    shown = found[: page.limit]
    last = (shown[-1]["sort_us"], shown[-1]["person_id"]) if len(found) > page.limit else None
    return MemberPage(
        items=[MemberAnswer(**row) for row in shown],
        next_cursor=write_cursor(kind, filters, last) if last else None,
    )


async def change_role(
    person_id: _Id, body: RoleBody, caller: Member, ports: PortsDep
) -> MemberAnswer:
    """Give a member another role."""
    workspace = caller.workspace_id
    async with connection(ports.pool) as on:
        await members.lock(on, workspace)
        role = await _role(on, workspace, person_id)
        require_grantable(caller, of_role(role), f"the role {role}")
        require_grantable(caller, of_role(body.role), f"the role {body.role}")
        if body.role != "owner":
            await _keep_an_owner(on, workspace, role)
        await members.set_role(on, workspace, person_id, body.role)
        shown = await members.get(on, workspace, person_id)
    ports.sessions.forget()
    return MemberAnswer(**_there(shown))


async def remove_member(person_id: _Id, caller: Member, ports: PortsDep) -> None:
    """Take a member out of the workspace; API keys that they made go on working."""
    workspace = caller.workspace_id
    async with connection(ports.pool) as on:
        await members.lock(on, workspace)
        role = await _role(on, workspace, person_id)
        require_grantable(caller, of_role(role), f"the role {role}")
        await _keep_an_owner(on, workspace, role)
        await members.remove(on, workspace, person_id)
    ports.sessions.forget()


async def leave(caller: Member, ports: PortsDep) -> None:
    """Leave the workspace; everybody may, but the last owner."""
    if caller.person_id is None:
        raise Forbidden("An API key cannot leave; revoke it.", code="session_required")
    workspace = caller.workspace_id
    async with connection(ports.pool) as on:
        await members.lock(on, workspace)
        await _keep_an_owner(on, workspace, await _role(on, workspace, caller.person_id))
        await members.remove(on, workspace, caller.person_id)
    ports.sessions.forget()


async def invite(body: InvitationBody, caller: Member, ports: PortsDep) -> NewInvitation:
    """Invite somebody."""
    require_grantable(caller, of_role(body.role), f"the role {body.role}")
    workspace, now = caller.workspace_id, ports.sessions.clock()
    token = new_invitation_token(os.urandom(TOKEN_BYTES))
    values: dict[str, Any] = {
        "id": ports.mint("inv"),
        "email": normal_email(body.email),
        "role": body.role,
        "digest": digest(token.reveal()),
        "invited_by": caller.person_id or caller.key_id,
        "expires_at": now + timedelta(seconds=INVITATION_S),
    }
    async with connection(ports.pool) as on:
        await members.lock(on, workspace)
        if await members.open_invitations(on, workspace, now) >= INVITATIONS_MAX:
            raise Conflict(
                f"{INVITATIONS_MAX} invitations are open; withdraw one.",
                code="invitation_limit_reached",
            )
        await members.invite(on, workspace, values)
    return NewInvitation(
        invitation_id=values["id"],
        token=token.reveal(),
        email=values["email"],
        role=body.role,
        expires_at=values["expires_at"],
    )


async def list_invitations(caller: Member, ports: PortsDep, page: PageDep) -> InvitationPage:
    """List the invitations that can still be accepted."""
    kind, filters = "invitations", caller.workspace_id
    after = read_cursor(kind, filters, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        now = ports.sessions.clock()
        found = await members.invitations_page(on, caller.workspace_id, now, after, page.limit + 1)
    shown = found[: page.limit]
    last = (shown[-1]["sort_us"], shown[-1]["invitation_id"]) if len(found) > page.limit else None
    return InvitationPage(
        items=[InvitationAnswer(**row) for row in shown],
        next_cursor=write_cursor(kind, filters, last) if last else None,
    )


async def withdraw_invitation(invitation_id: _Id, caller: Member, ports: PortsDep) -> None:
    """Make an invitation good no more."""
    async with connection(ports.pool) as on:
        if not await members.withdraw(on, caller.workspace_id, invitation_id):
            raise NotFound("There is no open invitation with this id.", code="invitation_not_found")


async def accept_invitation(body: AcceptBody, person: PersonDep, ports: PortsDep) -> WorkspaceItem:
    """Become a member; with the address that was invited."""
    now = ports.sessions.clock()
    async with connection(ports.pool) as on:
        them = _there(await people.get(on, person.person_id))
        invitation = await invited(on, body.token, them["email"], now)
        await join(on, invitation, person.person_id, now)
        workspace = _there(await workspaces.get(on, invitation["workspace_id"]))
    ports.sessions.forget()
    return WorkspaceItem(
        workspace_id=workspace["id"],
        name=workspace["name"],
        role=invitation["role"],
        created_at=workspace["created_at"],
    )


async def list_workspaces(person: PersonDep, ports: PortsDep, page: PageDep) -> WorkspacePage:
    """List the workspaces of the person who is logged in."""
    kind, filters = "my_workspaces", person.person_id
    after = read_cursor(kind, filters, page.cursor) if page.cursor else None
    async with connection(ports.pool) as on:
        found = await members.workspaces_of(on, person.person_id, after, page.limit + 1)
    shown = found[: page.limit]
    last = (shown[-1]["sort_us"], shown[-1]["workspace_id"]) if len(found) > page.limit else None
    return WorkspacePage(
        items=[WorkspaceItem(**row) for row in shown],
        next_cursor=write_cursor(kind, filters, last) if last else None,
    )


async def invited(on: Borrowed, token: str, email: str, now: datetime) -> Row:
    """Give the invitation of a token, held for this transaction.

    Raises:
        NotFound: `invitation_not_found`; none, accepted, withdrawn or too old.
        Forbidden: `invitation_for_another`; for another address.
    """
    known = looks_like_invitation(token)
    found = await members.find_invitation(on, digest(token)) if known else None
    if found is None or found["accepted_at"] is not None or found["expires_at"] <= now:
        raise NotFound(
            "This invitation is not good, or no longer; ask for another one.",
            code="invitation_not_found",
        )
    if found["email"] != email:
        raise Forbidden("This invitation is for another address.", code="invitation_for_another")
    return found


async def join(on: Borrowed, invitation: Row, person: str, now: datetime) -> None:
    """Make a person the member that an invitation says.

    Raises:
        Conflict: `already_member`; their role stays.
    """
    if not await members.add(on, invitation["workspace_id"], person, invitation["role"]):
        raise Conflict(
            "You are a member of this workspace already; an owner or admin can change your role.",
            code="already_member",
        )
    await members.accept(on, invitation["id"], now)


async def _role(on: Borrowed, workspace: str, person: str) -> str:
    role = await members.role_of(on, workspace, person)
    if role is None:
        raise NotFound("There is no member with this id.", code="member_not_found")
    return role


async def _keep_an_owner(on: Borrowed, workspace: str, role: str) -> None:
    if role == "owner" and await members.owners(on, workspace) == 1:
        raise Conflict(
            "This is the last owner of the workspace; make somebody else an owner first.",
            code="last_owner",
        )


def _there(row: Row | None) -> Row:
    if row is None:
        raise NotFound("This person or workspace is gone.", code="not_found")
    return row


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    one = "/api/v1/workspaces/{workspace_id}"
    routes: tuple[tuple[str, Any, str, int, Need, str, tuple[int, ...]], ...] = (
        ("/api/v1/workspaces", list_workspaces, "GET", 200, "person", "List yours", (401, 422)),
        (f"{one}/members", list_members, "GET", 200, "members:read", "List members", (401, 404)),
        (
            f"{one}/members/{{person_id}}",
            change_role,
            "PATCH",
            200,
            "members:write",
            "Change a member's role",
            (401, 403, 404, 409, 422),
        ),
        (
            f"{one}/members/{{person_id}}",
            remove_member,
            "DELETE",
            204,
            "members:write",
            "Remove a member",
            (401, 403, 404, 409),
        ),
        (f"{one}/leave", leave, "POST", 204, "workspace:read", "Leave", (401, 403, 404, 409)),
        (
            f"{one}/invitations",
            invite,
            "POST",
            201,
            "members:write",
            "Invite somebody",
            (401, 403, 404, 409, 422),
        ),
        (
            f"{one}/invitations",
            list_invitations,
            "GET",
            200,
            "members:read",
            "List open invitations",
            (401, 404, 422),
        ),
        (
            f"{one}/invitations/{{invitation_id}}",
            withdraw_invitation,
            "DELETE",
            204,
            "members:write",
            "Withdraw an invitation",
            (401, 403, 404),
        ),
        (
            "/api/v1/invitations/accept",
            accept_invitation,
            "POST",
            200,
            "person",
            "Accept an invitation",
            (401, 403, 404, 409, 422),
        ),
    )
    for path, endpoint, method, status, need, summary, told in routes:
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
