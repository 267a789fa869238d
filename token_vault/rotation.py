"""Changes keys while everything runs: the root, the workspaces', the end customers'.

    begin ─▶ passes (`token_vault.reseal`) ─▶ wait `SETTLE_S` ─▶ passes again ─▶ retire ─▶ end
                                                                                    │
                                             an hour later, if nothing uses it: destroy

A rotation is a row of `key_rotations`. All keys that are older than its begin are old, so one that
was broken off at any point (Ctrl-C, kill -9) goes on where it was, and a pass over what is done
does nothing. The wait is for processes that go on sealing with the key that they take for the
newest (`keys.NEWEST_S`). Nothing depends on one rotation running at a time; an advisory lock only
keeps two from doing the same work.

Root keys are never destroyed here: backups of the database need them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import structlog
from psycopg import sql

from schemas.errors import Conflict, InvalidInput, NotFound
from token_vault.holders import OLD_CREDENTIALS, unused
from token_vault.keys import CACHE_S, NEWEST_S, Borrowed, KeyRing
from token_vault.reseal import Resealer, Tally
from token_vault.root import KeyProvider
from wire.database import Pool, connection

# From new keys to the last pass: nobody seals with the old ones any more, and what they sealed
# is stored.
SETTLE_S: Final = NEWEST_S + 20.0
# From a key's retirement to its end: longer than it stays in anybody's memory, and than any
# transaction that may still hold something sealed with it.
DESTROY_AFTER_S: Final = 60 * CACHE_S
# Under steady load a pass may always find something that was changed a moment before.
PASSES_MAX: Final = 5

Layer = Literal["root", "workspace", "user"]
LAYERS: Final[tuple[Layer, ...]] = ("root", "workspace", "user")
_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rotation is.

    Attributes:
        phase: `sealing`, `settling` (waiting, in seconds) or `checking`.
        total: As counted at the begin; others may add to it meanwhile.
    """

    layer: Layer
    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """How a layer's rotation ended.

    Attributes:
        continued: It was begun before and broken off.
        done: Sealed or wrapped anew, in all.
        failed: Could not be opened; their keys are kept.
        root: Of the root layer: the key that wraps now.
        changed: Of the root layer: whether it is another one than before.
    """

    layer: Layer
    continued: bool
    done: int
    failed: int
    root: str = ""
    changed: bool = True


@dataclass(slots=True)
class _Run:
    id: int
    layer: Layer
    workspace: str | None
    since: datetime
    target: str | None
    done: int
    continued: bool
    total: int = 0
    failed: int = 0
    changed: bool = True


