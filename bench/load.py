"""The load: sends webhooks over kept-alive connections, in a process of its own.

`python -m bench.load '{"port": 8080, "path": "/…", "phase": 1, "count": 9, "connections": 3}' OUT`
sends as fast as answers come; with `"rate": 50` at that steady rate whatever the answers do (open
loop: a slow answer does not slow the sender, so waiting is not hidden). Writes one JSON object:

    sent_ns      when each was sent; at a rate when each was due
    answered_ns  when its 202 came
    refused      {status: how many}
    cpu_s        what sending cost
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop

from bench.plain_http import ClientConnection, connect

HOST = "127.0.0.1"
ANSWER_TIMEOUT_S = 60
_ACCEPTED = 202


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be sent."""

    port: int
    path: str
    phase: int
    count: int
    connections: int
    rate: float = 0


@dataclass(slots=True)
class Result:
    """What came of it."""

    sent_ns: list[int]
    answered_ns: list[int]
    refused: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0


def event_body(phase: int, number: int) -> bytes:
    """Give the webhook's body; the mark stands in what both vendors are sent."""
    mark = f"nb{phase}x{number}"
    customer = {
        "name": f"Ada {mark}",
        "first_name": "Ada",
        "last_name": mark,
        "company": "Analytical Engines",
        "email": "ada@example.com",
    }
    return orjson.dumps({"customer": customer})


def request(job: Job, number: int) -> bytes:
    """Build one request."""
    body = event_body(job.phase, number)
    head = (
        f"POST {job.path} HTTP/1.1\r\nhost: {HOST}:{job.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Load:
    """Sends a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._requests = [request(job, number) for number in range(job.count)]
        self._result = Result([0] * job.count, [0] * job.count)

    async def run(self) -> Result:
        """Send everything and wait for every answer."""
        cpu = time.process_time()
        job = self._job
        lines = [await connect(HOST, job.port) for _ in range(job.connections)]
        if job.rate:
            await self._at_rate(lines)
        else:
            numbers = iter(range(job.count))
            await asyncio.gather(*(self._one_after_the_other(line, numbers) for line in lines))
        for line in lines:
            line.close()
        self._result.cpu_s = time.process_time() - cpu
        return self._result

    async def _one_after_the_other(self, line: ClientConnection, numbers: Iterator[int]) -> None:
        for number in numbers:
            self._result.sent_ns[number] = time.monotonic_ns()
            await self._send(line, number)

    async def _at_rate(self, lines: list[ClientConnection]) -> None:
        free: asyncio.Queue[ClientConnection] = asyncio.Queue()
        for line in lines:
            free.put_nowait(line)
        start = time.monotonic_ns() + 50_000_000
        async with asyncio.TaskGroup() as group:
            for number in range(self._job.count):
                due = start + int(number * 1e9 / self._job.rate)
                self._result.sent_ns[number] = due
                await asyncio.sleep(max(0, (due - time.monotonic_ns()) / 1e9))
                group.create_task(self._borrow_and_send(free, number))

    async def _borrow_and_send(self, free: "asyncio.Queue[ClientConnection]", number: int) -> None:
        line = await free.get()
        await self._send(line, number)
        free.put_nowait(line)

    async def _send(self, line: ClientConnection, number: int) -> None:
        status = await asyncio.wait_for(line.send(self._requests[number]), ANSWER_TIMEOUT_S)
        if status == _ACCEPTED:
            self._result.answered_ns[number] = time.monotonic_ns()
        else:
            self._result.refused[str(status)] += 1


if __name__ == "__main__":
    found = uvloop.run(Load(Job(**orjson.loads(sys.argv[1]))).run())
    Path(sys.argv[2]).write_bytes(orjson.dumps(found, default=dict))
