"""Keys: the rings of wrapped keys under the root.

    root key            kept by a KeyProvider (`token_vault.root`), never in the database
      └─ workspace key  one a workspace, wrapped by the root
           └─ user key  one an end customer, wrapped by the workspace's; destroying it makes
                        everything sealed under it unreadable, wherever copies lie

Wrapped keys are rows of `vault_keys`. Unwrapped ones stay in memory for `CACHE_S`, so a destroyed
key is forgotten by every process within that time. Of several keys of one scope the newest seals,
and all open, until they are retired and destroyed (`token_vault.rotation`).
"""

import os
import time
from collections import OrderedDict
from datetime import datetime
from typing import Final

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from schemas.errors import SecretUnavailable
from token_vault.core.envelope import (
    KEY_BYTES,
    NONCE_BYTES,
    Key,
    Place,
    key_id_of,
    open_sealed,
    seal,
)
from token_vault.root import KeyProvider
from wire.clock import mint
from wire.database import Pool, connection

# How long an unwrapped key stays in memory, and how many of them.
CACHE_S: Final = 60.0
CACHED_KEYS_MAX: Final = 10_000
# How long a key is taken for the newest of its scope: so long after a rotation others may go on
# sealing with the one before.
NEWEST_S: Final = 10.0

WORKSPACE: Final = "workspace"
USER: Final = "user"
_log = structlog.get_logger("vault")

Borrowed = AsyncConnection[TupleRow]


