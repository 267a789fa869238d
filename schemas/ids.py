"""Ids that say what they are: `ws_…`, `wf_…`, `ex_…`; made outside, checked here.

A new id is 48 bits of milliseconds and 80 random bits in Crockford base 32 (the ULID layout,
https://github.com/ulid/spec), so ids of one kind sort by the time they were made. Derived ids are a
hash of what caused them, so that doing the same thing twice gives the same id.
"""

import hashlib
import re
from typing import NewType

WorkspaceId = NewType("WorkspaceId", str)
WorkflowId = NewType("WorkflowId", str)
ExecutionId = NewType("ExecutionId", str)
EventId = NewType("EventId", str)
ConnectionId = NewType("ConnectionId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(
    r"^(ws|wf|ex|ev|conn|key|oac|rq|per|ses|inv|sig|cs|hook|rpl|fil|poll)_[0-9a-hjkmnp-tv-z]{26}$"
)


def _base32(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        digits.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(digits))


def new_id(kind: str, now_ms: int, randomness: bytes) -> str:
    """Build an id such as `ws_01jd…`.

    Args:
        kind: The prefix: ws, wf, ex, ev, conn, key, oac, rq, per, ses, inv, sig, cs, rpl, fil or
            poll.
        now_ms: UTC, milliseconds since 1970.
        randomness: At least 10 bytes from a secure source.
    """
    value = (now_ms << 80) | int.from_bytes(randomness[:10], "big")
    return f"{kind}_{_base32(value, 26)}"


def derived_id(kind: str, *causes: str | int) -> str:
    """Build the id that these causes always give (SHA-256, 130 bits kept)."""
    digest = hashlib.sha256("\x1f".join(str(cause) for cause in causes).encode()).digest()
    return f"{kind}_{_base32(int.from_bytes(digest[:17], 'big') >> 6, 26)}"


def is_id(kind: str, text: str) -> bool:
    """Say whether `text` is a well-formed id of this kind."""
    return text.startswith(f"{kind}_") and _ID.match(text) is not None


def execution_id(event_id: str, workflow_id: str, version: int, generation: int) -> ExecutionId:
    """Name the execution that an event starts: the same event never starts it twice.

    The recipe is the de-duplication key of the whole platform: it must never change.
    """
    return ExecutionId(derived_id("ex", event_id, workflow_id, version, generation))


def effect_key(workspace: str, root_event: str, version: str, step: str, loop_index: int) -> str:
    """Name an effect towards a vendor (design §2.3): the idempotency key and the ledger's key.

    Args:
        workspace: The workspace that owns the execution.
        root_event: Id of the event at the root of the execution, with its replay generation.
        version: Workflow id and version, `wf_…@3`.
        step: Step id.
        loop_index: Position inside a `for_each`, 0 outside.

    Returns:
        40 hexadecimal digits; redelivery, rebalance, crash and retry never change them.
    """
    text = "\x1f".join((workspace, root_event, version, step, str(loop_index)))
    return hashlib.sha256(text.encode()).hexdigest()[:40]
