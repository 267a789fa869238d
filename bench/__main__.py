"""`python -m bench`: the product and the floor in one run; see `--help`."""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import httpx
import orjson
import psutil

from bench import report as reports
from bench.load import Job
from bench.measure import Outcome, drive
from bench.processes import Child, free_port
from bench.stack import FINISH_S, PATH, Facts, Stack
from bench.watch import MemoryWatch, cpu_seconds, difference, memory_now

HOST = "127.0.0.1"
WARM_UP = 300
WARM_UP_STEADY = 20_000  # until the broker's second compiler has little left to do
SETTLE_S = 10  # between load and idling: compilers, garbage, commits
SOAK_PARTS = 8
READY_S = 30
FLOOR_STEADY_S = 5.0
CONNECTIONS_AT_RATE = 64


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the product.")
    parser.add_argument("-n", type=int, default=3_000, help="executions at full speed")
    parser.add_argument("--rate", type=float, default=50, help="posts a second, steady")
    parser.add_argument("--seconds", type=float, default=20, help="how long at that rate")
    parser.add_argument("--connections", type=int, default=32, help="senders at full speed")
    parser.add_argument("--idle", type=float, default=5, help="seconds of idling to measure")
    parser.add_argument(
        "--steady",
        action="store_true",
        help=f"as in a long run: the broker's second compiler, {WARM_UP_STEADY:,} to warm up",
    )
    parser.add_argument(
        "--soak", type=int, default=0, help="executions after all that, to watch memory over"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--targets", action="store_true", help="exit 2 where a target is missed")
    given = parser.parse_args()
    if not 0 <= given.soak <= 10_000_000:
        parser.error("--soak goes to 10,000,000")
    if not (1 <= given.n <= 1_000_000 and 0 < given.rate <= 5_000 and 0 < given.seconds <= 3_600):
        parser.error("-n goes to 1,000,000, --rate to 5,000, --seconds to 3,600")
    return given


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._double_port = free_port()
        self._double = f"http://{HOST}:{self._double_port}"
        self._phase = 0
        self._warm_up = WARM_UP_STEADY if options.steady else WARM_UP

    async def run(self) -> reports.Report:
        """Measure floor, product, floor."""
        double = Child.module("bench.double", self._double_port)
        try:
            _wait_for_port(self._double_port)
            _say("the floor: aiohttp, two calls, nothing kept")
            before = await self._floor()
            measured = await self._stack()
            _say("the floor again")
            measured.floors = [before, await self._floor()]
        finally:
            double.stop()
        return measured

    async def _floor(self) -> reports.Program:
        port = free_port()
        child = Child.module("bench.floor", port, self._double_port)
        try:
            _wait_for_port(port)
            processes = [psutil.Process(child.pid)]
            return await self._program(port, "/webhooks/ws", lambda: processes, FLOOR_STEADY_S)
        finally:
            child.stop()

    async def _program(
        self, port: int, path: str, processes: Callable[[], list[psutil.Process]], seconds: float
    ) -> reports.Program:
        await self._send(port, path, WARM_UP)
        start = cpu_seconds(processes())
        full = await self._send(port, path, self._options.n)
        middle = cpu_seconds(processes())
        steady = await self._send(port, path, int(self._options.rate * seconds), steady=True)
        end = cpu_seconds(processes())
        return reports.Program(
            full,
            steady,
            _per_1000(difference(start, middle), full.count),
            _per_1000(difference(middle, end), steady.count),
        )

    async def _send(self, port: int, path: str, count: int, *, steady: bool = False) -> Outcome:
        self._phase += 1
        connections = CONNECTIONS_AT_RATE if steady else self._options.connections
        rate = self._options.rate if steady else 0
        return await drive(Job(port, path, self._phase, count, connections, rate), self._double)

    async def _stack(self) -> reports.Report:
        stack = Stack(self._double, steady=self._options.steady)
        try:
            _say("nhood up (a folder and ports of its own)")
            await asyncio.to_thread(stack.start)
            await asyncio.to_thread(stack.prepare)
            return await self._product(stack)
        finally:
            _say("stopping the stack")
            await asyncio.to_thread(stack.stop)

    async def _product(self, stack: Stack) -> reports.Report:
        options = self._options
        path = f"/webhooks/{stack.workspace}{PATH}?user_id=customer_1"
        port = stack.gateway_port
        facts = Facts(stack.state.env["KAFKA_BOOTSTRAP_SERVERS"])
        steady_count = int(options.rate * options.seconds)
        with MemoryWatch(stack.processes) as memory:
            _say(f"warming up, then {options.n:,} executions as fast as they go")
            await self._send(port, path, self._warm_up)
            await self._settle(stack, facts, self._warm_up)
            start = cpu_seconds(stack.processes())
            full = await self._send(port, path, options.n)
            await self._settle(stack, facts, self._warm_up + options.n)
            middle = cpu_seconds(stack.processes())
            _say(f"{options.rate:g} posts a second for {options.seconds:g} s")
            steady = await self._send(port, path, steady_count, steady=True)
            expected = self._warm_up + options.n + steady_count
            await self._settle(stack, facts, expected)
            end = cpu_seconds(stack.processes())
            idle = await self._idle(stack)
            growth = await self._soak(stack, facts, path, expected)
            expected += options.soak
            read_side = await asyncio.to_thread(stack.statuses)
        facts.close()
        program = reports.Program(
            full,
            steady,
            _per_1000(difference(start, middle), full.count),
            _per_1000(difference(middle, end), steady.count),
        )
        return reports.Report(
            cores=psutil.cpu_count() or 1,
            rate=options.rate,
            floors=[],
            product=program,
            memory={**memory.peak.parts, "whole": memory.peak.whole},
            resident=memory.peak.resident,
            idle_cpu=idle,
            expected=expected,
            ended=dict(Counter(facts.ended.values())),
            read_side=dict(read_side),
            watch_cpu_s=memory.cpu_s,
            growth=growth,
        )

    async def _soak(
        self, stack: Stack, facts: Facts, path: str, before: int
    ) -> list[reports.Growth]:
        """Send the long run in equal parts and look at the memory after each."""
        found = []
        total = self._options.soak
        for part in range(SOAK_PARTS + 1 if total else 0):
            count = total * part // SOAK_PARTS - total * (part - 1) // SOAK_PARTS if part else 0
            sent = await self._send(stack.gateway_port, path, count) if count else Outcome(0)
            done = before + total * part // SOAK_PARTS
            await self._settle(stack, facts, done)
            _say(f"{done:,} executions")
            sizes = memory_now(stack.processes())[0]
            found.append(reports.Growth(done, sent.executions_per_s, sizes))
        return found

    async def _settle(self, stack: Stack, facts: Facts, count: int) -> None:
        """Wait until all executions have ended in the log, and the API shows the last of them."""
        await facts.wait_for(count, FINISH_S)
        await asyncio.to_thread(stack.wait_for_read_side, list(facts.last.values()))

    async def _idle(self, stack: Stack) -> dict[str, float]:
        """Give each part's share of one core while nothing happens."""
        seconds: float = self._options.idle
        if seconds <= 0:
            return {}
        _say(f"idling for {seconds:g} s")
        await asyncio.sleep(SETTLE_S)
        before = cpu_seconds(stack.processes())
        await asyncio.sleep(seconds)
        spent = difference(before, cpu_seconds(stack.processes()))
        return {part: used / seconds for part, used in spent.items()}


def _per_1000(parts: dict[str, float], count: int) -> dict[str, float]:
    return {part: round(seconds / count * 1000, 3) for part, seconds in parts.items()}


def _wait_for_port(port: int) -> None:
    until = time.monotonic() + READY_S
    while True:
        try:
            httpx.get(f"http://{HOST}:{port}/__count?phase=0", timeout=1)
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _say(sentence: str) -> None:
    print(f"… {sentence}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, and say by the exit code whether everything that was sent was done."""
    options = _options()
    measured = asyncio.run(Bench(options).run())
    print(reports.text(measured))
    if options.json:
        derived = {
            "ratio": measured.ratio,
            "is_whole": measured.is_whole,
            "misses": measured.misses,
        }
        document = asdict(measured) | derived
        options.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    if not measured.is_whole:
        print("NOT everything that was sent was done", file=sys.stderr)
        return 1
    return 2 if options.targets and measured.misses else 0


if __name__ == "__main__":
    sys.exit(main())
