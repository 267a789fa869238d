"""Lets calls through to vendors at the pace they allow, and leaves alone who does not answer.

    gate = limits.gate(spec, action, credential)      one per connection and action, kept
    gate.passes()                                     the hot path: may it go now?
    await gate.wait(seconds)                          else: in line behind the others of this gate
    gate.learn(headers, …)   gate.ended(outcome)      what the answer says

Rates that a provider's file declares hold for the vendor's own hosts; the sandbox and places that
the operator named instead are paced by what they answer. Each process paces for itself: a
connection's steps mostly come to one, and what the vendor says is left counts the others' calls.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from executors.core.breaker import CONNECTION, SHARED, Breaker, Rule
from executors.core.bucket import Bucket
from executors.core.delay import parse_delay, vendor_now
from executors.core.outcome import Outcome, Throttled, Unavailable, Unknown
from schemas.provider import LimitSpec, ProviderSpec
from schemas.settings import Settings
from token_vault import endpoints
from wire.clock import rng
from wire.telemetry import BREAKER_CHANGES, BREAKERS_OPEN, LIMIT_WAITS

GATES_MAX: Final = 20_000
LOOK_EVERY_S: Final = 0.5  # a probe that came back, or a vendor that said more, is seen by then
_SERVER_FAULT: Final = 500
_LEVELS: Final = ("connection", "host", "provider")
_MAY_BE_FAULTS: Final = (Unavailable, Unknown)
_NONE: Final[list[Breaker]] = []
_MOST_SPECIFIC: Final = {"connection_action": 0, "connection": 1, "app": 2}


class Held(Protocol):
    """Which account a call is for (`token_vault.tokens.Credential`)."""

    @property
    def connection_id(self) -> str:
        """`conn_…`."""

    @property
    def mode(self) -> str:
        """`live` or `test`."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Of the account."""


