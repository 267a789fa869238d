"""How often one address or one account may try: counted in Redis, over all gateways together.

A window begins with the first try and ends by itself. While Redis is away each process counts for
itself: the limits still hold, but anew and for each process; Redis is asked again after `AWAY_S`.
Subjects are hashed: an e-mail address does not lie in Redis.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import redis.asyncio
import structlog

from schemas.settings import Secret

AWAY_S: Final = 5.0
ENTRIES_MAX: Final = 50_000
_TIMEOUT_S: Final = 0.25
_log = structlog.get_logger()

# Gives 0, or the seconds until the window ends.
_TAKE: Final = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if count <= tonumber(ARGV[1]) then return 0 end
return math.max(redis.call('TTL', KEYS[1]), 1)
"""
_GIVE_BACK: Final = """
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count > 0 then redis.call('DECR', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit.

    Attributes:
        name: Part of the key in Redis.
        most: Tries in a window.
        window_s: Its length in seconds.
    """

    name: str
    most: int
    window_s: int


@dataclass(slots=True)
class _Window:
    ends_s: float
    count: int = 0


class Throttle:
    """Counts tries.

    Args:
        url: Redis' address; empty: this process counts alone.
        monotonic: Seconds, for the windows that are counted here.
    """

    def __init__(self, url: Secret, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = (
            redis.asyncio.Redis.from_url(
                url.reveal(), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
            if url
            else None
        )
        self._monotonic = monotonic
        self._away_until = -math.inf
        self._here: OrderedDict[str, _Window] = OrderedDict()

    async def take(self, rule: Rule, *subject: str) -> int:
        """Count a try, before it is made: tries at the same time cannot slip through.

        Returns:
            0 where it may be made; else after how many seconds the next one may.
        """
        key = _key(rule, subject)
        found = await self._run(_TAKE, key, rule.most, rule.window_s)
        return self._take_here(rule, key) if found is None else found

    async def give_back(self, rule: Rule, *subject: str) -> None:
        """Uncount a try, since it was a good one."""
        key = _key(rule, subject)
        if await self._run(_GIVE_BACK, key) is None and key in self._here:
            window = self._here[key]
            window.count = max(window.count - 1, 0)

    async def clear(self, rule: Rule, *subject: str) -> None:
        """Forget all tries."""
        key = _key(rule, subject)
        self._here.pop(key, None)
        await self._run("return redis.call('DEL', KEYS[1])", key)

    async def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            await self._client.aclose()

    async def _run(self, script: str, key: str, *arguments: int) -> int | None:
        """Run a script; None where Redis is away."""
        if self._client is None or self._monotonic() < self._away_until:
            return None
        try:
            found = await self._client.register_script(script)(keys=[key], args=list(arguments))
        except (redis.RedisError, OSError) as error:
            self._away_until = self._monotonic() + AWAY_S
            _log.warning("throttle.redis_away", error=type(error).__name__)
            return None
        return cast("int", found)

    def _take_here(self, rule: Rule, key: str) -> int:
        now = self._monotonic()
        window = self._here.get(key)
        if window is None or window.ends_s <= now:
            window = self._here[key] = _Window(now + rule.window_s)
            self._here.move_to_end(key)
            if len(self._here) > ENTRIES_MAX:
                self._here.popitem(last=False)
        window.count += 1
        return 0 if window.count <= rule.most else math.ceil(window.ends_s - now)


def _key(rule: Rule, subject: tuple[str, ...]) -> str:
    name = hashlib.sha256("\x1f".join(subject).encode()).hexdigest()[:32]
    return f"nhood:try:{rule.name}:{name}"
