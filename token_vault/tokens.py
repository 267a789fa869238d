"""Gives executors the credential of a connection, fresh enough to be used.

    resolve     which connection is meant, and its credential; out of memory for `CACHE_S`
    refreshed   after a 401: a credential newer than the one that was refused
    accepted    the vendor took this one

A refresh happens once: in this process all wait for the same task, between processes a lease on the
row and a compare-and-swap on its version let one ask the vendor, the others read what it stored
(`token_vault.refresher`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import httpx
import structlog

from schemas.errors import Conflict, DependencyDown, NeighbourhoodError, NotFound
from schemas.provider import Catalogue
from schemas.settings import Secret, Settings
from token_vault.apps import Apps
from token_vault.core.grants import Held, due_at
from token_vault.core.headers import Proof, proof_of, roots_of
from token_vault.refresher import Refresher, needs_reauth
from token_vault.sealing import Sealer
from token_vault.store import Connection, ConnectionStore

# How long a credential is given out without asking the database: a deleted connection or one that
# another process changed is noticed by then. Without a user the answer may become ambiguous.
CACHE_S: Final = 30.0
CACHE_WITHOUT_USER_S: Final = 5.0
CACHED_MAX: Final = 10_000

_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a call to a vendor needs of a connection.

    Attributes:
        proof: What shows the vendor who calls: a header or a signature.
        variables: Of the account, for URLs: subdomain, instance_url, cloudid.
        version: Of the credential; a refresh gives a higher one.
        proven: Whether the vendor was seen to take it, or nothing hangs on that.
    """

    workspace_id: str
    connection_id: str
    provider: str
    mode: str
    proof: Proof
    variables: Mapping[str, str]
    version: int
    due_at: datetime | None = field(default=None, compare=False)
    proven: bool = field(default=True, compare=False)

    @property
    def header_value(self) -> Secret:
        """The value of the header that carries the token; empty where requests are signed."""
        return self.proof.value


_Key = tuple[str, str, str, str | None, str | None]


