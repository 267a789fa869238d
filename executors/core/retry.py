"""Whether and when an attempt is followed by another: a decision as a value."""

from collections.abc import Callable
from dataclasses import dataclass

from executors.core.outcome import (
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unauthorised,
    Unavailable,
    Unknown,
)

WAIT_MAX_MS = 15 * 60_000  # longest gap spent in process; what waits holds no connection


@dataclass(frozen=True, slots=True)
class Policy:
    """How a step wants to be tried.

    Attributes:
        max_attempts: Calls at most, the first included.
        delay_ms: Gap after the first attempt; doubles each time up to `max_delay_ms`.
        repeatable: Doing it twice does no harm (idempotent, or the vendor takes our key).
        on_unknown: retry or fail: what to do when nobody knows whether it happened.
    """

    max_attempts: int
    delay_ms: int
    max_delay_ms: int
    repeatable: bool
    on_unknown: str


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after this many milliseconds."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave it; `reason` is empty where the outcome speaks for itself."""

    reason: str = ""


def decide(
    policy: Policy, attempt: int, outcome: Outcome, rng: Callable[[], float]
) -> Again | GiveUp:
    """Say what follows an attempt; never raises.

    With 500 ms and no jitter the gaps are 500, 1,000, 2,000, 4,000 ms, up to `max_delay_ms`.

    Args:
        policy: How the step wants to be tried.
        attempt: Attempts already made, from 1.
        outcome: How the last one ended.
        rng: Gives a number from 0 up to 1: half of the gap is jitter.

    Returns:
        Again, not before the vendor's Retry-After (RFC 9110 §10.2.3) where it gave one.
    """
    match outcome:
        case Succeeded() | Rejected() | Unauthorised():
            return GiveUp()
        case Unknown() if not policy.repeatable and policy.on_unknown != "retry":
            return GiveUp("on_unknown")
        case Throttled() | Unavailable() | Unknown():
            pass
    if attempt >= policy.max_attempts:
        return GiveUp("attempts")
    gap = min(policy.delay_ms * 2 ** (attempt - 1), policy.max_delay_ms)
    wait = gap / 2 + gap / 2 * rng()
    hint = outcome.retry_after_s
    if hint is not None:
        # A little later than asked, so that callers who were told the same do not come at once.
        wait = max(wait, hint * 1000 * (1 + 0.05 * rng()))
    return GiveUp("wait_too_long") if wait > WAIT_MAX_MS else Again(int(wait))
