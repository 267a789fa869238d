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
from schemas.events import RequestStep

HELD_MAX_MS = 30_000  # spent waiting in process, in all; a longer wait is a timer
# A step with an order key waits in process however long: those behind it must not overtake it.
ORDERED_WAIT_MAX_MS = 15 * 60_000
WAIT_MAX_MS = 24 * 3_600_000  # between two attempts
TOTAL_MAX_MS = 72 * 3_600_000  # from the first attempt to the last


@dataclass(frozen=True, slots=True)
class Policy:
    """How a step wants to be tried.

    Attributes:
        max_attempts: Calls at most, the first included.
        delay_ms: Gap after the first attempt; doubles each time up to `max_delay_ms`.
        repeatable: Doing it twice does no harm (idempotent, or the vendor takes our key).
        on_unknown: retry or fail: what to do when nobody knows whether it happened.
        wait_max_ms: Longest gap.
    """

    max_attempts: int
    delay_ms: int
    max_delay_ms: int
    repeatable: bool
    on_unknown: str
    wait_max_ms: float = WAIT_MAX_MS


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after this many milliseconds."""

    wait_ms: int


def longest_wait_ms(command: RequestStep, began_us: int, now_us: int) -> float:
    """Say how long a step may wait for its next attempt: its order, its deadline, its age.

    Args:
        command: The step.
        began_us: When its first attempt began: UTC, microseconds.
        now_us: UTC, microseconds.
    """
    bound = WAIT_MAX_MS if command.order_key is None else ORDERED_WAIT_MAX_MS
    left_ms = (began_us - now_us) / 1_000 + TOTAL_MAX_MS
    if command.deadline_us is not None:
        left_ms = min(left_ms, (command.deadline_us - now_us) / 1_000)
    return min(bound, left_ms)


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
    return GiveUp("wait_too_long") if wait > policy.wait_max_ms else Again(int(wait))