class Gate:
    """Where the calls of one action with one connection pass.

    Attributes:
        buckets: The most specific one first; the first is blocked by a throttled call.
        breakers: Of the connection, the host and the provider.
    """

    __slots__ = (
        *("_clock", "_connection", "_learns", "_provider", "_timer", "_waiting"),
        *("breakers", "buckets"),
    )

    def __init__(
        self,
        provider: str,
        connection: str,
        buckets: list[Bucket],
        breakers: list[Breaker],
        learns: Sequence[tuple[Bucket, Mapping[str, str]]],
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._connection = connection
        self.buckets = buckets
        self.breakers = breakers
        self._learns = learns
        self._clock = clock
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits here."""
        return bool(self._waiting)

    def passes(self, *, first: bool = True) -> bool:
        """Let a call through now, if it may go.

        Args:
            first: The first request of an attempt; later ones ask the buckets only.
        """
        return not self._waiting and self._enter(first=first) == 0

    async def wait(self, seconds: float, *, first: bool = True) -> bool:
        """Let a call through when it may go, in the order of coming; False: the time was up."""
        turn = asyncio.get_running_loop().create_future()
        reason = "breaker" if first and self.is_broken() else "rate"
        LIMIT_WAITS.labels(provider=self._provider, reason=reason).inc()
        self._waiting.append((turn, first))
        if self._timer is None:
            self._serve()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                if isinstance(error, TimeoutError):
                    return True  # it came in the same moment
                self.cancelled()
            turn.cancel()
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def learn(self, headers: Mapping[str, str], received_at_s: float) -> None:
        """Take in what an answer's headers say of limits.

        Args:
            headers: Names in lower case.
            received_at_s: UTC, seconds since 1970.
        """
        for bucket, names in self._learns:
            left = headers.get(names.get("remaining", ""))
            most = headers.get(names.get("limit", ""))
            if left is None and most is None:
                continue
            remaining, limit = _number(left), _number(most)
            reset = None
            if remaining is not None and remaining <= 0 and "reset" in names:
                value = headers.get(names["reset"])
                now = vendor_now(headers, received_at_s)
                reset = parse_delay(value, "auto", now) if value is not None else None
            bucket.told(self._clock(), limit, remaining, reset)

    def ended(self, outcome: Outcome) -> None:
        """Take in how an attempt that passed ended."""
        kind = type(outcome)
        if kind is Throttled:
            self.throttled(outcome.retry_after_s)
        elif kind in _MAY_BE_FAULTS and _is_fault(outcome):
            self.failed()
        else:
            self.answered()

    def throttled(self, retry_after_s: float | None) -> None:
        """Note that the vendor asked to slow down; it answers, so no breaker minds."""
        now = self._clock()
        self.buckets[0].throttled(now, retry_after_s)
        for level, breaker in zip(_LEVELS, self.breakers, strict=True):
            self._told(level, breaker, lambda one: one.succeeded(now))

    def answered(self) -> None:
        """Note that the vendor answered."""
        self.buckets[0].penalty = 0.0
        now = self._clock()
        for place, breaker in enumerate(self.breakers):
            if breaker.state == "closed":
                breaker.succeeded(now)
            else:
                self._told(_LEVELS[place], breaker, lambda one: one.succeeded(now))

    def failed(self) -> None:
        """Note that there was no answer, or a fault of the server's."""
        now = self._clock()
        for level, breaker in zip(_LEVELS, self.breakers, strict=True):
            self._told(level, breaker, lambda one: one.failed(now, self._connection, rng.random()))

    def cancelled(self, *, sent: bool = True) -> None:
        """Note that a call that passed was given up before it told anything.

        Args:
            sent: Whether anything was sent; else the vendor did not count it.
        """
        if not sent:
            for bucket in self.buckets:
                bucket.give_back()
        for breaker in self.breakers:
            breaker.cancelled()

    def _enter(self, *, first: bool) -> float:
        """Count a call if it may go now; else say how long to wait."""
        now = self._clock()
        longest = 0.0
        for bucket in self.buckets:
            longest = max(longest, bucket.wait(now))
        not_closed = [b for b in self.breakers if b.state != "closed"] if first else _NONE
        for breaker in not_closed:
            longest = max(longest, breaker.wait(now))
        if longest > 0:
            return longest
        for bucket in self.buckets:
            bucket.take(now)
        for breaker in not_closed:
            breaker.take(now)
        return 0.0

    def seconds(self) -> float:
        """Say in how many seconds a call may go, as far as is known now."""
        now = self._clock()
        guards: list[Bucket | Breaker] = [*self.buckets, *self.breakers]
        return max(guard.wait(now) for guard in guards)

    def is_broken(self) -> bool:
        """Say whether a breaker is what one waits for."""
        now = self._clock()
        return any(breaker.wait(now) > 0 for breaker in self.breakers)

    def _serve(self) -> None:
        """Let those pass whose time has come, and look again when the next one's may have."""
        self._timer = None
        while self._waiting:
            turn, first = self._waiting[0]
            if not turn.done():
                wait = self._enter(first=first)
                if wait > 0:
                    delay = min(wait, LOOK_EVERY_S)
                    self._timer = asyncio.get_running_loop().call_later(delay, self._serve)
                    return
                turn.set_result(None)
            self._waiting.popleft()

    def _told(self, level: str, breaker: Breaker, tell: Callable[[Breaker], None]) -> None:
        before = breaker.state
        tell(breaker)
        after = breaker.state
        if after == before:
            return
        BREAKER_CHANGES.labels(provider=self._provider, level=level, state=after).inc()
        if after == "closed":
            BREAKERS_OPEN.labels(provider=self._provider, level=level).dec()
        elif before == "closed":
            BREAKERS_OPEN.labels(provider=self._provider, level=level).inc()


class Limits:
    """All gates of a process.

    Args:
        settings: For the places that vendors are reached at.
        clock: Seconds that only grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._gates: OrderedDict[tuple[str, str, str], Gate] = OrderedDict()
        # What no gate refers to any more is forgotten by itself.
        self._buckets: WeakValueDictionary[tuple[object, ...], Bucket] = WeakValueDictionary()
        self._breakers: WeakValueDictionary[tuple[str, ...], Breaker] = WeakValueDictionary()

    def gate(self, spec: ProviderSpec, action: str, held: Held) -> Gate:
        """Give the gate of an action with a connection.

        Args:
            spec: The provider.
            action: Its id; `proxy` for calls that are no action's.
            held: The connection.
        """
        key = (spec.slug, held.connection_id, action)
        found = self._gates.get(key)
        if found is not None:
            self._gates.move_to_end(key)
            return found
        made = self._gates[key] = self._make(spec, action, held)
        while len(self._gates) > GATES_MAX:
            oldest = next(iter(self._gates))
            if self._gates[oldest].is_busy:
                break
            del self._gates[oldest]
        return made

    def _make(self, spec: ProviderSpec, action: str, held: Held) -> Gate:
        base = endpoints.base_url(spec, held.mode, held.variables, self._settings)
        declared = not endpoints.is_own_host(base, spec, held.mode, self._settings)
        chosen = sorted(
            (
                (number, limit)
                for number, limit in enumerate(spec.limits)
                if not limit.actions or action in limit.actions
            ),
            key=lambda item: _MOST_SPECIFIC[item[1].key],
        )
        buckets, learns = [], []
        for number, limit in chosen:
            bucket = self._bucket(_key_of(spec, number, limit, action, held), limit, declared)
            buckets.append(bucket)
            if limit.headers:
                names = {what: name.lower() for what, name in limit.headers.items()}
                learns.append((bucket, names))
        if not buckets or chosen[0][1].key == "app":
            buckets.insert(0, self._bucket((spec.slug, held.connection_id), None, declared))
        host = urlsplit(base).netloc
        breakers = [
            self._breaker((spec.slug, held.mode, "connection", held.connection_id), CONNECTION),
            self._breaker((spec.slug, held.mode, "host", host), SHARED),
            self._breaker((spec.slug, held.mode), SHARED),
        ]
        return Gate(spec.slug, held.connection_id, buckets, breakers, learns, self._clock)

    def _bucket(
        self,
        key: tuple[object, ...],
        limit: LimitSpec | None,
        declared: bool,  # noqa: FBT001
    ) -> Bucket:
        found = self._buckets.get(key)
        if found is None:
            rate = limit.rate if limit is not None and declared else 0.0
            seconds = limit.per_seconds if limit is not None else 1.0
            burst = limit.burst if limit is not None else None
            found = Bucket.full(rate, seconds, burst, self._clock())
            self._buckets[key] = found
        return found

    def _breaker(self, key: tuple[str, ...], rule: Rule) -> Breaker:
        found = self._breakers.get(key)
        if found is None:
            found = self._breakers[key] = Breaker(rule)
        return found


def _key_of(
    spec: ProviderSpec, number: int, limit: LimitSpec, action: str, held: Held
) -> tuple[object, ...]:
    if limit.key == "app":
        return (spec.slug, number, held.mode)
    if limit.key == "connection":
        return (spec.slug, number, held.connection_id)
    return (spec.slug, number, held.connection_id, action)


def _is_fault(outcome: Outcome) -> bool:
    """Tell a server that is in trouble from one that is busy with the same record (409)."""
    status = outcome.status
    return status is None or status >= _SERVER_FAULT or outcome.code == "unreadable_answer"


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return None  # a list of windows says nothing of this one
    return number if math.isfinite(number) else None
