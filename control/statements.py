"""Issues a signed statement per workspace and hour: what became of each event that was accepted.

An hour is dealt with once it is over for `SETTLE_S` and the watch has passed its end. One
transaction an hour: a process that dies leaves nothing half done, and the next goes on there. An
hour in which a workspace had no event gets no statement; the next one begins where the last ended.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control.core.completeness import Ranges
from control.core.statements import FORMAT, OUTCOMES, encode_body, hash_of, key_id
from control.signing import RootSealer
from control.store import completeness, statements
from control.store.query import Borrowed
from schemas.errors import SecretUnavailable
from schemas.settings import Secret
from schemas.topics import EVENTS
from wire.bus import Log
from wire.database import Pool, connection

HOUR: Final = timedelta(hours=1)
# What was accepted at the end of an hour has this long to get its outcome, and the watch to pass.
SETTLE_S: Final = 180
HOURS_AT_A_TIME: Final = 24
_FIELD: Final = "statement_key"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs."""

    name: str
    private: Ed25519PrivateKey
    public: bytes


@dataclass(frozen=True, slots=True)
class Ports:
    """What issuing needs of the world."""

    pool: Pool
    log: Log
    sealer: RootSealer


async def issue(ports: Ports, at: datetime) -> int:
    """Issue what is due.

    Args:
        ports: The world.
        at: The time, UTC.

    Returns:
        How many statements were issued.

    Raises:
        DependencyDown: Kafka or Postgres is away; nothing of the hour under way is kept.
        SecretUnavailable: The vault cannot seal.
    """
    issued = 0
    for _ in range(HOURS_AT_A_TIME):
        count = await _one_hour(ports, at)
        if count is None:
            break
        issued += count
    return issued


async def _one_hour(ports: Ports, at: datetime) -> int | None:
    """Deal with the next hour; None where none is due."""
    async with connection(ports.pool) as on:
        if not await statements.take_turn(on) or not await completeness.share_tables(on):
            return None
        known = await statements.last_hour(on)
        if known is None:
            # The first statements tell of all that the log has until the end of this hour.
            begin = at.replace(minute=0, second=0, microsecond=0)
            bounds = await ports.log.bounds(EVENTS)
            await statements.add_hour(on, begin, {n: low for n, (low, _) in bounds.items()})
            return None
        ended, ends = known
        end = ended + HOUR
        if at < end + timedelta(seconds=SETTLE_S):
            return None
        until = await ports.log.offsets_at(EVENTS, int(end.timestamp() * 1000))
        until = {n: max(offset, ends.get(n, 0)) for n, offset in until.items()}
        passed = await completeness.positions(on)
        if any(passed.get(n, 0) < offset for n, offset in until.items()):
            return None
        ranges = {n: (ends.get(n, 0), offset) for n, offset in until.items()}
        owners = await statements.workspaces(on, ranges)
        signer = await _signer(ports.sealer, on) if owners else None
        for workspace in owners:
            assert signer is not None  # noqa: S101 - there is one where there is an owner
            await _state(on, workspace, signer, (end, ranges), at)
        await statements.add_hour(on, end, until)
    if owners:
        _log.info("statements.issued", hour=end.isoformat(), count=len(owners))
    return len(owners)


async def _state(
    on: Borrowed,
    workspace: str,
    signer: Signer,
    hour: tuple[datetime, Ranges],
    at: datetime,
) -> None:
    end, ranges = hour
    before = await statements.last(on, workspace)
    ranges = _since(ranges, before)
    lost = await statements.lost(on, ranges, workspace)
    outcomes = await completeness.outcomes(on, ranges, workspace)
    kinds = {kind: outcomes.get(kind, 0) for kind in OUTCOMES}
    body = encode_body(
        {
            "format": FORMAT,
            "workspace_id": workspace,
            "sequence": before["sequence"] + 1 if before else 1,
            "previous": hash_of(bytes(before["body"])) if before else None,
            "until": end.isoformat(),
            "issued_at": at.isoformat(),
            "topic": EVENTS,
            "offsets": [
                {"partition": n, "first": first, "end": last}
                for n, (first, last) in sorted(ranges.items())
            ],
            "counts": {
                "accepted": sum(outcomes.values()) + len(lost),
                **kinds,
                "without_outcome": len(lost),
            },
            "executions": await completeness.ends(on, ranges, workspace),
            "lost": [f"{item['partition']}:{item['offset']}" for item in lost],
            "outcomes_sha256": await completeness.digest(on, ranges, workspace),
            "key_id": signer.name,
        }
    )
    values = {
        "sequence": before["sequence"] + 1 if before else 1,
        "hour": end,
        "body": body,
        "signature": signer.private.sign(body),
        "key_id": signer.name,
    }
    await statements.insert(on, workspace, values)


def _since(ranges: Ranges, before: Mapping[str, Any] | None) -> Ranges:
    """Begin where the statement before ended, so that no offset is left out between the two."""
    if before is None:
        return ranges
    told = orjson.loads(bytes(before["body"]))["offsets"]
    ended = {part["partition"]: part["end"] for part in told}
    return {n: (min(ended.get(n, first), end), end) for n, (first, end) in ranges.items()}


async def _signer(sealer: RootSealer, on: Borrowed) -> Signer:
    """Open the newest key, or make one: also where the vault's root is another by now."""
    for row in await statements.keys(on):
        try:
            text = await sealer.open_own(f"{_FIELD}/{row['id']}", bytes(row["sealed"]))
        except SecretUnavailable as error:
            _log.warning("statements.key_does_not_open", key=row["id"], code=error.code)
            continue
        private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.reveal()))
        return Signer(row["id"], private, bytes(row["public_key"]))
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    name = key_id(public)
    secret = Secret(base64.b64encode(private.private_bytes_raw()).decode())
    await statements.add_key(on, name, await sealer.seal_own(f"{_FIELD}/{name}", secret), public)
    _log.info("statements.key_made", key=name)
    return Signer(name, private, public)