class KeyRing:
    """Gives the keys of workspaces and end customers, making them when first needed."""

    def __init__(self, provider: KeyProvider, pool: Pool) -> None:
        self._provider = provider
        self._pool = pool
        self._kept: OrderedDict[tuple[str, str], tuple[float, Key]] = OrderedDict()
        self._newest: dict[tuple[str, str, str], tuple[float, str]] = {}

    async def workspace_key(self, workspace: str, on: Borrowed | None = None) -> Key:
        """Give the key that seals the workspace's own secrets.

        Args:
            workspace: It must be in the database (as seen by `on`).
            on: The caller's transaction, where the workspace was only just made in it.
        """
        return await self._current(workspace, WORKSPACE, "", on)

    async def user_key(self, workspace: str, user_id: str, on: Borrowed | None = None) -> Key:
        """Give the key that seals what belongs to one end customer."""
        return await self._current(workspace, USER, user_id, on)

    async def by_id(self, workspace: str, key_id: str, on: Borrowed | None = None) -> Key:
        """Give the key that a sealed secret names.

        Raises:
            SecretUnavailable: It was destroyed, or never was this workspace's.
        """
        kept = self._kept.get((workspace, key_id))
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        if on is not None:
            return await self._load(on, workspace, key_id)
        async with connection(self._pool) as borrowed:
            return await self._load(borrowed, workspace, key_id)

    async def destroy_user_key(self, workspace: str, user_id: str) -> int:
        """Destroy an end customer's keys: all that was sealed under them is lost for good.

        Returns:
            How many keys there were. Other processes forget them within `CACHE_S` seconds.
        """
        async with connection(self._pool) as borrowed:
            # Not while a rotation makes another one, which would outlive this.
            await _lock(borrowed, workspace, USER, user_id)
            cursor = await borrowed.execute(
                "DELETE FROM vault_keys WHERE workspace_id = %s AND kind = %s AND user_id = %s"
                " RETURNING id",
                (workspace, USER, user_id),
            )
            destroyed = [str(row[0]) for row in await cursor.fetchall()]
        for key_id in destroyed:
            self._kept.pop((workspace, key_id), None)
        self._newest.pop((workspace, USER, user_id), None)
        return len(destroyed)

    async def renewed(
        self, workspace: str, kind: str, user_id: str, before: datetime
    ) -> Key | None:
        """Give a key of this scope that was made since then; a new one where there is none.

        Args:
            workspace: Whose.
            kind: `WORKSPACE` or `USER`.
            user_id: Of the end customer; empty for a workspace's.
            before: By the database's clock. Keys that are older seal no more.

        Returns:
            None where the scope has no key (any more): one that was destroyed is not brought back.
        """
        async with connection(self._pool) as on:
            await _lock(on, workspace, kind, user_id)
            cursor = await on.execute(
                "SELECT id, created_at >= %s FROM vault_keys WHERE workspace_id = %s"
                " AND kind = %s AND user_id = %s AND retired_at IS NULL"
                " ORDER BY created_at DESC, id DESC LIMIT 1",
                (before, workspace, kind, user_id),
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            if row[1]:
                return await self.by_id(workspace, row[0], on)
            key, _ = await self._make(on, workspace, kind, user_id)
        self._keep(workspace, key)
        self._newest.pop((workspace, kind, user_id), None)
        return key

    async def _current(self, workspace: str, kind: str, user_id: str, on: Borrowed | None) -> Key:
        newest = self._newest.get((workspace, kind, user_id))
        if newest is not None and newest[0] > time.monotonic():
            return await self.by_id(workspace, newest[1], on)
        if on is not None:
            # The caller may still roll back: a key made here must not outlive that in memory.
            key, _ = await self._find_or_make(on, workspace, kind, user_id)
            return key
        async with connection(self._pool) as borrowed:
            key, wrapped_by = await self._find_or_make(borrowed, workspace, kind, user_id)
        self._keep(workspace, key)
        if len(self._newest) >= CACHED_KEYS_MAX:
            self._newest.clear()
        self._newest[workspace, kind, user_id] = (time.monotonic() + NEWEST_S, key.id)
        _log.debug("vault.key_ready", key=key.id, kind=kind, wrapped_by=wrapped_by)
        return key

    async def _find_or_make(
        self, on: Borrowed, workspace: str, kind: str, user_id: str
    ) -> tuple[Key, str]:
        found = await self._find(on, workspace, kind, user_id)
        if found is None:
            # Two processes that both find none take turns, and the second finds the first's.
            await _lock(on, workspace, kind, user_id)
            found = await self._find(on, workspace, kind, user_id)
        if found is not None:
            key_id, wrapped, wrapped_by = found
            return await self._unwrap(on, workspace, kind, key_id, wrapped), wrapped_by
        return await self._make(on, workspace, kind, user_id)

    async def _make(self, on: Borrowed, workspace: str, kind: str, user_id: str) -> tuple[Key, str]:
        key = Key(mint("key"), os.urandom(KEY_BYTES))
        place = Place(workspace, key.id, kind)
        if kind == WORKSPACE:
            wrapped = await self._provider.wrap(key.material, place)
        else:
            parent, _ = await self._find_or_make(on, workspace, WORKSPACE, "")
            wrapped = seal(parent, key.material, place, os.urandom(NONCE_BYTES))
        by = key_id_of(wrapped)
        # The clock, not the transaction's begin: a rotation tells new keys from old ones by it.
        await on.execute(
            "INSERT INTO vault_keys"
            " (id, workspace_id, kind, user_id, wrapped, wrapped_by, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp())",
            (key.id, workspace, kind, user_id, wrapped, by),
        )
        return key, by

    async def _find(
        self, on: Borrowed, workspace: str, kind: str, user_id: str
    ) -> tuple[str, bytes, str] | None:
        cursor = await on.execute(
            "SELECT id, wrapped, wrapped_by FROM vault_keys"
            " WHERE workspace_id = %s AND kind = %s AND user_id = %s AND retired_at IS NULL"
            " ORDER BY created_at DESC, id DESC LIMIT 1",
            (workspace, kind, user_id),
        )
        row = await cursor.fetchone()
        return (row[0], bytes(row[1]), row[2]) if row is not None else None

    async def _load(self, on: Borrowed, workspace: str, key_id: str) -> Key:
        cursor = await on.execute(
            "SELECT kind, wrapped FROM vault_keys WHERE workspace_id = %s AND id = %s",
            (workspace, key_id),
        )
        row = await cursor.fetchone()
        if row is None:
            raise SecretUnavailable(
                "The key of this secret was destroyed; what it sealed is gone for good.",
                code="key_destroyed",
                detail=f"{workspace} {key_id}",
            )
        return await self._unwrap(on, workspace, row[0], key_id, bytes(row[1]))

    async def _unwrap(
        self, on: Borrowed, workspace: str, kind: str, key_id: str, wrapped: bytes
    ) -> Key:
        place = Place(workspace, key_id, kind)
        if kind == WORKSPACE:
            material = await self._provider.unwrap(wrapped, place)
        else:
            parent = await self.by_id(workspace, key_id_of(wrapped), on)
            material = open_sealed(parent, wrapped, place)
        key = Key(key_id, material)
        self._keep(workspace, key)
        return key

    def _keep(self, workspace: str, key: Key) -> None:
        self._kept[workspace, key.id] = (time.monotonic() + CACHE_S, key)
        self._kept.move_to_end((workspace, key.id))
        if len(self._kept) > CACHED_KEYS_MAX:
            self._kept.popitem(last=False)


async def _lock(on: Borrowed, workspace: str, kind: str, user_id: str) -> None:
    """Let one transaction at a time make or destroy the keys of a scope."""
    await on.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
        (f"vault_keys/{workspace}/{kind}/{user_id}",),
    )
