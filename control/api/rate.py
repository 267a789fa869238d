"""How often a workspace may ask the control API: counted in Redis, over all gateways together.

A sliding window: the last hour's share of the window before counts with what came in this one. The
headers: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/10/. While Redis is
away nobody is refused (a limit protects from a flood; being down is worse than one), and it is
asked again after `AWAY_S`. Events and webhooks are not counted here.
"""

import math
import re
import time
from dataclasses import dataclass
from typing import Final, cast

import redis.asyncio
import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.doors import Doors, Person
from schemas.errors import NeighbourhoodError, RateLimited
from schemas.settings import Secret
from wire.problems import answer

REQUESTS_MAX: Final = 5_000
WINDOW_S: Final = 3_600
AWAY_S: Final = 5.0
_TIMEOUT_S: Final = 0.25
_EVENTS = re.compile(r"/api/v1/workspaces/[^/]+/events/?")
_log = structlog.get_logger()

# Gives {allowed, requests left, seconds until there is more}, in one step.
_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local most, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local slot = math.floor(now / window)
local part = now / window - slot
local before = tonumber(redis.call('GET', KEYS[1] .. ':' .. (slot - 1)) or '0')
local here = KEYS[1] .. ':' .. slot
local count = tonumber(redis.call('GET', here) or '0')
local used = before * (1 - part) + count
if used + 1 > most then
  local wait = (1 - part) * window
  if before > 0 and count + 1 <= most then
    wait = math.min(wait, (1 - (most - 1 - count) / before - part) * window)
  end
  return {0, 0, math.ceil(math.max(wait, 1))}
end
redis.call('INCR', here)
redis.call('EXPIRE', here, math.ceil(2 * window))
return {1, math.floor(most - used - 1), math.ceil((1 - part) * window)}
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the window says.

    Attributes:
        left: Requests that are still free.
        seconds: Until more become free.
    """

    allowed: bool
    left: int
    seconds: int


class Window:
    """The counter in Redis.

    Args:
        url: Redis' address; empty: nobody is limited.
        most: Requests in a window.
        window_s: Its length in seconds.
    """

    def __init__(
        self, url: Secret, *, most: int = REQUESTS_MAX, window_s: float = WINDOW_S
    ) -> None:
        self._client = (
            redis.asyncio.Redis.from_url(
                url.reveal(), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
            if url
            else None
        )
        self._script = self._client.register_script(_SCRIPT) if self._client else None
        self.most = most
        self.window_s = window_s
        self._away_until = 0.0

    async def count(self, workspace: str) -> Verdict | None:
        """Count a request; None where Redis is away."""
        if self._script is None or time.monotonic() < self._away_until:
            return None
        try:
            found = await self._script(
                keys=[f"nhood:rate:{{{workspace}}}"], args=(self.most, self.window_s)
            )
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + AWAY_S
            _log.warning("rate.redis_away", error=type(error).__name__)
            return None
        allowed, left, seconds = cast("list[int]", found)
        return Verdict(bool(allowed), left, seconds)

    async def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            await self._client.aclose()


class RateLimit:
    """The middleware: counts what comes from somebody known.

    A person who asks for nothing of a workspace (their sessions, their workspaces) is counted by
    themselves; log-ins have limits of their own (`control.api.auth`).
    """

    def __init__(self, app: ASGIApp, doors: Doors, window: Window) -> None:
        self._app = app
        self._doors = doors
        self._window = window

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count, then hand the request on with the headers, or refuse it."""
        counted = await self._counted(scope)
        verdict = await self._window.count(counted) if counted is not None else None
        if verdict is None:
            await self._app(scope, receive, send)
            return
        kind = "person" if str(counted).startswith("per_") else "workspace"
        told = self._telling(kind, verdict, send)
        if verdict.allowed:
            await self._app(scope, receive, told)
            return
        minutes = math.ceil(verdict.seconds / 60)
        error = RateLimited(
            f"This {kind} has made {self._window.most} requests within an hour; the next one is"
            f" free in about {minutes} min. Webhooks and events are not counted.",
            retry_after_s=verdict.seconds,
        )
        await answer(error)(scope, receive, told)

    async def _counted(self, scope: Scope) -> str | None:
        """Say whose request this is; None where it is not counted."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            return None
        if scope["method"] == "POST" and _EVENTS.fullmatch(scope["path"]):
            return None
        try:
            found = await self._doors.who(scope)
        except NeighbourhoodError:
            return None  # the route says what is wrong with the credential
        return found.person_id if isinstance(found, Person) else found.workspace_id

    def _telling(self, kind: str, verdict: Verdict, send: Send) -> Send:
        policy = f'"{kind}";q={self._window.most};w={math.ceil(self._window.window_s)}'

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = policy
                headers["RateLimit"] = f'"{kind}";r={verdict.left};t={verdict.seconds}'
            await send(message)

        return told
