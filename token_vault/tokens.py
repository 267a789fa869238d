"""Gives executors the credential of a connection, fresh enough to be used.

    resolve     which connection is meant, and its credential; out of memory for `CACHE_S`
    refreshed   after a 401: a credential newer than the one that was refused

A refresh happens once: in this process all wait for the same task, between processes a lease on the
row and a compare-and-swap on its version let one ask the vendor, the others read what it stored.
A vendor that cannot be reached never costs a connection its token; one that says the grant is dead
makes it `needs_reauth`.
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import httpx
import structlog

from schemas.errors import Conflict, DependencyDown, NotFound
from schemas.provider import Catalogue, ProviderSpec
from schemas.settings import Secret, Settings
from token_vault import endpoints
from token_vault.account import Visit, revoke
from token_vault.apps import Apps
from token_vault.core.grants import Granted, Held, Refused, due_at, merged, refresh_request
from token_vault.exchange import ask
from token_vault.sealing import Sealer
from token_vault.store import Account, Connection, ConnectionStore

# How long a credential is given out without asking the database: a deleted connection or one that
# another process changed is noticed by then. Without a user the answer may become ambiguous.
CACHE_S: Final = 30.0
CACHE_WITHOUT_USER_S: Final = 5.0
CACHED_MAX: Final = 10_000
# How long one waits for another process's refresh, and how often it looks.
WAIT_S: Final = 20.0
LOOK_EVERY_S: Final = 0.05
# Between attempts to store a refreshed token; in all, as long as the lease holds.
COMMIT_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 4.0)

_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a call to a vendor needs of a connection.

    Attributes:
        header_name, header_value: The header that carries the token.
        variables: Of the account, for URLs: subdomain, instance_url, cloudid.
        version: Of the credential; a refresh gives a higher one.
    """

    workspace_id: str
    connection_id: str
    provider: str
    mode: str
    header_name: str
    header_value: Secret
    variables: Mapping[str, str]
    version: int
    due_at: datetime | None = field(default=None, compare=False)


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
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self._sealer = sealer
        self._client = client
        self._apps = apps
        self._clock = clock
        self._process = os.urandom(8).hex()
        self._cached: OrderedDict[_Key, tuple[float, Credential]] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[Credential]] = {}
        self._refreshing: dict[str, asyncio.Task[Credential]] = {}

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
        task = self._refreshing.get(credential.connection_id)
        if task is None:
            task = asyncio.create_task(self._refresh(credential))
            self._refreshing[credential.connection_id] = task
            task.add_done_callback(lambda done: self._done(credential.connection_id, done))
        # Shielded: that one caller gives up must not break a refresh that others wait for.
        return await asyncio.shield(task)

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
        if self._refreshing:
            await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

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
        spec = self._catalogue.get(row.provider)
        variables = spec.connection(row.variables)
        name, template = spec.auth.token_header
        value = template.text({"token": held.access_token.reveal(), "connection": variables})
        return Credential(
            workspace_id=row.workspace_id,
            connection_id=row.id,
            provider=row.provider,
            mode=row.mode,
            header_name=name,
            header_value=Secret(value),
            variables=variables,
            version=row.credential_version,
            due_at=due_at(held),
        )

    async def _ahead(self, row: Connection, credential: Credential) -> Credential:
        """Refresh before the end; while the old token still lives, a failure does no harm."""
        try:
            return await self.refreshed(credential)
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

    async def _refresh(self, credential: Credential) -> Credential:
        """Get the lease and refresh, or wait for whoever has it."""
        owner = f"{self._process}/{os.urandom(4).hex()}"
        until = time.monotonic() + WAIT_S
        workspace, connection_id = credential.workspace_id, credential.connection_id
        while True:
            row = await self._store.lease(workspace, connection_id, credential.version, owner)
            if row is not None:
                return await self._refresh_leased(row, owner)
            row = await self._store.get(workspace, connection_id)
            if row is None:
                raise NotFound("The connection was deleted.", code="no_connection")
            if row.credential_version != credential.version or row.state == "needs_reauth":
                return await self._credential(row)
            if time.monotonic() > until:
                raise DependencyDown(
                    "Another process is refreshing this connection and does not come to an end.",
                    code="refresh_busy",
                )
            await asyncio.sleep(LOOK_EVERY_S)

    async def _refresh_leased(self, row: Connection, owner: str) -> Credential:
        spec = self._catalogue.get(row.provider)
        if row.state == "needs_reauth":
            await self._store.fail_refresh(row, owner, "needs_reauth", row.last_error or {})
            raise needs_reauth(row, spec.name)
        held = await self._sealer.open_credential(row)
        answer = await self._ask(row, spec, held)
        if isinstance(answer, Refused):
            return await self._failed(row, owner, answer, spec)
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
        )
        stored = await self._commit(row, owner, account, new)
        if stored is None:
            return await self._overtaken(row, new)
        _log.info("vault.refreshed", connection=row.id, provider=row.provider)
        return self._shown(stored, replace(new, variables=account.variables))

    async def _commit(
        self, row: Connection, owner: str, account: Account, held: Held
    ) -> Connection | None:
        """Store a refreshed credential; the old one may be dead, so a database is waited for."""
        for pause in (*COMMIT_PAUSES_S, None):
            try:
                sealed = await self._sealer.seal_credential(
                    row.workspace_id, row.id, row.user_id, held
                )
                return await self._store.commit_refresh(row, owner, account, sealed)
            except DependencyDown:
                if pause is None:
                    raise
                _log.warning("vault.refresh_not_stored_yet", connection=row.id)
                await asyncio.sleep(pause)
        return None

    async def _overtaken(self, row: Connection, fresh: Held | None) -> Credential:
        """Take what is stored now: it was deleted or connected anew while the vendor answered."""
        _log.warning("vault.refresh_overtaken", connection=row.id, provider=row.provider)
        current = await self._store.get(row.workspace_id, row.id)
        if current is not None:
            return await self._credential(current)
        if fresh is not None:  # a token that nobody holds must not stay good
            await self._take_back(row, fresh)
        raise NotFound("The connection was deleted.", code="no_connection")

    async def _take_back(self, row: Connection, held: Held) -> None:
        spec = self._catalogue.get(row.provider)
        visit = Visit(
            spec=spec,
            mode=row.mode,
            settings=self._settings,
            app=await self._apps.get(row.workspace_id, spec, row.mode),
            variables=row.variables,
            token=held.access_token.reveal(),
            refresh_token=held.refresh_token.reveal() if held.refresh_token else None,
        )
        await revoke(self._client, visit)

    async def _ask(self, row: Connection, spec: ProviderSpec, held: Held) -> Granted | Refused:
        if held.refresh_token is None or spec.auth.refresh == "none":
            return Refused("dead", "token_refused", "The token is no longer taken.")
        app = await self._apps.get(row.workspace_id, spec, row.mode)
        url = endpoints.refresh_url(spec, row.mode, row.variables, self._settings)
        request = refresh_request(spec.auth, app, held.refresh_token)
        return await ask(self._client, url, spec.auth, request, self._clock)

    async def _failed(
        self, row: Connection, owner: str, refused: Refused, spec: ProviderSpec
    ) -> Credential:
        """Note a failed refresh and raise what it means; unless it no longer matters."""
        state = "needs_reauth" if refused.kind == "dead" else "degraded"
        error = {"code": refused.code, "message": refused.message}
        noted = await self._store.fail_refresh(row, owner, state, error)
        if noted is None:
            return await self._overtaken(row, None)
        _log.warning(
            "vault.refresh_failed",
            connection=row.id,
            provider=row.provider,
            state=state,
            reason=refused.code,
        )
        if refused.kind == "dead":
            raise needs_reauth(noted, spec.name)
        raise DependencyDown(
            f"{spec.name} did not refresh the connection's token ({refused.code}); it is kept and"
            " tried again.",
            code="refresh_failed",
            detail=refused.message,
        )


