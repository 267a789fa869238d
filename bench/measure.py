"""One load against one program: what was sent, what the vendors got and when."""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from bench.load import Job

CALLS_S = 120  # after the last answer, until the last vendor call
VENDORS = ("slack", "salesforce")
NS = 1e9


@dataclass(slots=True)
class Outcome:
    """What one load showed.

    Attributes:
        executions_per_s: From the first post to the last second call.
        accepted_per_s: From the first post to the last 202.
        latency_ms: From post (at a rate: from when it was due) to second call: p50, p95, p99, max.
        accept_ms: From post to 202, likewise.
        missing: Executions without a second call.
        repeated: Vendor calls beyond one for each execution and step.
        refused: Answers that were not 202, by status.
        load_cpu_s: What sending cost.
    """

    count: int
    executions_per_s: float = 0
    accepted_per_s: float = 0
    latency_ms: dict[str, float] = field(default_factory=dict)
    accept_ms: dict[str, float] = field(default_factory=dict)
    missing: int = 0
    repeated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    load_cpu_s: float = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything that was sent was taken and reached both vendors."""
        return self.missing == 0 and not self.refused


def percentiles(values: list[float]) -> dict[str, float]:
    """Give p50, p95, p99 and the largest, by the nearest rank; infinite where there is none."""
    found = sorted(values) or [float("inf")]
    ranks = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
    last = len(found) - 1
    return {name: round(found[min(last, int(len(found) * at))], 2) for name, at in ranks.items()}


async def drive(job: Job, double_url: str) -> Outcome:
    """Send a load and wait for its calls."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "sent.json"
        command = (sys.executable, "-m", "bench.load", orjson.dumps(asdict(job)).decode(), told)
        process = await asyncio.create_subprocess_exec(*command)
        if await process.wait() != 0:
            raise RuntimeError("the load could not be sent; its error stands above")
        sent = orjson.loads(told.read_bytes())
    async with httpx.AsyncClient(base_url=double_url, timeout=60) as client:
        await _wait_for_calls(client, job)
        calls = (await client.get("/__calls", params={"phase": job.phase})).json()
    return outcome(job, sent, calls)


async def _wait_for_calls(client: httpx.AsyncClient, job: Job) -> None:
    until = time.monotonic() + CALLS_S
    while time.monotonic() < until:
        counts = (await client.get("/__count", params={"phase": job.phase})).json()
        if all(counts[vendor] >= job.count for vendor in VENDORS):
            return
        await asyncio.sleep(0.1)


def outcome(job: Job, sent: dict[str, Any], calls: dict[str, dict[str, list[int]]]) -> Outcome:
    """Work out what a load showed, from what the sender and the double noted."""
    second = {int(number): times[0] for number, times in calls["salesforce"].items()}
    answered = {n: at for n, at in enumerate(sent["answered_ns"]) if at}
    start = min(sent["sent_ns"])
    found = Outcome(job.count)
    found.missing = sum(n not in second for n in range(job.count))
    counts = Counter(len(times) - 1 for vendor in VENDORS for times in calls[vendor].values())
    found.repeated = sum(extra * how_often for extra, how_often in counts.items())
    found.refused = sent["refused"]
    found.load_cpu_s = sent["cpu_s"]
    if second:
        found.executions_per_s = len(second) / ((max(second.values()) - start) / NS)
    if answered:
        found.accepted_per_s = len(answered) / ((max(answered.values()) - start) / NS)
    since = sent["sent_ns"]
    found.latency_ms = percentiles([(at - since[n]) / 1e6 for n, at in second.items()])
    found.accept_ms = percentiles([(at - since[n]) / 1e6 for n, at in answered.items()])
    return found
