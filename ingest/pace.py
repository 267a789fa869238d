"""How many events a workspace may send: 100 a second, 6,000 at once; over all gateways together.

One token bucket per workspace in Redis. A process takes tokens in blocks and hands them out from
memory, so most events ask nobody; a block that is not used up is kept for the next event. While
Redis is away each process counts for itself with a bucket of its own: nobody is refused for the
outage, and the limit holds for each process. A call is taken whole or refused whole, always before
anything is written: what was answered 2xx is never dropped for it.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

import redis.asyncio
import structlog

from schemas.errors import RateLimited
from schemas.settings import Secret

RATE: Final = 100.0
BURST: Final = 6_000
BLOCK: Final = 20
AWAY_S: Final = 5.0
ENTRIES_MAX: Final = 20_000
_TIMEOUT_S: Final = 0.25
_log = structlog.get_logger()

# Takes what is needed and a block beyond, if both are there. Gives {tokens taken, milliseconds
# until what is needed is there}.
_TAKE: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + tonumber(clock[2]) / 1000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local need, block = tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(kept[1] or burst)
local at = tonumber(kept[2] or now)
tokens = math.min(burst, tokens + math.max(now - at, 0) * rate / 1000)
local taken = 0
if tokens >= need + block then taken = need + block elseif tokens >= need then taken = need end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - taken), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return {taken, math.ceil(math.max(need - tokens, 0) * 1000 / rate)}
"""


# Lets so many events of a workspace in, or raises `RateLimited`; nothing was written by then.
Admit = Callable[[str, int], Awaitable[None]]


async def everybody(_workspace: str, _events: int) -> None:
    """Let everybody in."""


@dataclass(slots=True)
class _Here:
    """What this process has of one workspace.

    Attributes:
        block: Tokens taken from Redis and not used yet.
        tokens, at: Its own bucket, for when Redis is away; the time is the process' own.
    """

    block: int = 0
    tokens: float = BURST
    at: float = 0.0


class Pace:
    """The limit of all workspaces.

    Args:
        url: Redis' address; empty: this process counts alone.
        monotonic: Seconds.
        rate: Tokens a second.
        burst: Tokens at once.
    """

    def __init__(
        self,
        url: Secret,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        rate: float = RATE,
        burst: int = BURST,
    ) -> None:
        self._client = (
            redis.asyncio.Redis.from_url(
                url.reveal(), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
            if url
            else None
        )
        self._script = self._client.register_script(_TAKE) if self._client else None
        self._monotonic = monotonic
        self._rate = rate
        self._burst = burst
        self._away_until = -math.inf
        self._known: OrderedDict[str, _Here] = OrderedDict()

    async def require(self, workspace: str, events: int = 1) -> None:
        """Count events in, before they are written.

        Args:
            workspace: A workspace that exists.
            events: Of this call.

        Raises:
            RateLimited: `event_rate_exceeded`; none of them may be written.
        """
        here = self._known.get(workspace)
        if here is None:
            here = self._known[workspace] = _Here(tokens=self._burst, at=self._monotonic())
            if len(self._known) > ENTRIES_MAX:
                self._known.popitem(last=False)
        if here.block >= events:
            here.block -= events
            return
        wait_ms = await self._take(workspace, here, events)
        if wait_ms > 0:
            raise self._exceeded(wait_ms)

    async def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            await self._client.aclose()

    async def _take(self, workspace: str, here: _Here, events: int) -> int:
        """Take tokens; how many milliseconds they are away where there are too few."""
        if self._script is None or self._monotonic() < self._away_until:
            return self._take_here(here, events)
        need, here.block = events - here.block, 0  # so that nobody uses them meanwhile
        try:
            found = await self._script(
                keys=[f"nhood:pace:{{{workspace}}}"], args=[self._rate, self._burst, need, BLOCK]
            )
        except (redis.RedisError, OSError) as error:
            self._away_until = self._monotonic() + AWAY_S
            _log.warning("pace.redis_away", error=type(error).__name__)
            here.block += events - need
            return self._take_here(here, events)
        taken, wait_ms = cast("list[int]", found)
        here.block += taken - need if taken else events - need
        return 0 if taken else max(wait_ms, 1)

    def _take_here(self, here: _Here, events: int) -> int:
        now = self._monotonic()
        here.tokens = min(self._burst, here.tokens + (now - here.at) * self._rate)
        here.at = now
        if here.tokens >= events:
            here.tokens -= events
            return 0
        return math.ceil((events - here.tokens) * 1000 / self._rate)

    def _exceeded(self, wait_ms: int) -> RateLimited:
        seconds = max(math.ceil(wait_ms / 1000), 1)
        return RateLimited(
            f"This workspace sends more than {self._rate:.0f} events a second and has used up its"
            f" burst of {self._burst}; send this again in {seconds} s. Nothing of it was taken.",
            retry_after_s=seconds,
            code="event_rate_exceeded",
            headers={
                "RateLimit-Policy": f'"events";q={self._burst};w={self._burst / self._rate:.0f}',
                "RateLimit": f'"events";r=0;t={seconds}',
            },
        )
