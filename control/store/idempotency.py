"""Rows of `idempotency_keys`: who is answering a POST, and what was answered.

A row without a status is a claim. It is given up when the answer is no success, and after
`CLAIM_S` by whoever died holding it; an answer is kept for `KEPT_S`.
"""

from dataclasses import dataclass
from typing import Final

from control.store.query import Borrowed, row, run

CLAIM_S: Final = 60
KEPT_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Known:
    """The key was used before.

    Attributes:
        status: Of the answer; None while it is being made.
        answer: Sealed.
    """

    fingerprint: bytes
    status: int | None
    answer: bytes | None


async def claim(on: Borrowed, scope: str, key: str, fingerprint: bytes) -> Known | None:
    """Take the key for a request.

    Returns:
        None where it is ours now; else what is known of it.
    """
    while True:
        taken = await row(
            on,
            "INSERT INTO idempotency_keys AS k (scope, key, fingerprint)"
            " VALUES (%(scope)s, %(key)s, %(print)s) ON CONFLICT (scope, key) DO UPDATE"
            " SET fingerprint = excluded.fingerprint, status = NULL, answer = NULL,"
            " created_at = now() WHERE k.created_at < now() - %(kept)s * interval '1 second'"
            " OR (k.status IS NULL AND k.fingerprint = excluded.fingerprint"
            " AND k.created_at < now() - %(claim)s * interval '1 second') RETURNING 1 AS one",
            {
                "scope": scope,
                "key": key,
                "print": fingerprint,
                "kept": KEPT_S,
                "claim": CLAIM_S,
            },
        )
        if taken is not None:
            return None
        found = await row(
            on,
            "SELECT fingerprint, status, answer FROM idempotency_keys"
            " WHERE scope = %s AND key = %s",
            (scope, key),
        )
        if found is not None:  # else: given up between the two statements
            answer = None if found["answer"] is None else bytes(found["answer"])
            return Known(bytes(found["fingerprint"]), found["status"], answer)


async def keep(on: Borrowed, scope: str, key: str, status: int, answer: bytes) -> None:
    """Keep the answer."""
    await run(
        on,
        "UPDATE idempotency_keys SET status = %s, answer = %s WHERE scope = %s AND key = %s",
        (status, answer, scope, key),
    )


async def give_up(on: Borrowed, scope: str, key: str) -> None:
    """Let the key be used again: nothing was done."""
    await run(
        on,
        "DELETE FROM idempotency_keys WHERE scope = %s AND key = %s AND status IS NULL",
        (scope, key),
    )


async def forget_old(on: Borrowed) -> int:
    """Drop answers that nobody may ask for any more."""
    return await run(
        on,
        "DELETE FROM idempotency_keys WHERE created_at < now() - %s * interval '1 second'",
        (KEPT_S,),
    )
