"""Who may refresh a connection: a lease on its row and a compare-and-swap on its version.

    lease       for a step that needs a new token now
    lease_due   for the clock: what is due, in any number of processes at the same time
    commit      the new credential is stored
    fail        it is not; says when again
    extend      it takes longer
    prove       the vendor was seen to accept it: the one before is dropped

Who does not hold the lease and the version changes nothing. Times are the database's, since the
clocks of processes differ. Each change of state is noted in the same transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from token_vault.changes import Change, note
from token_vault.store import Account, Borrowed, Connection, changing, with_before
from wire.database import Pool, connection

# A refresh that takes longer lost its process; another may try. A question to the vendor (15 s) and
# the attempts to store its answer (12 s) fit into it.
LEASE_S: Final = 30
# However long the pauses have become: a step that needs a token may ask this often.
ASKED_EVERY_S: Final = 10
# A lease that ran out says that its holder died in the middle: the vendor may have been asked. The
# connection is due then, so that the clock takes over where no step does.
_LEASING: Final = (
    "state = 'refreshing', lease_owner = %s, lease_until = now() + make_interval(secs => %s),"
    " unsettled_since = CASE WHEN c.lease_until IS NULL THEN c.unsettled_since"
    " ELSE coalesce(c.unsettled_since, c.updated_at) END,"
    " refresh_at = least(c.refresh_at, now()), updated_at = now()"
)
_HELD: Final = "workspace_id = %s AND id = %s AND credential_version = %s AND lease_owner = %s"


@dataclass(frozen=True, slots=True)
class Failure:
    """A refresh that failed.

    Attributes:
        state: What the connection is now: degraded or needs_reauth.
        again_in_s: When the clock tries again; None: never.
        unsettled: Nobody knows whether the vendor did it: its answer never came.
    """

    state: str
    code: str
    message: str
    again_in_s: float | None
    unsettled: bool


class Leases:
    """Takes, uses and gives back leases, each call in a transaction of its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(
        self, workspace: str, connection_id: str, version: int, owner: str, *, reason: str
    ) -> Connection | None:
        """Take the right to refresh for a step that needs it.

        Args:
            workspace: Whose.
            connection_id: Which.
            version: Of the credential that is not good any more.
            owner: Who refreshes; another one for each lease.
            reason: refused (by the vendor) or due.

        Returns:
            The row; None where it changed meanwhile, another holds the lease, the grant is dead, or
            a refresh failed just now.
        """
        async with connection(self._pool) as on:
            cursor = await on.execute(
                changing(
                    "workspace_id = %s AND id = %s AND credential_version = %s"
                    " AND state <> 'needs_reauth'"
                    " AND (lease_until IS NULL OR lease_until < now())"
                    " AND (refresh_failures = 0 OR refresh_at <= now()"
                    f" OR (last_error->>'at')::timestamptz < now() - interval '{ASKED_EVERY_S} s')",
                    _LEASING,
                ),
                (workspace, connection_id, version, owner, LEASE_S),
            )
            return await _noted(on, await cursor.fetchone(), reason)

    async def lease_due(self, owner: str, busy: Sequence[str], limit: int) -> list[Connection]:
        """Take the right to refresh connections whose time has come, the longest due first.

        Any number of processes may ask at the same time: none gets what another has.

        Args:
            owner: Who refreshes.
            busy: Providers that are to wait.
            limit: How many at most.
        """
        async with connection(self._pool) as on:
            cursor = await on.execute(
                changing(
                    "id = ANY(ARRAY(SELECT id FROM connections WHERE refresh_at <= now()"
                    " AND state <> 'needs_reauth' AND provider <> ALL(%s)"
                    " AND (lease_until IS NULL OR lease_until < now())"
                    " ORDER BY refresh_at LIMIT %s FOR UPDATE SKIP LOCKED))",
                    _LEASING,
                ),
                (list(busy), limit, owner, LEASE_S),
            )
            found = [await _noted(on, row, "due") for row in await cursor.fetchall()]
            return [row for row in found if row is not None]

    async def extend(self, held: Connection, owner: str) -> bool:
        """Begin the lease's time anew; False where it is no longer ours."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "UPDATE connections SET lease_until = now() + make_interval(secs => %s)"
                " WHERE workspace_id = %s AND id = %s AND credential_version = %s"
                " AND lease_owner = %s",
                (LEASE_S, held.workspace_id, held.id, held.credential_version, owner),
            )
            return cursor.rowcount == 1

    async def commit(
        self, held: Connection, owner: str, account: Account, credential: bytes
    ) -> Connection | None:
        """Store a refreshed credential; None where the lease or the version is no longer ours."""
        async with connection(self._pool) as on:
            cursor = await on.execute(
                changing(
                    _HELD,
                    "state = 'active', variables = %s, scopes = %s, credential = %s,"
                    " credential_version = c.credential_version + 1, expires_at = %s,"
                    " refresh_at = now() + make_interval(secs => %s), refresh_failures = 0,"
                    " unsettled_since = NULL, lease_owner = NULL, lease_until = NULL,"
                    " last_refresh_at = now(), last_error = NULL, updated_at = now()",
                ),
                (
                    *(held.workspace_id, held.id, held.credential_version, owner),
                    *(Jsonb(dict(account.variables)), list(account.scopes), credential),
                    *(account.expires_at, account.refresh_in_s),
                ),
            )
            return await _noted(on, await cursor.fetchone(), "refreshed")

    async def fail(self, held: Connection, owner: str, failure: Failure) -> Connection | None:
        """Note a failed refresh and give the lease back; None where it is no longer ours."""
        error = {"code": failure.code, "message": failure.message}
        async with connection(self._pool) as on:
            cursor = await on.execute(
                changing(
                    _HELD,
                    "state = %s, lease_owner = NULL, lease_until = NULL,"
                    " last_error = %s || jsonb_build_object('at', now()),"
                    " refresh_failures = c.refresh_failures + 1,"
                    " refresh_at = now() + make_interval(secs => %s),"
                    " unsettled_since = CASE WHEN %s THEN coalesce(c.unsettled_since, now())"
                    " ELSE c.unsettled_since END, updated_at = now()",
                ),
                (
                    *(held.workspace_id, held.id, held.credential_version, owner),
                    *(failure.state, Jsonb(error), failure.again_in_s, failure.unsettled),
                ),
            )
            return await _noted(on, await cursor.fetchone(), failure.code, failure.message)

    async def prove(self, held: Connection, credential: bytes) -> bool:
        """Note that the vendor accepts a credential and store it without the one before.

        Returns:
            False where it was changed meanwhile; nothing is stored then.
        """
        async with connection(self._pool) as on:
            cursor = await on.execute(
                "UPDATE connections SET credential = %s, proven_version = credential_version"
                " WHERE workspace_id = %s AND id = %s AND credential_version = %s"
                " AND credential = %s",
                (
                    *(credential, held.workspace_id, held.id, held.credential_version),
                    held.credential,
                ),
            )
            return cursor.rowcount == 1


async def _noted(
    on: Borrowed, row: TupleRow | None, reason: str, message: str = ""
) -> Connection | None:
    if row is None:
        return None
    before, found = with_before(row)
    await note(on, found, Change(before, found.state, reason, message))
    return found
