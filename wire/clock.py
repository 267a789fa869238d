"""The only place that reads the clock and rolls dice."""

import os
import random
import time
from datetime import UTC, datetime

from schemas.ids import new_id

rng = random.SystemRandom()


def now_us() -> int:
    """UTC, in microseconds since 1970."""
    return time.time_ns() // 1000


def now_ms() -> int:
    """UTC, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def now() -> datetime:
    """UTC, timezone-aware."""
    return datetime.now(UTC)


def mint(kind: str) -> str:
    """Make a new id of this kind (`schemas.ids.new_id`) from the clock and the system's dice."""
    return new_id(kind, now_ms(), os.urandom(10))
