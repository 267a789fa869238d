"""Refreshes a connection's token: one process at a time, and nothing lost that can be kept.

    newer     a credential newer than a version; leads the refresh or waits for whoever does
    refresh   of a connection whose lease is ours
    prove     the vendor was seen to accept the new credential

lease ─▶ ask the vendor ─▶ store the new pair ─▶ use it
            │  a process that dies here may take the vendor's answer with it: the next one asks with
            │  the stored refresh token, which vendors with a grace period take once more
            └─ the new refresh token is refused ─▶ once with the one before it, which is kept until
               the new one is proven ─▶ needs_reauth

A vendor that cannot be reached never costs a connection its token.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import httpx
import structlog

from schemas.errors import Conflict, DependencyDown, NeighbourhoodError, NotFound
from schemas.provider import Catalogue, ProviderSpec
from schemas.settings import Settings
from token_vault import endpoints
from token_vault.account import Visit, revoke
from token_vault.apps import Apps
from token_vault.core.grants import (
    Granted,
    Held,
    Refused,
    client_request,
    merged,
    refresh_request,
)
from token_vault.core.schedule import pause_s, refresh_in_s
from token_vault.exchange import ask
from token_vault.leases import Failure, Leases
from token_vault.sealing import Sealer
from token_vault.store import Account, Connection, ConnectionStore
from token_vault.variables import sift_variables
from wire.clock import rng

# How long one waits for another process's refresh, and how often it looks: a lease of a process
# that died is over by then.
WAIT_S: Final = 35.0
LOOK_EVERY_S: Final = 0.05
# Between attempts to store a refreshed token; in all, as long as the lease holds.
COMMIT_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 4.0)

_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Fresh:
    """A connection and its credential in clear."""

    row: Connection
    held: Held


def _pass_on(_point: str) -> None:
    """Do nothing at a named point."""


class Refresher:
    """Refreshes; one a process.

    Attributes:
        reached: Called at `before_call`, `after_answer`, `before_commit` and `after_commit`: where
            tests let a process die.
    """

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
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self.leases = Leases(store.pool)
        self._sealer = sealer
        self._client = client
        self._apps = apps
        self._clock = clock
        self._process = os.urandom(8).hex()
        self.reached: Callable[[str], None] = _pass_on

    def owner(self) -> str:
        """Name the owner of one lease; never the same again."""
        return f"{self._process}/{os.urandom(4).hex()}"

    async def newer(
        self, workspace: str, connection_id: str, version: int, *, refused: bool
    ) -> Fresh:
        """Give a credential newer than a version.

        Args:
            workspace: Whose.
            connection_id: Which.
            version: That is not good any more.
            refused: The vendor does not take it. False: it is near its end, so nobody waits for
                another process while it lives.

        Raises:
            NeedsReauth: The grant is dead.
            DependencyDown: The vendor, or the process that asks it, does not come to an end;
                `refresh_paused`: it failed just now.
            NotFound: The connection was deleted.
        """
        owner = self.owner()
        until = time.monotonic() + WAIT_S
        reason = "refused" if refused else "due"
        while True:
            row = await self.leases.lease(workspace, connection_id, version, owner, reason=reason)
            if row is not None:
                return await self.refresh(row, owner)
            row = await self._store.get(workspace, connection_id)
            if row is None:
                raise _deleted()
            if row.state == "needs_reauth" or row.credential_version != version:
                return await self._stored(row)
            if row.lease_until is None and row.refresh_failures > 0:
                raise self._paused(row)
            is_alive = row.expires_at is not None and row.expires_at > self._clock()
            if time.monotonic() > until or (is_alive and not refused):
                raise DependencyDown(
                    "Another process is refreshing this connection and has not come to an end.",
                    code="refresh_busy",
                )
            await asyncio.sleep(LOOK_EVERY_S)

    async def refresh(self, row: Connection, owner: str) -> Fresh:
        """Refresh a connection whose lease is ours.

        Raises:
            NeedsReauth: The vendor says that the grant is dead.
            Conflict: There is no OAuth app.
            DependencyDown: The vendor does not do it just now; the old token is kept.
            NotFound: The connection was deleted meanwhile.
            SecretUnavailable: The credential cannot be opened.
        """
        spec = self._spec(row)
        try:
            held = await self._sealer.open_credential(row)
            answer = await self._ask_twice(row, owner, spec, held)
        except DependencyDown:
            raise
        except NeighbourhoodError as error:  # nothing was asked: no key, no app, no address
            await self._failed(row, owner, Refused("wrong", error.code, error.public), spec)
            raise
        if isinstance(answer, Refused):
            noted = await self._failed(row, owner, answer, spec)
            if noted is None:
                return await self._overtaken(row, None)
            raise self._meaning(noted, answer, spec)
        new = merged(held, answer.held)
        good, bad = sift_variables(spec, row.mode, answer.held.variables, self._settings)
        if bad:  # what was good before stays; the new tokens are kept whatever else it says
            _log.warning("vault.account_changed_oddly", connection=row.id, variables=bad)
        account = Account(
            auth_kind=row.auth_kind,
            account_id=row.account_id,
            account_name=row.account_name,
            variables={**row.variables, **good},
            scopes=new.scopes,
            expires_at=new.expires_at,
            refresh_in_s=refresh_in_s(new, rng.random()),
        )
        self.reached("before_commit")
        stored = await self._commit(row, owner, account, new)
        self.reached("after_commit")
        if stored is None:
            return await self._overtaken(row, new)
        _log.info("vault.refreshed", connection=row.id, provider=row.provider)
        return Fresh(stored, replace(new, variables=account.variables))

    async def prove(self, workspace: str, connection_id: str, version: int) -> None:
        """Drop the refresh token before this version's: the vendor accepts the new one.

        Raises:
            DependencyDown: The database is away; it is kept longer then, which does no harm.
        """
        row = await self._store.get(workspace, connection_id)
        if row is None or row.credential_version != version:
            return
        held = await self._sealer.open_credential(row)
        if held.previous is not None:
            alone = replace(held, previous=None)
            sealed = await self._sealer.seal_credential(workspace, row.id, row.user_id, alone)
            await self.leases.prove(row, sealed)

    def _spec(self, row: Connection) -> ProviderSpec:
        """Give the provider, with the way in which this account is connected as its `auth`."""
        return self._catalogue.get(row.provider).connected_by(row.auth_kind)

    async def _stored(self, row: Connection) -> Fresh:
        if row.state == "needs_reauth":
            raise needs_reauth(row, self._catalogue.get(row.provider).name)
        return Fresh(row, await self._sealer.open_credential(row))

    async def _ask_twice(
        self, row: Connection, owner: str, spec: ProviderSpec, held: Held
    ) -> Granted | Refused:
        """Ask with the refresh token, and where it is dead, once with the one before it."""
        self.reached("before_call")
        answer = await self._ask(row, spec, held)
        is_dead = isinstance(answer, Refused) and answer.kind == "dead"
        if is_dead and held.previous is not None and await self.leases.extend(row, owner):
            _log.warning("vault.refresh_with_the_token_before", connection=row.id)
            second = await self._ask(row, spec, replace(held, refresh_token=held.previous))
            if isinstance(second, Granted):
                answer = second
        self.reached("after_answer")
        return answer

    async def _ask(self, row: Connection, spec: ProviderSpec, held: Held) -> Granted | Refused:
        if spec.auth.kind == "client_credentials":
            url = endpoints.token_url(spec, row.mode, row.variables, self._settings)
            request = client_request(spec.auth, held.fields, row.variables)
            return await ask(self._client, url, spec.auth, request, self._clock)
        if held.refresh_token is None or spec.auth.refresh == "none":
            return Refused("dead", "token_refused", "The token is no longer taken.")
        app = await self._apps.of_connection(row, spec)
        url = endpoints.refresh_url(spec, row.mode, row.variables, self._settings)
        request = refresh_request(spec.auth, app, held.refresh_token)
        return await ask(self._client, url, spec.auth, request, self._clock)

    async def _commit(
        self, row: Connection, owner: str, account: Account, held: Held
    ) -> Connection | None:
        """Store a refreshed credential; the old one may be dead, so a database is waited for."""
        for pause in (*COMMIT_PAUSES_S, None):
            try:
                sealed = await self._sealer.seal_credential(
                    row.workspace_id, row.id, row.user_id, held
                )
                return await self.leases.commit(row, owner, account, sealed)
            except DependencyDown:
                if pause is None:
                    raise
                _log.warning("vault.refresh_not_stored_yet", connection=row.id)
                await asyncio.sleep(pause)
        return None

    async def _overtaken(self, row: Connection, fresh: Held | None) -> Fresh:
        """Take what is stored now: it was deleted or connected anew while the vendor answered."""
        _log.warning("vault.refresh_overtaken", connection=row.id, provider=row.provider)
        current = await self._store.get(row.workspace_id, row.id)
        if current is not None:
            return await self._stored(current)
        if fresh is not None:  # a token that nobody holds must not stay good
            await self._take_back(row, fresh)
        raise _deleted()

    async def _take_back(self, row: Connection, held: Held) -> None:
        spec = self._spec(row)
        app = await self._apps.of_connection(row, spec)
        visit = Visit(spec, row.mode, self._settings, app, row.variables, held)
        await revoke(self._client, visit)

    async def _failed(
        self, row: Connection, owner: str, refused: Refused, spec: ProviderSpec
    ) -> Connection | None:
        """Note a failed refresh; None where it no longer matters."""
        is_dead = refused.kind == "dead"
        code, message = refused.code, refused.message
        if is_dead and row.unsettled_since is not None:
            code, message = "answer_lost", _lost(row.unsettled_since, refused, spec)
        again = None if is_dead else pause_s(row.refresh_failures + 1, rng.random())
        failure = Failure(
            state="needs_reauth" if is_dead else "degraded",
            code=code,
            message=message,
            again_in_s=again,
            unsettled=refused.may_have_happened,
        )
        _log.warning(
            "vault.refresh_failed",
            connection=row.id,
            provider=row.provider,
            state=failure.state,
            reason=code,
        )
        return await self.leases.fail(row, owner, failure)

    def _meaning(
        self, noted: Connection, refused: Refused, spec: ProviderSpec
    ) -> NeighbourhoodError:
        if refused.kind == "dead":
            return needs_reauth(noted, spec.name)
        return DependencyDown(
            f"{spec.name} did not refresh the connection's token ({refused.code}); it is kept and"
            " tried again.",
            code="refresh_failed",
            detail=refused.message,
        )

    def _paused(self, row: Connection) -> DependencyDown:
        name = self._catalogue.get(row.provider).name
        code = (row.last_error or {}).get("code", "")
        return DependencyDown(
            f"{name} did not refresh the connection's token a moment ago ({code}); it is tried"
            " again soon.",
            code="refresh_paused",
        )


def _deleted() -> NotFound:
    return NotFound("The connection was deleted.", code="no_connection")


def _lost(since: datetime, refused: Refused, spec: ProviderSpec) -> str:
    return (
        f"The answer to a refresh of {since:%Y-%m-%d %H:%M:%S} UTC was lost before it was stored,"
        f" and {spec.name} does not take the refresh token of before ({refused.code})."
    )


class NeedsReauth(Conflict):
    """The customer has to connect again.

    Attributes:
        connection_id: What.
    """

    default_code = "needs_reauth"

    def __init__(self, public: str, connection_id: str) -> None:
        super().__init__(public)
        self.connection_id = connection_id


def needs_reauth(row: Connection, name: str) -> NeedsReauth:
    """Say that the customer has to connect again."""
    code = (row.last_error or {}).get("code", "token_refused")
    return NeedsReauth(
        f"The {name} connection {row.id} of user {row.user_id[:200]!r} is no longer authorised"
        f" ({code}); let the customer connect it again by POST /api/v1/integrations/auth-url.",
        row.id,
    )
