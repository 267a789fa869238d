"""Seals anew what an older key sealed, a page at a time, while everything else goes on.

Every change is a compare-and-swap on the sealed bytes themselves: they differ with each sealing, so
whatever somebody stored meanwhile (a refreshed token above all) stays, and is looked at again in
the next pass. Versions, leases and times of a connection are not touched: a refresh that is under
way commits as if nothing had happened.
"""

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from psycopg import sql
from psycopg.types.json import Jsonb

from schemas.errors import SecretUnavailable
from token_vault.core.envelope import NONCE_BYTES, Key, Place, key_id_of, open_sealed, seal
from token_vault.holders import HOLDERS, OLD_CREDENTIALS, ROOT_HOLDERS, Holder, RootHolder
from token_vault.keys import USER, WORKSPACE, Borrowed, KeyRing
from token_vault.root import KeyProvider
from wire.database import Pool, connection

# Rows per transaction: their locks last for some milliseconds.
PAGE: Final = 200
# Calls to the root's keeper at a time.
ROOT_CALLS: Final = 8
_log = structlog.get_logger("vault")

Counted = Callable[[int], Awaitable[None]]
_Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """What a pass did.

    Attributes:
        done: Sealed anew.
        failed: Does not open: destroyed on purpose, or damaged.
        overtaken: Changed by somebody else meanwhile; the next pass looks again.
    """

    done: int = 0
    failed: int = 0
    overtaken: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        """Add up."""
        return Tally(
            self.done + other.done,
            self.failed + other.failed,
            self.overtaken + other.overtaken,
        )