class TokenSource:
    """The vault as executors see it; one a process."""

    def __init__(  # noqa: PLR0913 - the composition root hands everything over
        self,
        settings: Settings,
        catalogue: Catalogue,
        store: ConnectionStore,
        sealer: Sealer,
        client: httpx.AsyncClient,
        apps: Apps,
        clock: Callable[[], datetime],
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self.refresher = Refresher(settings, catalogue, store, sealer, client, apps, clock)
        self._cached: OrderedDict[_Key, tuple[float, Credential]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[Credential]] = {}
        self._refreshing: dict[str, asyncio.Task[Credential]] = {}
        self._proving: dict[str, asyncio.Task[None]] = {}

    async def resolve(
        self,
        workspace: str,
        mode: str,
        provider: str,
        user: str | None,
        connection_id: str | None = None,
    ) -> Credential:
        """Give the credential of the connection that is meant.

        Args:
            workspace: `ws_…`
            mode: `live` or `test`.
            provider: Its slug.
            user: The developer's id of the end customer; None: the workspace's only connection.
            connection_id: Exactly this one.

        Raises:
            NotFound: `no_connection`.
            Conflict: `ambiguous_connection` (several, and nothing says which), `needs_reauth`.
            DependencyDown: The token ended and cannot be refreshed just now, or the database is
                down.
            SecretUnavailable: The credential cannot be opened.
        """
        key = (workspace, mode, provider, user, connection_id)
        kept = self._cached.get(key)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        asked = self._asking.get(key)
        if asked is None:
            # All who come while one asks the database share its answer, as they share a refresh.
            asked = self._asking[key] = asyncio.create_task(self._asked(key))
            asked.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(asked)

    async def _asked(self, key: _Key) -> Credential:
        row = await self._pick(*key)
        credential = await self._credential(row)
        if credential.due_at is not None and credential.due_at <= self._clock():
            credential = await self._ahead(row, credential)
        self._keep(key, credential)
        return credential

    def _answered(self, key: _Key, done: asyncio.Task[Credential]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # looked at, even where everybody who waited gave up

    async def refreshed(self, credential: Credential) -> Credential:
        """Give a credential newer than this one, which the vendor did not take.

        Raises:
            Conflict: `needs_reauth`: the vendor says that the grant is dead, or there is nothing to
                refresh with.
            DependencyDown: The vendor cannot be asked just now; the old token is kept.
            NotFound: The connection was deleted meanwhile.
        """
        return await self._newer(credential, refused=True)

    async def renew(self, row: Connection, owner: str) -> None:
        """Refresh a connection whose time has come and whose lease is `owner`'s; as `refreshed`."""
        try:
            await self.refresher.refresh(row, owner)
        finally:
            self.forget(row.id)

    def accepted(self, credential: Credential) -> None:
        """Note that the vendor took a credential: from then on the one before is not needed."""
        id_ = credential.connection_id
        if credential.proven or id_ in self._proving:
            return
        task = self._proving[id_] = asyncio.create_task(self._prove(credential))
        task.add_done_callback(lambda _: self._proving.pop(id_))

    async def _prove(self, credential: Credential) -> None:
        id_ = credential.connection_id
        try:
            await self.refresher.prove(credential.workspace_id, id_, credential.version)
        except NeighbourhoodError as error:  # the next use tries again
            _log.warning("vault.not_proven_yet", connection=id_, code=error.code)
        else:
            self.forget(id_)

    async def _newer(self, credential: Credential, *, refused: bool) -> Credential:
        id_ = credential.connection_id
        task = self._refreshing.get(id_)
        if task is None:
            task = self._refreshing[id_] = asyncio.create_task(self._refresh(credential, refused))
            task.add_done_callback(lambda done: self._done(id_, done))
        # Shielded: that one caller gives up must not break a refresh that others wait for.
        return await asyncio.shield(task)

    async def _refresh(self, credential: Credential, refused: bool) -> Credential:  # noqa: FBT001
        workspace, id_ = credential.workspace_id, credential.connection_id
        fresh = await self.refresher.newer(workspace, id_, credential.version, refused=refused)
        return self._shown(fresh.row, fresh.held)

    def forget(self, connection_id: str) -> None:
        """Forget what is cached of a connection: it was changed or deleted."""
        stale = [k for k, (_, c) in self._cached.items() if c.connection_id == connection_id]
        for key in stale:
            del self._cached[key]

    def forget_missing(self, workspace: str, provider: str) -> None:
        """Forget what was found without a user: a further connection may make it ambiguous."""
        stale = [k for k in self._cached if k[0] == workspace and k[2] == provider and k[3] is None]
        for key in stale:
            del self._cached[key]

    async def close(self) -> None:
        """Wait for refreshes under way: a rotated token that is not stored is lost."""
        under_way = (*self._refreshing.values(), *self._proving.values())
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _pick(
        self,
        workspace: str,
        mode: str,
        provider: str,
        user: str | None,
        connection_id: str | None,
    ) -> Connection:
        name = self._catalogue.get(provider).name
        if connection_id is not None:
            row = await self._store.get(workspace, connection_id)
            if row is None or row.mode != mode or row.provider != provider:
                raise NotFound(
                    f"There is no {mode} {name} connection {connection_id[:64]!r}.",
                    code="no_connection",
                )
            return row
        found = await self._store.find(workspace, mode, provider, user)
        if not found:
            whose = f"The user {user[:200]!r}" if user is not None else "This workspace"
            raise NotFound(
                f"{whose} has no {mode} {name} connection; let the customer connect one by"
                " POST /api/v1/integrations/auth-url.",
                code="no_connection",
            )
        if len(found) > 1:
            raise _ambiguous(found, name, user)
        return found[0]

    async def _credential(self, row: Connection) -> Credential:
        if row.state == "needs_reauth":
            raise needs_reauth(row, self._catalogue.get(row.provider).name)
        return self._shown(row, await self._sealer.open_credential(row))

    def _shown(self, row: Connection, held: Held) -> Credential:
        spec = self._catalogue.get(row.provider).connected_by(row.auth_kind)
        roots = roots_of(spec, held.access_token.reveal(), held.fields, row.variables)
        return Credential(
            workspace_id=row.workspace_id,
            connection_id=row.id,
            provider=row.provider,
            mode=row.mode,
            proof=proof_of(spec.auth, roots),
            variables=roots["connection"],
            version=row.credential_version,
            due_at=due_at(held),
            proven=held.previous is None,
        )

    async def _ahead(self, row: Connection, credential: Credential) -> Credential:
        """Refresh before the end; while the old token still lives, a failure does no harm."""
        try:
            return await self._newer(credential, refused=False)
        except DependencyDown:
            if row.expires_at is not None and row.expires_at > self._clock():
                return credential
            raise

    def _keep(self, key: _Key, credential: Credential) -> None:
        seconds = CACHE_S if key[3] is not None or key[4] is not None else CACHE_WITHOUT_USER_S
        if credential.due_at is not None:
            left = (credential.due_at - self._clock()).total_seconds()
            seconds = min(seconds, left)
        if seconds <= 0:
            return
        self._cached[key] = (time.monotonic() + seconds, credential)
        self._cached.move_to_end(key)
        if len(self._cached) > CACHED_MAX:
            self._cached.popitem(last=False)

    def _done(self, connection_id: str, task: "asyncio.Task[Credential]") -> None:
        self._refreshing.pop(connection_id, None)
        self.forget(connection_id)
        if not task.cancelled():
            task.exception()  # told to whoever waits; nobody may wait any more


def _ambiguous(found: list[Connection], name: str, user: str | None) -> Conflict:
    if user is None:
        text = (
            f"This workspace has {len(found)} {name} connections and the event says no user: set"
            " user_id on the event, or `user` on the step."
        )
    else:
        text = (
            f"The user {user[:200]!r} has {len(found)} {name} connections: name one by its"
            " connection id on the step."
        )
    return Conflict(text, code="ambiguous_connection")
