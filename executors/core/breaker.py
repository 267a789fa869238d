"""Circuit breakers: who does not answer is left alone for a while, then asked by one; pure.

    closed ── too many failures ─▶ open ── its time is up ─▶ half open ── probe succeeds ─▶ closed
                                     ▲                           │
                                     └────── probe fails ────────┘   twice as long, to OPEN_MAX_S

A failure is a call that ended without an answer or with a fault of the server's; an answer that
says no is a success here. Three kinds guard each call:

    connection   5 failures in a row: one account's server is down, or one account is broken
    host         half of 20 calls within 30 s, of two connections at least
    provider     the same, of all its hosts together

Two connections, so that one broken account never stops the others of its vendor. An open breaker
makes calls wait; whether a step gives up meanwhile is not its to say.

Times are seconds of a clock that only grows.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

OPEN_FIRST_S: Final = 5.0
OPEN_MAX_S: Final = 60.0
PROBE_S: Final = 60.0  # a probe of which nothing was heard is given up: its process may be gone
CALLERS_KEPT: Final = 2

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a breaker opens.

    Attributes:
        in_a_row: After so many failures without a success between them; 0: never for that.
        window_s: Length of a window.
        calls: Calls in a window before its failures count.
        share: Of its calls that failed.
        callers: Different connections that failed in it.
    """

    in_a_row: int = 0
    window_s: float = 30.0
    calls: int = 0
    share: float = 0.5
    callers: int = 1


CONNECTION: Final = Rule(in_a_row=5)
SHARED: Final = Rule(calls=20, callers=2)


@dataclass(slots=True, weakref_slot=True)
class Breaker:
    """One breaker.

    Attributes:
        open_until: While it is open.
        probing_until: While a probe is under way, 0: none is.
    """

    rule: Rule
    state: State = "closed"
    open_until: float = 0.0
    probing_until: float = 0.0
    _pause: float = 0.0
    _in_a_row: int = 0
    _since: float = 0.0
    _calls: int = 0
    _failures: int = 0
    _failed: set[str] = field(default_factory=set)

    def wait(self, now: float) -> float:
        """Say in how many seconds a call may be made, or asked for again; 0: now."""
        if self.state == "closed":
            return 0.0
        if self.state == "open":
            return max(self.open_until - now, 0.0)
        return max(self.probing_until - now, 0.0)

    def take(self, now: float) -> None:
        """Note a call that is made now, which `wait` allowed; an open one's is its probe."""
        if self.state != "closed":
            self.state = "half_open"
            self.probing_until = now + PROBE_S

    def succeeded(self, now: float) -> None:
        """Note a call that was answered."""
        if self.state == "closed":
            self._in_a_row = 0
            if now - self._since > self.rule.window_s:
                self._begin(now, keep_row=True)
            self._calls += 1
        elif self.state == "half_open":
            self.state = "closed"
            self._pause = 0.0
            self._begin(now)

    def failed(self, now: float, caller: str, roll: float) -> None:
        """Note a call that failed.

        Args:
            now: When.
            caller: The connection that it was for.
            roll: 0 up to 1: pauses differ by a tenth, so that processes do not probe together.
        """
        if self.state == "half_open":
            self._open(now, roll)
        elif self.state == "closed":
            if now - self._since > self.rule.window_s:
                self._begin(now, keep_row=True)
            self._in_a_row += 1
            self._calls += 1
            self._failures += 1
            if len(self._failed) < CALLERS_KEPT:
                self._failed.add(caller)
            if self._is_too_much():
                self._open(now, roll)

    def cancelled(self) -> None:
        """Note that a call was given up before it told anything."""
        if self.state == "half_open":
            self.state = "open"  # its time is up: the next one is the probe
            self.probing_until = 0.0

    def _is_too_much(self) -> bool:
        rule = self.rule
        if rule.in_a_row:
            return self._in_a_row >= rule.in_a_row
        return (
            self._calls >= rule.calls
            and self._failures >= rule.share * self._calls
            and len(self._failed) >= rule.callers
        )

    def _open(self, now: float, roll: float) -> None:
        self._pause = min(max(self._pause * 2, OPEN_FIRST_S), OPEN_MAX_S)
        self.state = "open"
        self.open_until = now + self._pause * (0.9 + 0.2 * roll)
        self.probing_until = 0.0
        self._begin(now)

    def _begin(self, now: float, *, keep_row: bool = False) -> None:
        self._since = now
        self._calls = self._failures = 0
        self._failed.clear()
        if not keep_row:
            self._in_a_row = 0