class Resealer:
    """One pass over a layer; a pass over what is done already does nothing."""

    def __init__(self, pool: Pool, keys: KeyRing, root: KeyProvider, counted: Counted) -> None:
        self._pool = pool
        self._keys = keys
        self._root = root
        self._counted = counted

    async def root_pass(self, target: str) -> Tally:
        """Wrap every workspace key, and what the platform itself keeps, with the root in force."""
        total = Tally()
        for holder in (None, *ROOT_HOLDERS):
            after = ""
            while page := await self._under_root(holder, target, after):
                after = page[-1][0]
                gate = asyncio.Semaphore(ROOT_CALLS)
                results = await asyncio.gather(*(self._rewrap(gate, holder, row) for row in page))
                tally = sum(results, Tally())
                await self._counted(tally.done)
                total += tally
        return total

    async def workspace_pass(self, workspace: str, since: datetime) -> Tally:
        """Give a workspace a new key, and wrap and seal with it what the older ones did."""
        key = await self._keys.renewed(workspace, WORKSPACE, "", since)
        if key is None:
            return Tally()
        total = await self._user_keys(workspace, key)
        total += await self._webhook_secrets(workspace, key)
        for holder in HOLDERS:
            total += await self._held(workspace, key, holder)
        return total

    async def user_pass(self, workspace: str, since: datetime) -> Tally:
        """Give each end customer of a workspace a new key, and seal their credentials with it."""
        after = ""
        while users := await self._rows(
            "SELECT user_id FROM vault_keys WHERE workspace_id = %s AND kind = 'user'"
            " AND retired_at IS NULL AND user_id > %s GROUP BY user_id"
            " HAVING max(created_at) < %s ORDER BY user_id LIMIT %s",
            (workspace, after, since, PAGE),
        ):
            for (user_id,) in users:
                await self._keys.renewed(workspace, USER, user_id, since)
            after = users[-1][0]
            await self._counted(len(users))
        return await self._credentials(workspace, since)

    async def _under_root(self, holder: RootHolder | None, target: str, after: str) -> list[_Row]:
        if holder is None:
            return await self._rows(
                "SELECT id, wrapped, workspace_id FROM vault_keys WHERE kind = 'workspace'"
                " AND wrapped_by <> %s AND id > %s ORDER BY id LIMIT %s",
                (target, after, PAGE),
            )
        # Few rows: which root sealed one stands in its bytes.
        query = sql.SQL("SELECT id, {column} FROM {table} WHERE id > %s ORDER BY id").format(
            column=sql.Identifier(holder.column), table=sql.Identifier(holder.table)
        )
        rows = await self._rows(query, (after,))
        return [row for row in rows if key_id_of(bytes(row[1])) != target]

    async def _rewrap(self, gate: asyncio.Semaphore, holder: RootHolder | None, row: _Row) -> Tally:
        id_, old = row[0], bytes(row[1])
        place = Place(row[2], id_, WORKSPACE) if holder is None else holder.place(id_)
        async with gate:
            try:
                material = await self._root.unwrap(old, place)
            except SecretUnavailable as error:
                return _lost(f"{holder.table if holder else 'vault_keys'} {id_}", error)
            new = await self._root.wrap(material, place)
            # What cannot be opened again must not take the place of what can.
            if await self._root.unwrap(new, place) != material:
                raise SecretUnavailable("The root key's keeper gives back another key.")
        if holder is None:
            query: sql.SQL | sql.Composed = sql.SQL(
                "UPDATE vault_keys SET wrapped = %s, wrapped_by = %s WHERE id = %s AND wrapped = %s"
            )
            changed = await self._swap(query, [(new, key_id_of(new), id_, old)])
        else:
            query = sql.SQL("UPDATE {table} SET {column} = %s WHERE id = %s AND {column} = %s")
            changed = await self._swap(
                query.format(
                    column=sql.Identifier(holder.column), table=sql.Identifier(holder.table)
                ),
                [(new, id_, old)],
            )
        return Tally(done=changed, overtaken=1 - changed)

    async def _user_keys(self, workspace: str, key: Key) -> Tally:
        total, after = Tally(), ""
        while page := await self._rows(
            "SELECT id, wrapped FROM vault_keys WHERE workspace_id = %s AND kind = 'user'"
            " AND wrapped_by <> %s AND id > %s ORDER BY id LIMIT %s",
            (workspace, key.id, after, PAGE),
        ):
            after = page[-1][0]
            changes, lost = [], 0
            for id_, wrapped in page:
                old, place = bytes(wrapped), Place(workspace, id_, USER)
                new = await self._again(workspace, old, place, key)
                lost += new is None
                if new is not None:
                    changes.append((new, key.id, workspace, id_, old))
            changed = await self._swap(
                sql.SQL(
                    "UPDATE vault_keys SET wrapped = %s, wrapped_by = %s"
                    " WHERE workspace_id = %s AND id = %s AND wrapped = %s"
                ),
                changes,
            )
            total += await self._tally(len(changes), changed, lost)
        return total

    async def _credentials(self, workspace: str, since: datetime) -> Tally:
        total, after = Tally(), ""
        while page := await self._rows(
            f"SELECT c.id, c.user_id, c.credential {OLD_CREDENTIALS} AND c.id > %(after)s"
            " ORDER BY c.id LIMIT %(limit)s",
            {"workspace": workspace, "since": since, "after": after, "limit": PAGE},
        ):
            after = page[-1][0]
            changes, lost = [], 0
            newest = await self._newest(workspace, {row[1] for row in page}, since)
            for id_, user_id, credential in page:
                old, place = bytes(credential), Place(workspace, id_, "credential")
                key = newest.get(user_id)
                new = None if key is None else await self._again(workspace, old, place, key)
                lost += new is None
                if new is not None:
                    changes.append((new, workspace, id_, old))
            changed = await self._swap(
                sql.SQL(
                    "UPDATE connections SET credential = %s"
                    " WHERE workspace_id = %s AND id = %s AND credential = %s"
                ),
                changes,
            )
            total += await self._tally(len(changes), changed, lost)
        return total

    async def _newest(self, workspace: str, users: set[str], since: datetime) -> dict[str, Key]:
        """Give the new keys of these end customers; one whose keys were destroyed has none."""
        rows = await self._rows(
            "SELECT DISTINCT ON (user_id) user_id, id FROM vault_keys WHERE workspace_id = %s"
            " AND kind = 'user' AND user_id = ANY(%s) AND retired_at IS NULL AND created_at >= %s"
            " ORDER BY user_id, created_at DESC, id DESC",
            (workspace, list(users), since),
        )
        return {user: await self._keys.by_id(workspace, id_) for user, id_ in rows}

    async def _held(self, workspace: str, key: Key, holder: Holder) -> Tally:
        """Go over one workspace's rows of a column; they are few, so in one piece."""
        ids = sql.SQL(", ").join(map(sql.Identifier, holder.ids))
        names = {
            "table": sql.Identifier(holder.table),
            "column": sql.Identifier(holder.column),
            "ids": ids,
            "same": sql.SQL(" AND ").join(
                sql.SQL("{} = %s").format(sql.Identifier(name)) for name in holder.ids
            ),
        }
        rows = await self._rows(
            sql.SQL(
                "SELECT {column}, {ids} FROM {table}"
                " WHERE workspace_id = %s AND {column} IS NOT NULL"
            ).format(**names),
            (workspace,),
        )
        changes, lost = [], 0
        for sealed, *values in rows:
            old = bytes(sealed)
            if key_id_of(old) == key.id:
                continue
            place = holder.place(workspace, dict(zip(holder.ids, values, strict=True)))
            new = await self._again(workspace, old, place, key)
            lost += new is None
            if new is not None:
                changes.append((new, workspace, *values, old))
        changed = await self._swap(
            sql.SQL(
                "UPDATE {table} SET {column} = %s"
                " WHERE workspace_id = %s AND {same} AND {column} = %s"
            ).format(**names),
            changes,
        )
        return await self._tally(len(changes), changed, lost)

    async def _webhook_secrets(self, workspace: str, key: Key) -> Tally:
        """Seal webhook secrets anew: a list in one column, changed under its row's lock."""
        place = Place(workspace, "-", "webhook_secret")
        done = lost = 0
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT webhook_secrets FROM workspaces WHERE id = %s FOR UPDATE", (workspace,)
            )
            row = await cursor.fetchone()
            items: list[dict[str, Any]] = list(row[0]) if row else []
            for item in items:
                old = base64.b64decode(item["ciphertext"])
                if key_id_of(old) == key.id:
                    continue
                new = await self._again(workspace, old, place, key, on)
                lost += new is None
                if new is not None:
                    item["ciphertext"] = base64.b64encode(new).decode()
                    done += 1
            if done:
                await on.execute(
                    "UPDATE workspaces SET webhook_secrets = %s WHERE id = %s",
                    (Jsonb(items), workspace),
                )
        return await self._tally(done, done, lost)

    async def _again(
        self, workspace: str, old: bytes, place: Place, key: Key, on: Borrowed | None = None
    ) -> bytes | None:
        """Open and seal anew; None where it does not open."""
        try:
            opener = await self._keys.by_id(workspace, key_id_of(old), on)
            plaintext = open_sealed(opener, old, place)
        except SecretUnavailable as error:
            _lost(f"{place.owner} {place.field}", error)
            return None
        return seal(key, plaintext, place, os.urandom(NONCE_BYTES))

    async def _rows(self, query: "str | sql.Composed", values: Any) -> list[_Row]:  # noqa: ANN401
        async with connection(self._pool) as on:
            cursor = await on.execute(query, values)
            return list(await cursor.fetchall())

    async def _swap(self, query: "sql.SQL | sql.Composed", changes: Sequence[_Row]) -> int:
        if not changes:
            return 0
        async with connection(self._pool) as on, on.cursor() as cursor:
            await cursor.executemany(query, changes)
            return cursor.rowcount

    async def _tally(self, wanted: int, changed: int, lost: int) -> Tally:
        await self._counted(changed)
        return Tally(changed, lost, wanted - changed)


def _lost(what: str, error: SecretUnavailable) -> Tally:
    _log.warning("vault.not_sealed_anew", what=what, code=error.code)
    return Tally(failed=1)
