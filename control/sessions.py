"""Sessions: opened by a log-in, carried on by refresh tokens that are good once.

    log-in ─▶ live ──refresh──▶ live ──7 d without, or 30 d in all──▶ expired
                │ └─ a used token comes again, later than 10 s after its use ──▶ revoked (reuse)
                └─ log-out, log-out everywhere, another password, a reset ─────▶ revoked

A token that comes a second time was copied: by whom of the two cannot be told, so the whole session
ends (https://www.rfc-editor.org/rfc/rfc9700 §4.14.2). Within `REUSE_GRACE_S` it is two tabs
that refresh at once: the second one gets no token and no punishment, since the first has the pair.
Whether a session lives is asked of the database and believed for `KNOWN_S`, so a log-out ends the
access tokens too, in every process within that time.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from control.core.tokens import (
    REFRESH_S,
    REUSE_GRACE_S,
    SESSION_S,
    TOKEN_BYTES,
    Bearer,
    digest,
    kid_of,
    looks_like_refresh_token,
    new_refresh_token,
    sign,
    verify,
)
from control.signing import SigningKeys
from control.store import people
from control.store.query import Borrowed, Row
from schemas.errors import Conflict, NeighbourhoodError, Unauthenticated
from schemas.settings import Secret
from wire.clock import mint, now
from wire.database import Pool, connection

KNOWN_S: Final = 1.0
ENTRIES_MAX: Final = 10_000
# Devices of one person; the oldest has to log in again.
SESSIONS_MAX: Final = 50
_AGENT_CHARS: Final = 200
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """What a log-in or a refresh gives; the token is shown this once.

    Attributes:
        expires_at: When the refresh token is good no more.
    """

    person_id: str
    session_id: str
    refresh: Secret
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Live:
    """Who is in a session that lives.

    Attributes:
        role: In the workspace that was asked for; None: not a member.
    """

    person_id: str
    role: str | None


class Sessions:
    """Opens, carries on, checks and ends sessions."""

    def __init__(
        self,
        pool: Pool,
        signing: SigningKeys,
        issuer: str,
        clock: Callable[[], datetime] = now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._signing = signing
        self._issuer = issuer
        self.clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[str, str | None], tuple[float, Live | None]] = OrderedDict()
        self._changes = 0

    async def open(self, on: Borrowed, person: str, user_agent: str, address: str) -> Opened:
        """Begin a session.

        Args:
            on: The transaction.
            person: Whose password was right.
            user_agent: As the client calls itself; shown in the list of sessions.
            address: Where from.
        """
        moment = self.clock()
        session = mint("ses")
        expires_at = moment + timedelta(seconds=REFRESH_S)
        values = {
            "id": session,
            "person": person,
            "user_agent": user_agent.replace("\x00", "")[:_AGENT_CHARS],
            "address": address,
            "now": moment,
            "expires_at": expires_at,
        }
        await people.insert_session(on, values)
        await people.revoke_oldest(on, person, moment, SESSIONS_MAX)
        _log.info("session.opened", person=person, session=session)
        return await self._give(on, person, session, expires_at)

    async def refresh(self, token: str) -> Opened:
        """Take a refresh token and give the next one.

        Raises:
            Unauthenticated: `unknown_refresh_token`, `session_ended`, or `refresh_token_reused`:
                the session was ended for it.
            Conflict: `already_refreshed`: used a moment ago, by another request of the same client.
        """
        found: Opened | NeighbourhoodError
        async with connection(self._pool) as on:
            found = await self._refresh(on, token)  # an error is raised after the commit
        if isinstance(found, NeighbourhoodError):
            raise found
        return found

    async def access_token(self, opened: Opened) -> Secret:
        """Sign an access token for a session."""
        key = await self._signing.current()
        bearer = Bearer(opened.person_id, opened.session_id)
        return sign(key.key, key.kid, bearer, self._issuer, self.clock())

    async def bearer(self, token: str) -> Bearer:
        """Read an access token; that its session lives is not known yet.

        Raises:
            Unauthenticated: `bad_access_token`.
        """
        kid = kid_of(token)
        key = await self._signing.find(kid) if kid is not None else None
        found = verify(token, key.key, self._issuer, self.clock()) if key is not None else None
        if found is None:
            raise Unauthenticated(
                "This access token is not good, or no longer: it lives 15 minutes. Get another one"
                " with POST /api/v1/auth/refresh, or log in.",
                code="bad_access_token",
            )
        return found

    async def live(self, bearer: Bearer, workspace: str | None) -> Live:
        """Tell who is in a session, and what they are in a workspace.

        Raises:
            Unauthenticated: `session_ended`.
            DependencyDown: The database is away; nobody is believed without it.
        """
        key = (bearer.session_id, workspace)
        until, found = self._known.get(key, (0.0, None))
        if self._monotonic() >= until:
            until, changes = self._monotonic() + KNOWN_S, self._changes
            async with connection(self._pool) as on:
                row = await people.live(on, bearer.session_id, workspace, self.clock())
            found = Live(row["person_id"], row["role"]) if row is not None else None
            if changes == self._changes:
                self._keep(key, until, found)
        if found is None or found.person_id != bearer.person_id:
            raise _ended()
        return found

    async def revoke(self, token: str, reason: str) -> None:
        """End the session of a refresh token, used or not; harmless where there is none."""
        if not looks_like_refresh_token(token):
            return
        async with connection(self._pool) as on:
            row = await people.session_of_token(on, digest(token))
            if row is not None:
                await people.revoke_session(on, row["person_id"], row["id"], self.clock(), reason)
        self.forget()

    def forget(self) -> None:
        """Ask the database again for every session, since some were changed here."""
        self._changes += 1  # what is being read right now may be from before the change
        self._known.clear()

    async def _refresh(self, on: Borrowed, token: str) -> Opened | NeighbourhoodError:
        key = digest(token)
        row = await people.session_of_token(on, key) if looks_like_refresh_token(token) else None
        moment = self.clock()
        if row is None:
            return Unauthenticated(
                "This refresh token is not known; log in.", code="unknown_refresh_token"
            )
        if row["revoked_at"] is not None or row["expires_at"] <= moment:
            return _ended()
        if row["used_at"] is not None:
            return await self._again(on, row, moment)
        await people.use_token(on, key, moment)
        ends = row["created_at"] + timedelta(seconds=SESSION_S)
        expires_at = min(moment + timedelta(seconds=REFRESH_S), ends)
        await people.extend_session(on, row["id"], moment, expires_at)
        return await self._give(on, row["person_id"], row["id"], expires_at)

    async def _again(self, on: Borrowed, row: Row, moment: datetime) -> NeighbourhoodError:
        """Deal with a token that was used before."""
        if moment - row["used_at"] <= timedelta(seconds=REUSE_GRACE_S):
            return Conflict(
                "This refresh token was used a moment ago by another request, which has the new"
                " one; use that.",
                code="already_refreshed",
            )
        await people.revoke_session(on, row["person_id"], row["id"], moment, "reuse")
        self.forget()
        _log.warning("session.token_reused", person=row["person_id"], session=row["id"])
        return Unauthenticated(
            "This refresh token was used before: somebody may have copied it, so the session was"
            " ended. Log in again.",
            code="refresh_token_reused",
        )

    async def _give(self, on: Borrowed, person: str, session: str, expires_at: datetime) -> Opened:
        token = new_refresh_token(os.urandom(TOKEN_BYTES))
        await people.insert_token(on, digest(token.reveal()), session, expires_at)
        return Opened(person, session, token, expires_at)

    def _keep(self, key: tuple[str, str | None], until: float, found: Live | None) -> None:
        self._known[key] = (until, found)
        self._known.move_to_end(key)
        if len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)


def _ended() -> Unauthenticated:
    return Unauthenticated("This session has ended; log in.", code="session_ended")