def sift_variables(
    spec: ProviderSpec, mode: str, variables: Mapping[str, str], settings: Settings
) -> tuple[dict[str, str], list[str]]:
    """Check what an answer says of the account: tokens go to hosts made of these.

    Returns:
        The good ones, and the names of those that this provider cannot mean.
    """
    good, bad = {}, []
    for name, value in variables.items():
        variable = spec.auth.variables.get(name)
        checked = variable is not None and (variable.pattern is not None or _is_plain(value))
        if (checked and variable is not None and variable.accepts(value)) or (
            endpoints.is_own_host(value, spec, mode, settings)
        ):
            good[name] = value
        else:
            bad.append(name)
    return good, bad


def _is_plain(value: str) -> bool:
    """Say whether a value can stand in a path without changing its way."""
    allowed = value.replace("-", "").replace("_", "").replace(".", "")
    return allowed.isascii() and allowed.isalnum() and len(value) <= 256


def needs_reauth(row: Connection, name: str) -> Conflict:
    """Say that the customer has to connect again."""
    code = (row.last_error or {}).get("code", "token_refused")
    return Conflict(
        f"The {name} connection {row.id} of user {row.user_id[:200]!r} is no longer authorised"
        f" ({code}); let the customer connect it again by POST /api/v1/integrations/auth-url.",
        code="needs_reauth",
    )


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
