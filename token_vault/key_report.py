"""What there is of keys: counts and ages, for the operator; nothing of the keys themselves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from schemas.errors import Conflict, InvalidInput
from token_vault.core.envelope import key_id_of
from token_vault.holders import ROOT_HOLDERS
from token_vault.key_file import FileKeyProvider
from token_vault.keys import Borrowed
from token_vault.root import KeyProvider
from wire.database import Pool, connection


@dataclass(frozen=True, slots=True)
class Ring:
    """Keys of one kind.

    Attributes:
        current: They seal.
        superseded: A newer one seals; they go on opening what they sealed.
        retired: Nothing uses them; destroyed an hour later.
        oldest: Of the current ones.
    """

    current: int
    superseded: int
    retired: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Run:
    """A rotation that goes on, or was broken off."""

    layer: str
    workspace_id: str | None
    started_at: datetime
    done: int


@dataclass(frozen=True, slots=True)
class Report:
    """All of it.

    Attributes:
        root: The root key that wraps now.
        roots: How much each root key wraps or seals; those that the provider still has, with 0.
        finished: When a layer of all workspaces was last rotated.
        running: Whether a process is at it now.
    """

    root: str
    roots: Mapping[str, int]
    workspace_keys: Ring
    user_keys: Ring
    unfinished: list[Run]
    finished: Mapping[str, datetime]
    running: bool

    def as_json(self) -> dict[str, Any]:
        """Give it as plain values; times in RFC 3339."""
        return dict(_plain(asdict(self)))


async def report(pool: Pool, root: KeyProvider) -> Report:
    """Look at everything.

    Raises:
        DependencyDown: The database or the root's keeper does not answer.
    """
    current = await root.current()
    async with connection(pool) as on:
        roots = await uses_of_roots(on)
        names = root.names() if isinstance(root, FileKeyProvider) else [current]
        return Report(
            root=current,
            roots=roots | {name: roots.get(name, 0) for name in names},
            workspace_keys=await _ring(on, "workspace"),
            user_keys=await _ring(on, "user"),
            unfinished=await _unfinished(on),
            finished=await _finished(on),
            running=await _running(on),
        )


async def uses_of_roots(on: Borrowed) -> dict[str, int]:
    """Count what each root key wraps and seals."""
    cursor = await on.execute(
        "SELECT wrapped_by, count(*) FROM vault_keys WHERE kind = 'workspace' GROUP BY wrapped_by"
    )
    found: dict[str, int] = {name: count for name, count in await cursor.fetchall()}  # noqa: C416
    for holder in ROOT_HOLDERS:
        query = sql.SQL("SELECT {column} FROM {table}").format(
            column=sql.Identifier(holder.column), table=sql.Identifier(holder.table)
        )
        for (sealed,) in await (await on.execute(query)).fetchall():
            name = key_id_of(bytes(sealed))
            found[name] = found.get(name, 0) + 1
    return found


async def drop_root(pool: Pool, root: KeyProvider, name: str) -> None:
    """Take an old root key out of the key file.

    Raises:
        InvalidInput: The provider is another one.
        NotFound: It is not in the file.
        Conflict: It is in force, or something is still wrapped by it.
    """
    if not isinstance(root, FileKeyProvider):
        raise InvalidInput(
            "Old root keys are taken away where they are kept: in Vault by min_decryption_version,"
            " in AWS by scheduling the key's deletion.",
            code="bad_option",
        )
    async with connection(pool) as on:
        count = (await uses_of_roots(on)).get(name, 0)
    if count:
        raise Conflict(
            f"{count} keys are wrapped by {name}; `nhood keys rotate --layer root` first.",
            code="root_in_use",
        )
    await root.drop(name)


async def _ring(on: Borrowed, kind: str) -> Ring:
    cursor = await on.execute(
        "SELECT count(*) FILTER (WHERE retired_at IS NULL AND place = 1),"
        " count(*) FILTER (WHERE retired_at IS NULL AND place > 1),"
        " count(*) FILTER (WHERE retired_at IS NOT NULL),"
        " min(created_at) FILTER (WHERE retired_at IS NULL AND place = 1)"
        " FROM (SELECT created_at, retired_at, row_number() OVER ("
        "PARTITION BY workspace_id, user_id, retired_at IS NULL ORDER BY created_at DESC, id DESC"
        ") AS place FROM vault_keys WHERE kind = %s) k",
        (kind,),
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate always gives a row
    return Ring(*row)


async def _unfinished(on: Borrowed) -> list[Run]:
    cursor = await on.execute(
        "SELECT layer, workspace_id, started_at, done FROM key_rotations"
        " WHERE finished_at IS NULL ORDER BY id"
    )
    return [Run(*row) for row in await cursor.fetchall()]


async def _finished(on: Borrowed) -> dict[str, datetime]:
    cursor = await on.execute(
        "SELECT layer, max(finished_at) FROM key_rotations"
        " WHERE finished_at IS NOT NULL AND workspace_id IS NULL GROUP BY layer"
    )
    return {layer: at for layer, at in await cursor.fetchall()}  # noqa: C416 - rows are no pairs


async def _running(on: Borrowed) -> bool:
    cursor = await on.execute(
        "SELECT NOT pg_try_advisory_xact_lock(hashtextextended('key_rotation', 0))"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
