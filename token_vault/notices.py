"""Tells the developer's webhook once of each connection that has to be authorised again.

A signed POST (https://www.standardwebhooks.com) to the workspace's `webhook_url`, repeated with
growing pauses over three days until it is answered 2xx. `webhook-id` stays the same over repeats.
Workspaces without a `webhook_url` are told by `nhood.connections.v1` and the API only.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson
import structlog
from psycopg.rows import dict_row

from schemas.errors import NeighbourhoodError
from schemas.events import rfc3339
from schemas.settings import Secret
from token_vault.changes import micros
from token_vault.vault import Vault
from wire.clock import now_us, rng
from wire.database import connection
from wire.http import map_http_failure, open_client

TIMEOUT_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 64 * 1024
BATCH: Final = 10
# Pauses after each attempt, in seconds: as Standard Webhooks proposes; then it is given up.
PAUSES_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
# Another process takes over what one that died had begun.
_CLAIM_S: Final = 60
_TYPE: Final = "connection.needs_reauth"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_log = structlog.get_logger("vault")


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell.

    Attributes:
        attempt: From 1.
    """

    id: int
    workspace_id: str
    url: str | None
    body: bytes
    attempt: int


class Notices:
    """Sends what is due; any number of processes may.

    Args:
        vault: For the database and the workspaces' webhook secrets.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        is_production = vault.settings.is_production
        self._client = open_client(
            # A developer's own machine is told in development only.
            allow_private=lambda host, _port: not is_production and host.lower() in _LOOPBACK,
            read_timeout_s=TIMEOUT_S,
            answer_bytes_max=ANSWER_BYTES_MAX,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def turn(self) -> bool:
        """Send up to a batch of what is due; say whether there may be more.

        Raises:
            DependencyDown: The database is away.
        """
        notices = await self._claim()
        await asyncio.gather(*(self._tell(notice) for notice in notices))
        return len(notices) == BATCH

    async def _claim(self) -> list[Notice]:
        async with (
            connection(self._vault.pool) as on,
            on.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(
                "UPDATE connection_events e SET notify_attempts = notify_attempts + 1,"
                " notify_at = now() + make_interval(secs => %s) FROM workspaces w"
                " WHERE w.id = e.workspace_id AND e.id = ANY(ARRAY(SELECT id FROM connection_events"
                " WHERE notify_at <= now() ORDER BY notify_at LIMIT %s FOR UPDATE SKIP LOCKED))"
                " RETURNING e.*, w.webhook_url",
                (_CLAIM_S, BATCH),
            )
            return [_notice(row) for row in await cursor.fetchall()]

    async def _tell(self, notice: Notice) -> None:
        error = await self._post(notice) if notice.url else None
        given_up = error is not None and notice.attempt > len(PAUSES_S)
        again = None
        if error is not None and not given_up:
            again = PAUSES_S[notice.attempt - 1] * (1 + 0.1 * rng.random())
        if error is not None:
            _log.warning(
                "vault.notice_failed",
                workspace=notice.workspace_id,
                notice=notice.id,
                attempt=notice.attempt,
                reason=error,
                given_up=given_up,
            )
        async with connection(self._vault.pool) as on:
            await on.execute(
                "UPDATE connection_events SET notify_at = now() + make_interval(secs => %s),"
                " notify_error = %s, notified_at = CASE WHEN %s THEN now() END WHERE id = %s",
                (again, error, error is None and notice.url is not None, notice.id),
            )

    async def _post(self, notice: Notice) -> str | None:
        """Give why it failed, in one word; None: it is told."""
        try:
            secrets = await self._vault.webhook_secrets(notice.workspace_id)
            headers = sign(secrets, f"msg_connection_{notice.id}", now_us() // 1_000_000, notice)
            response = await self._client.post(
                notice.url or "", content=notice.body, headers=headers, timeout=TIMEOUT_S
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return map_http_failure(error)[1]
        except NeighbourhoodError as error:
            return error.code
        return None if response.is_success else f"http_{response.status_code}"


def sign(
    secrets: Sequence[Secret], message_id: str, timestamp: int, notice: Notice
) -> dict[str, str]:
    """Give the headers that prove who sent it; one signature for each living secret.

    Args:
        secrets: `whsec_…`, newest first.
        message_id: The same over all repeats.
        timestamp: Seconds since 1970.
        notice: Its body is signed.
    """
    signed = f"{message_id}.{timestamp}.".encode() + notice.body
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.reveal().removeprefix("whsec_"))
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        signatures.append(f"v1,{base64.b64encode(digest).decode()}")
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _notice(row: dict[str, Any]) -> Notice:
    body = {
        "type": _TYPE,
        "timestamp": rfc3339(micros(row["at"])),
        "data": {
            "event_id": row["id"],
            "workspace_id": row["workspace_id"],
            "connection_id": row["connection_id"],
            "mode": row["mode"],
            "provider": row["provider"],
            "user_id": row["user_id"],
            "label": row["label"],
            "reason": row["reason"],
            "message": row["message"],
        },
    }
    return Notice(
        id=row["id"],
        workspace_id=row["workspace_id"],
        url=row["webhook_url"],
        body=orjson.dumps(body),
        attempt=row["notify_attempts"],
    )
