"""What the pages do: open a link, list what it is for, begin a consent, take the browser back.

A page belongs to the browser that opened the link; `the cookie` below is what shows that. A consent
that was begun on a page may only come back with that cookie: else somebody could begin it and let
another person finish it, whose account would then be theirs.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from schemas.access import Caller
from schemas.errors import Conflict, Forbidden, InvalidInput, NeighbourhoodError, NotFound, Problem
from schemas.provider import ProviderSpec
from token_vault.connect import sessions
from token_vault.connect.sessions import Asked, Session
from token_vault.core.addresses import check_user_and_urls
from token_vault.core.fields import Field, values
from token_vault.entered import Entry
from token_vault.keeper import no_connection
from token_vault.oauth import AccountChoice, Landing, Wish
from token_vault.states import Terms
from token_vault.store import Connection, Owner
from token_vault.vault import Vault
from wire.database import connection

# `oauth`, or the kind of what is entered: `api_key`, `basic` …
Way = str
COOKIE_BYTES: Final = 32
_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Link:
    """A link that was made; the address is as good as a password until it is opened."""

    id: str
    token: str
    expires_at: datetime


class Connect:
    """The pages' work, over the vault."""

    def __init__(self, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._vault = vault
        self._clock = clock

    async def make(self, caller: Caller, asked: Asked) -> Link:
        """Make a link.

        Raises:
            InvalidInput: Something of what is asked for cannot be; all is told.
            NotFound: There is no such connection to connect again.
        """
        asked = await self._settled(caller, asked)
        token = sessions.new_token()
        async with connection(self._vault.pool) as on:
            made, expires_at = await sessions.make(on, asked, token, self._clock())
        _log.info("connect.link_made", workspace=asked.workspace, session=made)
        return Link(made, token, expires_at)

    async def look(self, workspace: str, mode: str, session_id: str) -> Session:
        """Give a link as its developer may see it.

        Raises:
            NotFound: There is none of this id in this workspace and mode.
        """
        async with connection(self._vault.pool) as on:
            found = await sessions.of_workspace(on, workspace, mode, session_id)
        if found is None:
            raise NotFound(
                f"There is no connect session {session_id[:64]!r}.", code="session_unknown"
            )
        return found

    def state_of(self, session: Session) -> str:
        """Give `connected`, `failed`, `expired`, `opened` or `pending`."""
        if session.status is not None:
            return session.status
        if session.expires_at <= self._clock():
            return "expired"
        return "opened" if session.opened_at is not None else "pending"

    async def find(self, token: str) -> Session:
        """Find a link by its token, for whoever may open it.

        Raises:
            NotFound: `session_unknown`.
        """
        async with connection(self._vault.pool) as on:
            found = await sessions.by_token(on, token)
        if found is None:
            raise NotFound("There is no such link.", code="session_unknown")
        return found

    async def open(self, session: Session) -> str:
        """Open a link for the browser that gets the cookie that this gives.

        Raises:
            Conflict: `session_used`, `session_expired`.
        """
        if session.opened_at is not None:
            raise Conflict("This link was opened already.", code="session_used")
        cookie = secrets.token_urlsafe(COOKIE_BYTES)
        async with connection(self._vault.pool) as on:
            opened = await sessions.open_once(on, session, cookie, self._clock())
        if not opened:
            is_late = session.expires_at <= self._clock()
            code = "session_expired" if is_late else "session_used"
            raise Conflict("This link can no longer be opened.", code=code)
        _log.info("connect.link_opened", workspace=session.workspace, session=session.id)
        return cookie

    async def opened(self, session_id: str, cookie: str | None) -> Session:
        """Give the link that this browser opened; it may have expired since.

        Raises:
            NotFound: `session_unknown`.
            Forbidden: `session_used`: another browser did.
        """
        async with connection(self._vault.pool) as on:
            found = await sessions.by_id(on, session_id)
        if found is None or found.expires_at + sessions.READ_LIFE <= self._clock():
            raise NotFound("There is no such link.", code="session_unknown")
        if not found.belongs_to(cookie):
            raise Forbidden("Another browser opened this link.", code="session_used")
        return found

    def require_live(self, session: Session) -> None:
        """Refuse what a link can no longer do.

        Raises:
            Conflict: `session_expired`.
        """
        if session.expires_at <= self._clock():
            raise Conflict("This link has expired.", code="session_expired")

    async def offered(self, session: Session) -> list[ProviderSpec]:
        """List what can be connected by this link: what it is for and is set up."""
        wanted = session.providers
        there = [spec for spec in self._vault.catalogue if spec.is_open(session.mode)]
        asked = [spec for spec in there if wanted is None or spec.slug in wanted]
        ready = await self._vault.apps.set_up(session.workspace, session.mode, asked)
        found = [spec for spec in asked if _ways(spec, with_app=spec.slug in ready)]
        return sorted(found, key=lambda spec: spec.name.lower())

    async def ways(self, session: Session, spec: ProviderSpec) -> list[Way]:
        """List how a provider can be connected here, the best one first."""
        ready = await self._vault.apps.set_up(session.workspace, session.mode, [spec])
        return _ways(spec, with_app=bool(ready))

    def choose(self, session: Session, slug: str) -> ProviderSpec:
        """Give a provider that this link is for.

        Raises:
            NotFound: `unknown_provider`, `not_offered`.
        """
        spec = self._vault.catalogue.get(slug)
        if session.providers is not None and slug not in session.providers:
            raise NotFound(f"This link is not for {spec.name}.", code="not_offered")
        return spec

    async def begin(self, session: Session, spec: ProviderSpec, fields: Sequence[Field]) -> str:
        """Begin a consent and give the address of the vendor's page.

        Raises:
            NeighbourhoodError: What `OAuth.auth_url` raises.
        """
        wish = Wish(variables=values(fields, "variable"), terms=_terms(session))
        offer = await self._vault.oauth.auth_url(_owner(session, spec), wish)
        async with connection(self._vault.pool) as on:
            await sessions.bind_state(on, session, offer.state)
        return offer.url

    async def enter(
        self, session: Session, spec: ProviderSpec, way: Way, fields: Sequence[Field]
    ) -> Connection:
        """Connect with what the customer entered.

        Raises:
            InvalidInput: The vault does not take it; `problems` say which fields.
            NeighbourhoodError: What `Entered.connect` raises otherwise.
        """
        entry = Entry(values(fields, "credential"), values(fields, "variable"), way)
        made = await self._vault.entered.connect(_owner(session, spec), entry, _terms(session))
        await self._note(session, spec.slug, made, None)
        return made

    async def begun_with(self, state: str) -> Session | None:
        """Give the link by which a consent was begun; None: by none."""
        if not state:
            return None
        async with connection(self._vault.pool) as on:
            return await sessions.by_state(on, state)

    async def come_back(
        self, session: Session, provider: str, answer: Mapping[str, str]
    ) -> Landing:
        """Finish a consent that this browser began, and note how it ended."""
        landing = await self._vault.oauth.callback(provider, answer)
        if isinstance(landing.error, AccountChoice):
            return landing  # not the end yet
        await self._note(session, provider, landing.connection, landing.error)
        return landing

    async def note_failure(self, session: Session, slug: str, error: NeighbourhoodError) -> None:
        """Note why a try failed."""
        await self._note(session, slug, None, error)

    async def result(self, session: Session) -> Connection | None:
        """Give what was connected; None where it was deleted meanwhile."""
        if session.result_id is None:
            return None
        return await self._vault.store.get(session.workspace, session.result_id)

    async def _note(
        self,
        session: Session,
        provider: str,
        made: Connection | None,
        error: NeighbourhoodError | None,
    ) -> None:
        code = error.code if error is not None else "internal"
        async with connection(self._vault.pool) as on:
            if made is not None:
                await sessions.note_connected(on, session, provider, made.id)
            else:
                await sessions.note_failed(on, session, provider, code)
        _log.info(
            "connect.ended",
            workspace=session.workspace,
            session=session.id,
            provider=provider,
            outcome="connected" if made is not None else code,
        )

    async def _settled(self, caller: Caller, asked: Asked) -> Asked:
        """Check what is asked for; a connection that is connected again says the rest itself."""
        vault = self._vault
        urls = {"return_url": asked.return_url}
        problems = check_user_and_urls(
            asked.user_id, urls, is_production=vault.settings.is_production
        )
        for place, slug in enumerate(asked.providers or ()):
            if slug not in vault.catalogue:
                text = f"{slug[:64]!r} is not a provider"
                mend = "GET /api/v1/integrations lists them."
                problems.append(Problem(f"providers[{place}]", text, mend, "unknown_provider"))
        if problems:
            first = problems[0]
            raise InvalidInput(f"{first.place} {first.message}.", problems=problems)
        if asked.connection_id is None:
            return asked
        row = await vault.store.get(caller.workspace_id, asked.connection_id)
        if row is None or row.mode != caller.mode:
            raise no_connection(asked.connection_id)
        if row.user_id != asked.user_id:
            problem = Problem(
                "user_id", "is not the user of this connection", "Give the one it has.", "differs"
            )
            raise InvalidInput(f"user_id {problem.message}.", problems=[problem])
        return Asked(
            workspace=asked.workspace,
            mode=asked.mode,
            user_id=row.user_id,
            label=row.label,
            providers=(row.provider,),
            connection_id=row.id,
            return_url=asked.return_url,
        )


def form_token(cookie: str) -> str:
    """Give what a form of this browser's pages carries, so that no other page can send it."""
    return hmac.new(cookie.encode(), b"connect form", hashlib.sha256).hexdigest()


def _ways(spec: ProviderSpec, *, with_app: bool) -> list[Way]:
    found = ["oauth"] if with_app and spec.auth.ways_by_consent else []
    return [*found, *(way.kind for way in spec.auth.entered)]


def _terms(session: Session) -> Terms:
    """Give what this link's connection keeps to: connected again, it stays of the same account."""
    again = session.connection_id is not None
    return Terms(connection_id=session.connection_id, allow_other_account=not again)


def _owner(session: Session, spec: ProviderSpec) -> Owner:
    return Owner(session.workspace, session.mode, spec.slug, session.user_id, session.label)
