"""How many calls a vendor takes, as token buckets that learn from its answers; pure.

A bucket holds `burst` tokens and gets `rate` more in `per_seconds`. What the vendor says goes
before what its file says: `remaining` is never more than it told, `limit` is its rate, and until
`reset` (or Retry-After) nothing is sent at all. A vendor that throttles without saying for how long
is left alone for a second, then two, four … up to `PENALTY_MAX_S`, until it takes a call again.

Times are seconds of a clock that only grows.
"""

from dataclasses import dataclass
from typing import Final

_WHOLE: Final = 1 - 1e-9  # a token, as sums of parts come out
PENALTY_FIRST_S: Final = 1.0
PENALTY_MAX_S: Final = 60.0
WAIT_MAX_S: Final = 24 * 3600.0  # what a vendor says beyond is asked again after a day
RAISED_MAX: Final = 20
"""A limit so many times what the file says is of another window (Zoom tells a day's at times)."""


@dataclass(slots=True, weakref_slot=True)
class Bucket:
    """One bucket.

    Attributes:
        declared: Calls in `per_seconds` as the provider's file says.
        rate: Calls in `per_seconds`; 0: as many as one likes, unless it is blocked.
        burst: Calls at once.
        tokens: Calls that may be made now, as of `at`.
        blocked_until: Nothing is sent before.
        penalty: The last pause that had to be guessed; 0 once a call was taken again.
    """

    declared: float
    rate: float
    per_seconds: float
    burst: float
    tokens: float
    at: float
    blocked_until: float = 0.0
    penalty: float = 0.0

    @classmethod
    def full(cls, rate: float, per_seconds: float, burst: float | None, now: float) -> "Bucket":
        """Make a full one; where the file tells no burst: a second's share, or a tenth."""
        size = max(1.0, *((rate / per_seconds, rate / 10) if burst is None else (burst,)))
        return cls(rate, rate, per_seconds, size, size, now)

    def wait(self, now: float) -> float:
        """Say in how many seconds a call may be made; 0: now."""
        if now < self.blocked_until:
            return self.blocked_until - now
        if self.rate <= 0:
            return 0.0
        if now > self.at:
            self._fill(now)
        return 0.0 if self.tokens >= _WHOLE else (1 - self.tokens) * self.per_seconds / self.rate

    def take(self, now: float) -> None:
        """Count a call that is made now."""
        if self.rate > 0:
            if now > self.at:
                self._fill(now)
            self.tokens -= 1

    def give_back(self) -> None:
        """Uncount a call that was not made after all."""
        self.tokens = min(self.burst, self.tokens + 1)

    def told(
        self, now: float, limit: float | None, remaining: float | None, reset_s: float | None
    ) -> None:
        """Take in what an answer's headers say.

        Args:
            now: When it came.
            limit: Calls in a window, as the vendor counts.
            remaining: Calls left in this window.
            reset_s: Seconds until the next window.
        """
        if limit is not None and self.rate > 0 and 1 <= limit <= RAISED_MAX * self.declared:
            self.rate = limit
        if remaining is None:
            return
        if now > self.at:
            self._fill(now)
        if remaining <= 0:
            self.tokens = min(self.tokens, 0.0)
            if reset_s is not None:
                self._block(now, reset_s)
        else:
            self.tokens = min(self.tokens, remaining)

    def throttled(self, now: float, retry_after_s: float | None) -> None:
        """Take in that a call was refused for its rate."""
        if retry_after_s is None:
            if now < self.blocked_until:
                return  # of the same moment: one guess is enough
            retry_after_s = self.penalty = min(
                max(self.penalty * 2, PENALTY_FIRST_S), PENALTY_MAX_S
            )
        self._block(now, retry_after_s)

    def _block(self, now: float, seconds: float) -> None:
        self.blocked_until = max(self.blocked_until, now + min(max(seconds, 0.0), WAIT_MAX_S))

    def _fill(self, now: float) -> None:
        tokens = self.tokens + (now - self.at) * self.rate / self.per_seconds
        self.tokens = tokens if tokens < self.burst else self.burst
        self.at = now
