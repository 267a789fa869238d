"""Which workspaces there are and what they sign with, kept in memory for a while.

    asked for            kept       why
    a workspace          10 s       a secret that was taken back stops being good by then
    an unknown one       5 s        a stranger's guesses do not become questions to the database
    while it is down     10 min     posts of known workspaces are still taken

A post whose signature does not fit asks once more before it is refused (`fresh`), so a new secret
is good at once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from ingest.core.signature import parse_secret
from schemas.errors import DependencyDown, NotFound, SecretUnavailable
from schemas.ids import is_id
from schemas.settings import Secret

KNOWN_US = 10_000_000
UNKNOWN_US = 5_000_000
STALE_US = 600_000_000
FRESH_US = 1_000_000  # a sender with a wrong secret asks the database once a second at most
RETRY_US = 1_000_000  # while the database is down
ENTRIES_MAX = 10_000

# Gives a workspace's live secrets; raises NotFound where there is no such workspace.
LoadSecrets = Callable[[str], Awaitable[Sequence[Secret]]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What was found, when, and until when it is not asked for again; keys None: no workspace."""

    keys: tuple[bytes, ...] | None
    loaded_us: int
    good_until_us: int


class Directory:
    """Answers for workspaces out of memory; asks `load` once however many wait for it."""

    def __init__(self, load: LoadSecrets, clock: Callable[[], int]) -> None:
        self._load = load
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading: dict[str, asyncio.Task[_Entry]] = {}

    async def keys(self, workspace: str, *, fresh: bool = False) -> tuple[bytes, ...]:
        """Give the keys that a post to this workspace may be signed with.

        Args:
            workspace: Its id, as a stranger wrote it.
            fresh: Ask again where what is known is older than a second.

        Raises:
            NotFound: There is no such workspace.
            DependencyDown: The database does not answer and nothing is known.
        """
        entry = self._entries.get(workspace)
        now = self._clock()
        if entry is None or now >= entry.good_until_us or (fresh and _is_aged(entry, now)):
            entry = await self._reload(workspace, entry)
        if entry.keys is None:
            raise NotFound(
                f"There is no workspace {workspace[:64]!r}; copy the webhook's address again.",
                code="workspace_not_found",
            )
        return entry.keys

    async def _reload(self, workspace: str, known: _Entry | None) -> _Entry:
        if not is_id("ws", workspace):
            return _Entry(None, 0, 0)
        task = self._loading.get(workspace)
        if task is None:
            task = asyncio.create_task(self._fetch(workspace))
            self._loading[workspace] = task
            task.add_done_callback(lambda _: self._loading.pop(workspace, None))
        try:
            entry = await asyncio.shield(task)
        except (DependencyDown, SecretUnavailable):
            now = self._clock()
            if known is None or known.keys is None or now - known.loaded_us > STALE_US:
                raise
            entry = replace(known, good_until_us=now + RETRY_US)
        self._remember(workspace, entry)
        return entry

    async def _fetch(self, workspace: str) -> _Entry:
        try:
            secrets = await self._load(workspace)
        except NotFound:
            now = self._clock()
            return _Entry(None, now, now + UNKNOWN_US)
        now = self._clock()
        keys = tuple(parse_secret(secret.reveal()) for secret in secrets)
        return _Entry(keys, now, now + KNOWN_US)

    def _remember(self, workspace: str, entry: _Entry) -> None:
        self._entries[workspace] = entry
        self._entries.move_to_end(workspace)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)


def _is_aged(entry: _Entry, now: int) -> bool:
    return now - entry.loaded_us >= FRESH_US
