"""The file store: contents that are too large for a record, in PostgreSQL, piece by piece.

A file is written in pieces of `PIECE_BYTES`, each in its own short transaction, and can be found
only once it is whole. It is kept for some days and belongs to one workspace and one mode. Why not
an object store: docs/decisions/0023-files-in-postgres.md.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.errors import TooLarge
from schemas.files import StoredFile, clean_name, clean_type
from schemas.settings import Settings
from wire.clock import mint
from wire.database import Pool, connection

PIECE_BYTES: Final = 256 * 1024
# What was begun and not ended within this time is dropped.
UNFINISHED_S: Final = 3_600
_SHOWN: Final = (
    "id, name, content_type, size, sha256, created_at, expires_at, execution_id, step_id"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose a file is, and which step made it.

    Attributes:
        execution_id, step_id: None where it was uploaded over the API.
    """

    workspace_id: str
    mode: str
    execution_id: str | None = None
    step_id: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a list shows it."""

    file: StoredFile
    created_at: datetime
    expires_at: datetime
    execution_id: str | None
    step_id: str | None


class FileStore:
    """Keeps files.

    Args:
        pool: Of the database.
        file_max: Bytes of one file.
        total_max: Bytes of all files of a workspace.
        days: How long one is kept.
    """

    def __init__(self, pool: Pool, file_max: int, total_max: int, days: int) -> None:
        self._pool = pool
        self._file_max = file_max
        self._total_max = total_max
        self._days = days

    async def find(self, workspace: str, mode: str, file_id: str) -> StoredFile | None:
        """Give what is known of a file; None: there is none, or no longer."""
        found = await self.get(workspace, mode, file_id)
        return found.file if found is not None else None

    async def get(self, workspace: str, mode: str, file_id: str) -> Listed | None:
        """Give a file with its times."""
        sql = (
            f"SELECT {_SHOWN} FROM files WHERE workspace_id = %s AND mode = %s AND id = %s"  # noqa: S608 - no input in it
            " AND sha256 IS NOT NULL AND expires_at > now()"
        )
        async with connection(self._pool) as on:
            cursor = await on.execute(sql, (workspace, mode, file_id))
            row = await cursor.fetchone()
        return _listed(row) if row is not None else None

    async def page(
        self, workspace: str, mode: str, before: tuple[datetime, str] | None, limit: int
    ) -> list[Listed]:
        """List files, newest first.

        Args:
            workspace: Whose.
            mode: Of which mode.
            before: Time and id of the last one of the page before.
            limit: The most to give.
        """
        moment, file_id = before or (None, None)
        sql = (
            f"SELECT {_SHOWN} FROM files WHERE workspace_id = %s AND mode = %s"  # noqa: S608 - no input in it
            " AND sha256 IS NOT NULL AND expires_at > now()"
            " AND (%s::timestamptz IS NULL OR (created_at, id) < (%s::timestamptz, %s::text))"
            " ORDER BY created_at DESC, id DESC LIMIT %s"
        )
        async with connection(self._pool) as on:
            cursor = await on.execute(sql, (workspace, mode, moment, moment, file_id, limit))
            return [_listed(row) for row in await cursor.fetchall()]

    async def read(self, workspace: str, mode: str, file_id: str) -> AsyncIterator[bytes]:
        """Give a file's content piece by piece; no connection is held in between."""
        sql = (
            "SELECT p.data FROM file_pieces p JOIN files f ON f.id = p.file_id"
            " WHERE f.workspace_id = %s AND f.mode = %s AND f.id = %s AND p.number = %s"
        )
        number = 0
        while True:
            async with connection(self._pool) as on:
                cursor = await on.execute(sql, (workspace, mode, file_id, number), binary=True)
                row = await cursor.fetchone()
            if row is None:
                return
            yield bytes(row[0])
            number += 1

    async def write(
        self, origin: Origin, name: str, content_type: str, pieces: AsyncIterator[bytes]
    ) -> StoredFile:
        """Keep a file; what was written of one that fails is dropped.

        Args:
            origin: Whose it is.
            name: As it was told; cleaned here.
            content_type: As it was told.
            pieces: Its content.

        Raises:
            TooLarge: `file_too_large`, or `files_full`: the workspace's room is used up.
            DependencyDown: The database is away.
        """
        name = clean_name(name)
        content_type = clean_type(content_type, name)
        file_id, room = mint("fil"), await self._room(origin.workspace_id)
        size, number, digest, held = 0, 0, hashlib.sha256(), bytearray()
        await self._begin(file_id, origin, name, content_type)
        try:
            async for piece in pieces:
                held += piece
                size += len(piece)
                digest.update(piece)
                self._check(size, room)
                while len(held) >= PIECE_BYTES:
                    await self._piece(file_id, number, bytes(held[:PIECE_BYTES]))
                    del held[:PIECE_BYTES]
                    number += 1
            if held:
                await self._piece(file_id, number, bytes(held))
        except BaseException:
            await self.delete(origin.workspace_id, origin.mode, file_id)
            raise
        stored = StoredFile(file_id, name, content_type, size, digest.hexdigest())
        async with connection(self._pool) as on:
            sql = "UPDATE files SET size = %s, sha256 = %s WHERE id = %s AND workspace_id = %s"
            await on.execute(sql, (size, stored.sha256, file_id, origin.workspace_id))
        return stored

    async def delete(self, workspace: str, mode: str, file_id: str) -> bool:
        """Drop a file with its content; says whether there was one."""
        sql = "DELETE FROM files WHERE workspace_id = %s AND mode = %s AND id = %s"
        async with connection(self._pool) as on:
            cursor = await on.execute(sql, (workspace, mode, file_id))
        return cursor.rowcount > 0

    async def _room(self, workspace: str) -> int:
        sql = "SELECT coalesce(sum(size), 0)::bigint FROM files WHERE workspace_id = %s"
        async with connection(self._pool) as on:
            cursor = await on.execute(sql, (workspace,))
            row = await cursor.fetchone()
        return self._total_max - (row[0] if row is not None else 0)

    def _check(self, size: int, room: int) -> None:
        if size > self._file_max:
            raise TooLarge(
                f"The file is larger than {self._file_max} bytes; its part was not kept.",
                code="file_too_large",
            )
        if size > room:
            raise TooLarge(
                f"The workspace's files would be more than {self._total_max} bytes: delete some, or"
                " wait until old ones are dropped.",
                code="files_full",
            )

    async def _begin(self, file_id: str, origin: Origin, name: str, content_type: str) -> None:
        sql = (
            "INSERT INTO files (id, workspace_id, mode, name, content_type, size, execution_id,"
            " step_id, expires_at) VALUES (%s, %s, %s, %s, %s, 0, %s, %s,"
            " now() + make_interval(days => %s))"
        )
        values: Sequence[Any] = (
            *(file_id, origin.workspace_id, origin.mode, name, content_type),
            *(origin.execution_id, origin.step_id, self._days),
        )
        async with connection(self._pool) as on:
            await on.execute(sql, values)

    async def _piece(self, file_id: str, number: int, data: bytes) -> None:
        sql = "INSERT INTO file_pieces (file_id, number, data) VALUES (%s, %s, %s)"
        async with connection(self._pool) as on:
            await on.execute(sql, (file_id, number, data))


def file_store(pool: Pool, settings: Settings) -> FileStore:
    """Build the store with the operator's bounds."""
    return FileStore(pool, settings.file_bytes_max, settings.files_bytes_max, settings.file_days)


async def forget_old(pool: Pool) -> int:
    """Drop files whose time is over, and those whose writing came to no end."""
    sql = (
        "DELETE FROM files WHERE expires_at <= now()"
        " OR (sha256 IS NULL AND created_at < now() - make_interval(secs => %s))"
    )
    async with connection(pool) as on:
        cursor = await on.execute(sql, (UNFINISHED_S,))
    return cursor.rowcount


def _listed(row: Sequence[Any]) -> Listed:
    return Listed(StoredFile(*row[:5]), *row[5:])
