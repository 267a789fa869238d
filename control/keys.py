"""Tells who calls, from the API key in the `Authorization` header.

A key that was found is believed for `KNOWN_S`, so a revoked one dies within that time; while the
database is away, one that was known stays good for `STALE_S`, so that events can still be sent.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from control.core.access import bearer_token, digest, looks_like_api_key
from control.store.workspaces import find_key
from schemas.access import Caller
from schemas.errors import DependencyDown, Unauthenticated
from schemas.ids import WorkspaceId
from wire.clock import now
from wire.database import Pool, connection

KNOWN_S: Final = 5.0
STALE_S: Final = 600.0
ENTRIES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Entry:
    caller: Caller
    expires_at: datetime | None
    loaded_s: float
    good_until_s: float


class ApiKeys:
    """Answers out of memory where it can; `authenticate` is a `schemas.access.Authenticate`."""

    def __init__(self, pool: Pool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._monotonic = monotonic
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._loading: dict[bytes, asyncio.Task[_Entry | None]] = {}

    async def authenticate(self, authorization: str | None) -> Caller:
        """Give the caller behind an `Authorization` header.

        Raises:
            Unauthenticated: `missing_api_key` or `unknown_api_key`.
            DependencyDown: The key is not in memory and the database is away.
        """
        token = bearer_token(authorization)
        if token is None:
            raise Unauthenticated(
                "Send your API key: `Authorization: Bearer nhood_sk_…`.", code="missing_api_key"
            )
        entry = await self._entry(digest(token)) if looks_like_api_key(token) else None
        if entry is None or (entry.expires_at is not None and entry.expires_at <= now()):
            raise Unauthenticated(
                "This API key is not known; it may have been rotated.", code="unknown_api_key"
            )
        return entry.caller

    def forget(self) -> None:
        """Ask the database again for every key, since keys were changed here."""
        self._entries.clear()

    async def _entry(self, key: bytes) -> _Entry | None:
        known = self._entries.get(key)
        moment = self._monotonic()
        if known is not None and moment < known.good_until_s:
            return known
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(key))
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        try:
            return self._remember(key, await asyncio.shield(task))
        except DependencyDown:
            if known is None or moment - known.loaded_s > STALE_S:
                raise
            return self._remember(key, replace(known, good_until_s=moment + KNOWN_S))

    async def _load(self, key: bytes) -> _Entry | None:
        async with connection(self._pool) as on:
            found = await find_key(on, key)
        if found is None:
            return None
        caller = Caller(WorkspaceId(found["workspace_id"]), found["mode"], found["id"])
        moment = self._monotonic()
        return _Entry(caller, found["expires_at"], moment, moment + KNOWN_S)

    def _remember(self, key: bytes, entry: _Entry | None) -> _Entry | None:
        if entry is None:
            self._entries.pop(key, None)
            return None
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry
