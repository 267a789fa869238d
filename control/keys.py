"""Tells who calls, from the API key in the `Authorization` header.

A key that was found is believed for `KNOWN_S`, so a revoked one is refused within that time in
every process, and at once in the one that revoked it; while the database is away, one that was
known stays good for `STALE_S`, so that events can still be sent. It costs a query a second for a
busy key.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from control.core.access import bearer_token, digest, looks_like_api_key
from control.core.roles import of_scopes
from control.store import keys
from schemas.access import Caller
from schemas.errors import DependencyDown, Unauthenticated
from schemas.ids import WorkspaceId
from wire.clock import now
from wire.database import Pool, connection

KNOWN_S: Final = 1.0
STALE_S: Final = 600.0
ENTRIES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    caller: Caller
    expires_at: datetime | None
    loaded_s: float
    good_until_s: float


class ApiKeys:
    """Answers out of memory where it can."""

    def __init__(self, pool: Pool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._monotonic = monotonic
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._loading: dict[bytes, asyncio.Task[_Entry | None]] = {}
        self._changes = 0

    async def authenticate(self, authorization: str | None) -> Caller:
        """Give the caller behind an `Authorization` header.

        Raises:
            Unauthenticated: `missing_api_key` or `unknown_api_key`.
            DependencyDown: The key is not in memory and the database is away.
        """
        token = bearer_token(authorization)
        if token is None:
            raise Unauthenticated(
                "Send your API key, or the access token of a log-in: `Authorization: Bearer …`.",
                code="missing_api_key",
            )
        entry = await self._entry(digest(token)) if looks_like_api_key(token) else None
        if entry is None or (entry.expires_at is not None and entry.expires_at <= now()):
            raise Unauthenticated(
                "This API key is not known; it may have been rotated or revoked.",
                code="unknown_api_key",
            )
        return entry.caller

    def forget(self) -> None:
        """Ask the database again for every key, since keys were changed here."""
        self._changes += 1  # what is being read right now may be from before the change
        self._entries.clear()
        self._loading.clear()

    async def _entry(self, key: bytes) -> _Entry | None:
        known = self._entries.get(key)
        moment, changes = self._monotonic(), self._changes
        if known is not None and moment < known.good_until_s:
            return known
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(key))
            task.add_done_callback(lambda done: self._loaded(key, done))
        try:
            found = await asyncio.shield(task)
        except DependencyDown:
            if known is None or moment - known.loaded_s > STALE_S:
                raise
            found = replace(known, good_until_s=moment + KNOWN_S)
        if changes == self._changes:
            self._remember(key, found)
        return found

    def _loaded(self, key: bytes, done: "asyncio.Task[_Entry | None]") -> None:
        if self._loading.get(key) is done:
            del self._loading[key]

    async def _load(self, key: bytes) -> _Entry | None:
        moment = self._monotonic()  # before the query: what changes after it counts as old
        async with connection(self._pool) as on:
            found = await keys.find(on, key)
        if found is None:
            return None
        caller = Caller(
            WorkspaceId(found["workspace_id"]),
            found["mode"],
            found["id"],
            of_scopes(found["scopes"], found["mode"]),
        )
        return _Entry(caller, found["expires_at"], moment, moment + KNOWN_S)

    def _remember(self, key: bytes, entry: _Entry | None) -> None:
        if entry is None:
            self._entries.pop(key, None)
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