class Rotation:
    """Rotates keys; open one a process."""

    def __init__(
        self,
        pool: Pool,
        keys: KeyRing,
        root: KeyProvider,
        *,
        settle_s: float = SETTLE_S,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._root = root
        self._settle_s = settle_s
        self._tell = tell

    async def rotate(
        self, layers: Sequence[Layer] = LAYERS, workspace: str | None = None
    ) -> list[Rotated]:
        """Rotate layers of keys, or go on with a rotation of them that was broken off.

        Args:
            layers: Which.
            workspace: Only this one's; the root has no workspace.

        Raises:
            InvalidInput: The root of one workspace is asked for.
            NotFound: No such workspace.
            Conflict: `rotation_under_way`: another process is at it.
            DependencyDown: The database or the root's keeper went away; say it again to go on.
        """
        if workspace is not None and "root" in layers:
            raise InvalidInput("The root key belongs to no single workspace.", code="bad_option")
        async with self._alone():
            await self._check(workspace)
            runs = [await self._begin(layer, workspace) for layer in LAYERS if layer in layers]
            for run in runs:
                await self._passes(run, "sealing")
            if any(run.layer != "root" or run.changed for run in runs):
                await self._settle(runs[-1].layer)
            for run in runs:
                await self._passes(run, "checking")
            await retire(self._pool, self._settle_s)
            for run in runs:
                await self._end(run)
        return [
            Rotated(run.layer, run.continued, run.done, run.failed, run.target or "", run.changed)
            for run in runs
        ]

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold a lock that ends with this process, however it ends."""
        async with connection(self._pool) as on:
            await on.set_autocommit(True)
            try:
                cursor = await on.execute(
                    "SELECT pg_try_advisory_lock(hashtextextended('key_rotation', 0))"
                )
                row = await cursor.fetchone()
                if row is None or not row[0]:
                    raise Conflict(
                        "Another process is rotating keys; `nhood keys status` shows how far it"
                        " is.",
                        code="rotation_under_way",
                    )
                yield
            finally:
                if not on.closed:
                    await on.execute("SELECT pg_advisory_unlock_all()")
                    await on.set_autocommit(False)

    async def _check(self, workspace: str | None) -> None:
        if workspace is None:
            return
        async with connection(self._pool) as on:
            cursor = await on.execute("SELECT FROM workspaces WHERE id = %s", (workspace,))
            if await cursor.fetchone() is None:
                raise NotFound(
                    f"There is no workspace {workspace[:64]!r}.", code="workspace_not_found"
                )

    async def _begin(self, layer: Layer, workspace: str | None) -> _Run:
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "SELECT id, started_at, target, done FROM key_rotations WHERE layer = %s"
                " AND workspace_id IS NOT DISTINCT FROM %s AND finished_at IS NULL"
                " ORDER BY id LIMIT 1",
                (layer, workspace),
            )
            row = await cursor.fetchone()
            continued = row is not None
            if row is None:
                cursor = await on.execute(
                    "INSERT INTO key_rotations (layer, workspace_id, started_at)"
                    " VALUES (%s, %s, clock_timestamp()) RETURNING id, started_at, target, done",
                    (layer, workspace),
                )
                row = await cursor.fetchone()
            assert row is not None  # noqa: S101 - RETURNING always gives a row here
        run = _Run(row[0], layer, workspace, row[1], row[2], row[3], continued)
        if layer == "root":
            await self._choose_root(run)
        run.total = run.done + await self._old(run)
        _log.info("vault.rotation_begun", layer=layer, workspace=workspace, continued=continued)
        return run

    async def _choose_root(self, run: _Run) -> None:
        """Say which root key is to wrap everything: the one in force where it does not yet."""
        if run.target is not None:
            run.target = await self._root.current()
            return
        run.target = before = await self._root.current()
        if not await self._old(run):
            run.target = await self._root.renew() or await self._root.current()
            run.changed = run.target != before
        async with connection(self._pool) as on:
            await on.execute(
                "UPDATE key_rotations SET target = %s WHERE id = %s", (run.target, run.id)
            )

    async def _old(self, run: _Run) -> int:
        """Count what is to be sealed anew."""
        async with connection(self._pool) as on:
            if run.layer == "root":
                return await _count(
                    on,
                    "FROM vault_keys WHERE kind = 'workspace' AND wrapped_by <> %(target)s",
                    {"target": run.target},
                )
            total = 0
            for workspace in await self._workspaces(on, run):
                values = {"workspace": workspace, "since": run.since}
                if run.layer == "workspace":
                    total += await _count(on, _OLD_USER_KEYS, values)
                else:
                    total += await _count(on, _OLD_USERS, values)
                    total += await _count(on, OLD_CREDENTIALS, values)
            return total

    async def _workspaces(self, on: Borrowed, run: _Run) -> list[str]:
        if run.workspace is not None:
            return [run.workspace]
        cursor = await on.execute(
            "SELECT DISTINCT workspace_id FROM vault_keys ORDER BY workspace_id"
        )
        return [row[0] for row in await cursor.fetchall()]

    async def _passes(self, run: _Run, phase: str) -> None:
        """Go over a layer until a pass finds nothing that was changed under its hands."""

        async def counted(done: int) -> None:
            if not done:
                return
            run.done += done
            self._tell(Progress(run.layer, phase, run.done, max(run.total, run.done)))
            async with connection(self._pool) as on:
                await on.execute(
                    "UPDATE key_rotations SET done = %s WHERE id = %s", (run.done, run.id)
                )

        self._tell(Progress(run.layer, phase, run.done, run.total))
        resealer = Resealer(self._pool, self._keys, self._root, counted)
        for _ in range(PASSES_MAX):
            tally = await self._pass(resealer, run)
            run.failed = tally.failed
            if not tally.overtaken:
                break

    async def _pass(self, resealer: Resealer, run: _Run) -> Tally:
        if run.layer == "root":
            return await resealer.root_pass(run.target or "")
        async with connection(self._pool) as on:
            workspaces = await self._workspaces(on, run)
        total = Tally()
        for workspace in workspaces:
            if run.layer == "workspace":
                total += await resealer.workspace_pass(workspace, run.since)
            else:
                total += await resealer.user_pass(workspace, run.since)
        return total

    async def _settle(self, layer: Layer) -> None:
        waited, seconds = 0.0, self._settle_s
        while waited < seconds:
            self._tell(Progress(layer, "settling", int(waited), int(seconds)))
            step = min(1.0, seconds - waited)
            await asyncio.sleep(step)
            waited += step

    async def _end(self, run: _Run) -> None:
        async with connection(self._pool) as on:
            await on.execute(
                "UPDATE key_rotations SET finished_at = clock_timestamp(), failed = %s"
                " WHERE id = %s",
                (run.failed, run.id),
            )
        _log.info("vault.rotated", layer=run.layer, done=run.done, failed=run.failed)


_OLD_USER_KEYS: Final = (
    "FROM vault_keys u WHERE u.workspace_id = %(workspace)s AND u.kind = 'user'"
    " AND NOT EXISTS (SELECT FROM vault_keys k WHERE k.id = u.wrapped_by"
    " AND k.created_at >= %(since)s)"
)
_OLD_USERS: Final = (
    "FROM (SELECT user_id FROM vault_keys WHERE workspace_id = %(workspace)s AND kind = 'user'"
    " AND retired_at IS NULL GROUP BY user_id HAVING max(created_at) < %(since)s) old"
)


async def _count(on: Borrowed, what: str, values: dict[str, object]) -> int:
    cursor = await on.execute(f"SELECT count(*) {what}", values)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_SUPERSEDED: Final = (
    "k.retired_at IS NULL AND EXISTS (SELECT FROM vault_keys n WHERE"
    " n.workspace_id = k.workspace_id AND n.kind = k.kind AND n.user_id = k.user_id"
    " AND n.retired_at IS NULL AND (n.created_at, n.id) > (k.created_at, k.id)"
    " AND n.created_at < clock_timestamp() - make_interval(secs => %s))"
)


async def retire(pool: Pool, settle_s: float = SETTLE_S) -> int:
    """Retire keys that have a successor and that nothing uses any more; say how many."""
    query = sql.SQL("UPDATE vault_keys k SET retired_at = clock_timestamp() WHERE ") + (
        sql.SQL(_SUPERSEDED) + sql.SQL(" AND ") + unused()
    )
    async with connection(pool) as on:
        return (await on.execute(query, (settle_s,))).rowcount


async def destroy(pool: Pool, after_s: float = DESTROY_AFTER_S) -> int:
    """Destroy keys that were retired so long ago; one that is used after all is kept."""
    query = sql.SQL(
        "DELETE FROM vault_keys k WHERE k.retired_at < clock_timestamp()"
        " - make_interval(secs => %s) AND "
    )
    async with connection(pool) as on:
        return (await on.execute(query + unused(), (after_s,))).rowcount


async def tidy(pool: Pool) -> None:
    """Retire and destroy what is due; harmless at any time, from any number of processes."""
    retired, destroyed = await retire(pool), await destroy(pool)
    if retired or destroyed:
        _log.info("vault.keys_tidied", retired=retired, destroyed=destroyed)
