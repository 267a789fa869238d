"""Rows of `memberships` and `invitations`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from control.store.query import Borrowed, Row, row, rows, run

# For lists: strictly after the last one shown, newest first.
_AFTER = (
    " AND (%(us)s::bigint IS NULL OR ({table}.created_at, {table}.{id}) <"
    " ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond', %(after)s::text))"
    " ORDER BY {table}.created_at DESC, {table}.{id} DESC LIMIT %(limit)s"
)


async def add(on: Borrowed, workspace: str, person: str, role: str) -> bool:
    """Make a person a member; False where they are one already, whose role stays."""
    sql = (
        "INSERT INTO memberships (workspace_id, person_id, role) VALUES (%s, %s, %s)"
        " ON CONFLICT (workspace_id, person_id) DO NOTHING"
    )
    return await run(on, sql, (workspace, person, role)) == 1


async def lock(on: Borrowed, workspace: str) -> None:
    """Let no one else change the members of this workspace until the transaction ends."""
    await run(
        on, "SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))", (f"members/{workspace}",)
    )


async def role_of(on: Borrowed, workspace: str, person: str) -> str | None:
    """Give a member's role."""
    sql = "SELECT role FROM memberships WHERE workspace_id = %s AND person_id = %s"
    found = await row(on, sql, (workspace, person))
    return str(found["role"]) if found else None


async def owners(on: Borrowed, workspace: str) -> int:
    """Count the owners."""
    sql = "SELECT count(*) AS n FROM memberships WHERE workspace_id = %s AND role = 'owner'"
    found = await row(on, sql, (workspace,))
    return int(found["n"]) if found else 0


async def set_role(on: Borrowed, workspace: str, person: str, role: str) -> None:
    """Change a member's role."""
    sql = "UPDATE memberships SET role = %s WHERE workspace_id = %s AND person_id = %s"
    await run(on, sql, (role, workspace, person))


async def remove(on: Borrowed, workspace: str, person: str) -> None:
    """Take a member out."""
    sql = "DELETE FROM memberships WHERE workspace_id = %s AND person_id = %s"
    await run(on, sql, (workspace, person))


async def get(on: Borrowed, workspace: str, person: str) -> Row | None:
    """Give a member."""
    return await row(
        on,
        "SELECT m.person_id, p.email, p.name, m.role, m.created_at FROM memberships m"
        " JOIN people p ON p.id = m.person_id WHERE m.workspace_id = %s AND m.person_id = %s",
        (workspace, person),
    )


async def page(
    on: Borrowed, workspace: str, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List the members, newest first."""
    sql = (
        "SELECT m.person_id, p.email, p.name, m.role, m.created_at,"
        " (extract(epoch FROM m.created_at) * 1000000)::bigint AS sort_us FROM memberships m"
        " JOIN people p ON p.id = m.person_id WHERE m.workspace_id = %(workspace)s"
    )
    return await rows(
        on,
        sql + _AFTER.format(table="m", id="person_id"),
        _bounds(after, limit) | {"workspace": workspace},
    )


async def workspaces_of(
    on: Borrowed, person: str, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List the workspaces of a person, newest first."""
    sql = (
        "SELECT w.id AS workspace_id, w.name, m.role, w.created_at,"
        " (extract(epoch FROM w.created_at) * 1000000)::bigint AS sort_us FROM memberships m"
        " JOIN workspaces w ON w.id = m.workspace_id WHERE m.person_id = %(person)s"
    )
    return await rows(
        on, sql + _AFTER.format(table="w", id="id"), _bounds(after, limit) | {"person": person}
    )


async def invite(on: Borrowed, workspace: str, values: Mapping[str, Any]) -> None:
    """Add an invitation.

    Args:
        on: The transaction.
        workspace: Into which.
        values: id, email, role, digest, invited_by, expires_at.
    """
    await run(
        on,
        "INSERT INTO invitations (id, workspace_id, email, role, digest, invited_by, expires_at)"
        " VALUES (%(id)s, %(workspace)s, %(email)s, %(role)s, %(digest)s, %(invited_by)s,"
        " %(expires_at)s)",
        {**values, "workspace": workspace},
    )


async def open_invitations(on: Borrowed, workspace: str, now: datetime) -> int:
    """Count the invitations that can still be accepted."""
    found = await row(
        on,
        "SELECT count(*) AS n FROM invitations"
        " WHERE workspace_id = %s AND accepted_at IS NULL AND expires_at > %s",
        (workspace, now),
    )
    return int(found["n"]) if found else 0


async def find_invitation(on: Borrowed, digest: bytes) -> Row | None:
    """Find the invitation of a token, and keep others from accepting it meanwhile."""
    return await row(
        on,
        "SELECT id, workspace_id, email, role, expires_at, accepted_at FROM invitations"
        " WHERE digest = %s FOR UPDATE",
        (digest,),
    )


async def accept(on: Borrowed, invitation: str, now: datetime) -> None:
    """Note that an invitation was accepted."""
    await run(on, "UPDATE invitations SET accepted_at = %s WHERE id = %s", (now, invitation))


async def withdraw(on: Borrowed, workspace: str, invitation: str) -> bool:
    """Drop an invitation; False where there is none that could be accepted."""
    sql = "DELETE FROM invitations WHERE workspace_id = %s AND id = %s AND accepted_at IS NULL"
    return await run(on, sql, (workspace, invitation)) == 1


async def invitations_page(
    on: Borrowed, workspace: str, now: datetime, after: tuple[int, str] | None, limit: int
) -> list[Row]:
    """List the invitations that can still be accepted, newest first."""
    sql = (
        "SELECT i.id AS invitation_id, i.email, i.role, i.invited_by, i.created_at, i.expires_at,"
        " (extract(epoch FROM i.created_at) * 1000000)::bigint AS sort_us FROM invitations i"
        " WHERE i.workspace_id = %(workspace)s AND i.accepted_at IS NULL AND i.expires_at > %(now)s"
    )
    return await rows(
        on,
        sql + _AFTER.format(table="i", id="id"),
        _bounds(after, limit) | {"workspace": workspace, "now": now},
    )


async def forget_old(on: Borrowed) -> int:
    """Drop invitations that ended a day ago."""
    return await run(on, "DELETE FROM invitations WHERE expires_at < now() - interval '1 day'")


def _bounds(after: tuple[int, str] | None, limit: int) -> dict[str, Any]:
    micros, identity = after or (None, None)
    return {"us": micros, "after": identity, "limit": limit}
