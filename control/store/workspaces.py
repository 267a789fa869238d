"""Rows of `workspaces`."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from control.store.query import Borrowed, Row, row, run

_COLUMNS = "id, name, email, plan, webhook_url, settings, created_at, updated_at"


async def insert(on: Borrowed, workspace: str, values: Mapping[str, Any]) -> None:
    """Add a workspace.

    Args:
        on: The transaction.
        workspace: Its id.
        values: name, email, plan, webhook_url and settings.
    """
    await run(
        on,
        "INSERT INTO workspaces (id, name, email, plan, webhook_url, settings)"
        " VALUES (%(id)s, %(name)s, %(email)s, %(plan)s, %(webhook_url)s, %(settings)s)",
        {**values, "id": workspace, "settings": Jsonb(values["settings"])},
    )


async def get(on: Borrowed, workspace: str, *, lock: bool = False) -> Row | None:
    """Give a workspace; `lock` makes others who want to change it wait."""
    sql = f"SELECT {_COLUMNS} FROM workspaces WHERE id = %s{' FOR UPDATE' if lock else ''}"  # noqa: S608
    return await row(on, sql, (workspace,))


async def update(on: Borrowed, workspace: str, values: Mapping[str, Any]) -> None:
    """Write name, email, webhook_url and settings."""
    await run(
        on,
        "UPDATE workspaces SET name = %(name)s, email = %(email)s, webhook_url = %(webhook_url)s,"
        " settings = %(settings)s, updated_at = now() WHERE id = %(id)s",
        {**values, "id": workspace, "settings": Jsonb(values["settings"])},
    )


async def webhook_secrets(on: Borrowed, workspace: str) -> list[dict[str, Any]]:
    """Give the sealed secrets, newest first, and keep others from changing them meanwhile."""
    sql = "SELECT webhook_secrets FROM workspaces WHERE id = %s FOR UPDATE"
    found = await row(on, sql, (workspace,))
    return list(found["webhook_secrets"]) if found else []


async def set_webhook_secrets(
    on: Borrowed, workspace: str, secrets: Sequence[Mapping[str, Any]]
) -> None:
    """Write the sealed secrets: `[{"ciphertext": base 64, "expires_at": null | RFC 3339}]`."""
    sql = "UPDATE workspaces SET webhook_secrets = %s, updated_at = now() WHERE id = %s"
    await run(on, sql, (Jsonb(list(secrets)), workspace))
