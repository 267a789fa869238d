"""How long to wait so that no more than so many things a second are done; pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate since a moment.

    Attributes:
        rate_per_s: Things a second, from 1.
        begun_s: When the first one was done, by any clock that only goes on.
    """

    rate_per_s: int
    begun_s: float

    def wait_s(self, done: int, now_s: float) -> float:
        """Say how long to wait before the next one, `done` of them done by `now_s`; seconds."""
        return max(0.0, self.begun_s + done / self.rate_per_s - now_s)
