"""Slack, which takes no keys, and Stripe, which does, in bad weather."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import httpx
import orjson

from tests.sim.dice import Dice
from tests.sim.loop import alive
from wire.calls import Answer

_FAULTS = ("429", "503", "reset", "lost", "hang", "hang_done", "cut", "html")
_TOO_LONG_S = 60.0


@dataclass
class Seen:
    """What a vendor knows of one thing that it was asked to do.

    Attributes:
        done: When it was done, seconds.
        calls: When it was asked.
        keys: Keys that it was asked under.
        unsure: How often it was done, or may have been, and the answer was lost.
    """

    done: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    unsure: int = 0


class Vendors:
    """The port that `wire.calls.Calls` is.

    Args:
        dice: Chance.
        weather: In how many of a hundred calls something goes wrong.
    """

    def __init__(self, dice: Dice, weather: int) -> None:
        self.weather = weather
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self._dice = dice
        self._answers: dict[str, Answer] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> Answer:
        """See `Calls.send`."""
        await self._dice.pause(0.05)
        alive()
        key = headers.get("Idempotency-Key") or headers.get("idempotency-key")
        name = _name(content or b"")
        seen = self.seen[name]
        seen.calls.append(asyncio.get_running_loop().time())
        if key is not None:
            seen.keys.add(key)
        fault = self._dice.one_of(_FAULTS) if self._dice.below(100) < self.weather else ""
        if fault in ("429", "503"):
            return Answer(int(fault), {"retry-after": "1"}, b"{}")
        if fault == "reset":
            raise httpx.ConnectError("reset before")
        if fault == "hang":
            await asyncio.sleep(_TOO_LONG_S)
        answer = self._do(name, key, seen)
        if fault:
            seen.unsure += 1
        await self._dice.pause(0.05)
        if fault == "hang_done":
            await asyncio.sleep(_TOO_LONG_S)
        if fault == "lost":
            raise httpx.ReadError("reset after")
        if fault == "cut":
            return Answer(200, {"content-type": "application/json"}, answer.content[:10])
        if fault == "html":
            return Answer(200, {"content-type": "text/html"}, b"<html>busy</html>")
        return answer

    def _do(self, name: str, key: str | None, seen: Seen) -> Answer:
        if key is not None and key in self._answers:
            return self._answers[key]
        seen.done.append(asyncio.get_running_loop().time())
        number = len(self.seen)
        if key is None:
            body = {"ok": True, "channel": "C1", "ts": f"{number}.{len(seen.done)}",
                    "message": {"text": name}}  # fmt: skip
            return Answer(200, {"content-type": "application/json"}, orjson.dumps(body))
        made = {"id": f"cus_{number}", "object": "customer", "name": name}
        answer = Answer(200, {"content-type": "application/json"}, orjson.dumps(made))
        self._answers[key] = answer
        return answer


def _name(content: bytes) -> str:
    """Say what is asked for: each step of each execution has a text of its own."""
    if content.startswith(b"{"):
        return str(orjson.loads(content)["text"])
    return parse_qs(content.decode())["name"][0]
