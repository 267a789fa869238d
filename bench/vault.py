"""`python -m bench.vault`: what the vault costs, on a PostgreSQL of its own.

    cached      a credential out of memory
    uncached    out of the database: read, opened, shown
    refresh     connections that are all due: refreshed as fast as it goes by one process, whose
                CPU time, with an hour of looking for what is due, is held against that hour
    connect     consents from end to end against the sandbox, some at a time

Vendors are processes of their own, so this process's CPU time is the vault's and the clients'.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import structlog
import uvloop

from bench.measure import percentiles
from bench.processes import Child, free_port
from nhood.embedded import postgres
from nhood.embedded.server import stop
from schemas.settings import ProviderOverride, Secret, Settings
from token_vault.core.grants import Held
from token_vault.duties import REFRESH_EVERY_S
from token_vault.keeper import Keeper
from token_vault.key_file import create_key_file
from token_vault.oauth import Wish
from token_vault.scheduler import Scheduler
from token_vault.states import Terms
from token_vault.store import Account, Owner
from token_vault.vault import Vault
from wire.clock import mint, now
from wire.database import migrate, open_pool

SLUG = "zendesk"
SUBDOMAIN = {"subdomain": "acme"}
TARGETS = {
    "cached_us": 20.0,
    "uncached_p99_ms": 5.0,
    "refresh_core_part": 0.10,
    "connects_per_s": 100.0,
}
_HOUR_S = 3_600
_IDLE_S = 5.0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.vault", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000, help="that are due in an hour")
    parser.add_argument("--connects", type=int, default=500, help="consents from end to end")
    parser.add_argument("--at-a-time", type=int, default=16, help="consents under way")
    return parser.parse_args()


def cpu_s() -> float:
    """CPU seconds of this process, all threads."""
    return time.process_time()


class Bench:
    """One run."""

    def __init__(self, vault: Vault, options: argparse.Namespace, database: int) -> None:
        self._vault = vault
        self._keeper = Keeper(vault.pool, vault.sealer, vault.tokens)
        self._options = options
        self._database = psutil.Process(database)
        self._workspace = mint("ws")

    def owner(self, user: str, mode: str = "test") -> Owner:
        """Name an end customer."""
        return Owner(self._workspace, mode, SLUG, user, "")

    async def prepare(self) -> None:
        """Make the workspace."""
        async with self._vault.pool.connection() as on:
            await on.execute(
                "INSERT INTO workspaces (id, name, email, plan) VALUES (%s, 'B', 'b@b.de', 'free')",
                (self._workspace,),
            )

    async def store(self, user: str, mode: str = "live") -> None:
        """Store a connection that was never consented to."""
        end = now() + timedelta(hours=1)
        held = Held(Secret(mint("ev")), Secret(mint("ev")), now(), end, ("read", "write"))
        account = Account("oauth2", "1", "Acme", SUBDOMAIN, ("read", "write"), end)
        await self._keeper.store(self.owner(user, mode), account, held, Terms())

    async def cached(self) -> dict[str, float]:
        """Fetch a credential that is in memory."""
        await self.store("cached")
        fetch = self._fetch("cached")
        await fetch()
        count = 100_000
        begun = time.perf_counter_ns()
        for _ in range(count):
            await fetch()
        return {"cached_us": (time.perf_counter_ns() - begun) / count / 1_000}

    async def uncached(self) -> dict[str, float]:
        """Fetch one after the other out of the database."""
        fetch, times = self._fetch("cached"), []
        for _ in range(5_000):
            self._vault.tokens._cached.clear()
            begun = time.perf_counter_ns()
            await fetch()
            times.append((time.perf_counter_ns() - begun) / 1e6)
        found = percentiles(times)
        return {f"uncached_{name}_ms": found[name] for name in ("p50", "p99", "max")}

    def _fetch(self, user: str) -> Callable[[], Awaitable[Any]]:
        tokens, workspace = self._vault.tokens, self._workspace
        return lambda: tokens.resolve(workspace, "live", SLUG, user)

    async def refresh(self, double: str) -> dict[str, float]:
        """Refresh all that is due with one scheduler."""
        count = self._options.connections
        for number in range(count):
            await self.store(f"due{number}")
        async with self._vault.pool.connection() as on:
            await on.execute("UPDATE connections SET refresh_at = now() WHERE user_id LIKE 'due%%'")
        scheduler = Scheduler(self._vault.tokens)
        cpu, backend, begun = cpu_s(), self._database_cpu_s(), time.perf_counter()
        while await scheduler.turn():
            pass
        await scheduler.drain()
        took, cpu, backend = (
            time.perf_counter() - begun,
            cpu_s() - cpu,
            self._database_cpu_s() - backend,
        )
        idle = await self._idle(scheduler)
        async with httpx.AsyncClient() as client:
            came = (await client.get(f"{double}/count")).json()
        if came != count:
            raise RuntimeError(f"{count} connections were due and {came} refreshes came")
        hour = cpu / count * 10_000 + idle * _HOUR_S
        return {
            "refreshed": count,
            "refreshes_per_s": count / took,
            "refresh_cpu_ms_each": cpu / count * 1_000,
            "refresh_database_cpu_ms_each": backend / count * 1_000,
            "looking_core_part": idle,
            "refresh_core_part": hour / _HOUR_S,
        }

    async def _idle(self, scheduler: Scheduler) -> float:
        """Say which part of a core it takes to look for what is due."""
        cpu, until = cpu_s(), time.monotonic() + _IDLE_S
        while time.monotonic() < until:
            await scheduler.turn()
            await asyncio.sleep(REFRESH_EVERY_S)
        return (cpu_s() - cpu) / _IDLE_S

    def _database_cpu_s(self) -> float:
        processes = [self._database, *self._database.children(recursive=True)]
        return float(sum(sum(process.cpu_times()[:2]) for process in processes))

    async def connect(self, sandbox: int) -> dict[str, float]:
        """Connect accounts from end to end, some at a time."""
        count, vendor = self._options.connects, psutil.Process(sandbox)
        gate = asyncio.Semaphore(self._options.at_a_time)
        async with httpx.AsyncClient() as browser:

            async def one(number: int) -> None:
                async with gate:
                    await self._consent(browser, f"new{number}")

            await one(-1)
            cpu, theirs, begun = cpu_s(), sum(vendor.cpu_times()[:2]), time.perf_counter()
            await asyncio.gather(*(one(number) for number in range(count)))
            took = time.perf_counter() - begun
        return {
            "connects_per_s": count / took,
            "connect_cpu_ms_each": (cpu_s() - cpu) / count * 1_000,
            "connect_sandbox_cpu_ms_each": (sum(vendor.cpu_times()[:2]) - theirs) / count * 1_000,
        }

    async def _consent(self, browser: httpx.AsyncClient, user: str) -> None:
        oauth = self._vault.oauth
        offer = await oauth.auth_url(self.owner(user), Wish(variables=SUBDOMAIN))
        page = f"{offer.url}&sandbox_auto=allow&sandbox_account=Acme"
        back = urlsplit((await browser.get(page)).headers["location"]).query
        answer = {name: values[0] for name, values in parse_qs(back).items()}
        landing = await oauth.callback(SLUG, answer)
        if landing.connection is None:
            raise RuntimeError(f"a consent failed: {landing.error}")


async def measure(settings: Settings, options: argparse.Namespace, pids: dict[str, int]) -> None:
    """Run all parts and print them."""
    pool = await open_pool(settings.database_url.reveal(), max_size=10)
    vault = await Vault.open(settings, pool)
    bench = Bench(vault, options, pids["postgres"])
    await bench.prepare()
    found: dict[str, float] = {}
    token_url = settings.providers[SLUG].token_url or ""
    for name, part in (
        ("cached", bench.cached),
        ("uncached", bench.uncached),
        ("refresh", lambda: bench.refresh(token_url.removesuffix("/token"))),
        ("connect", lambda: bench.connect(pids["sandbox"])),
    ):
        print(f"… {name}", file=sys.stderr, flush=True)
        found |= await part()
    for name, value in found.items():
        target = TARGETS.get(name)
        print(f"{name:32} {value:12,.3f}" + (f"   (target {target:g})" if target else ""))
    await vault.close()
    await pool.close()


def _wait_for(url: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            httpx.get(url, timeout=1)
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def main() -> None:
    """Start what it takes, measure, end it."""
    options = _options()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    ports = {"sandbox": free_port(), "double": free_port()}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    with tempfile.TemporaryDirectory(prefix="nhood-bench-vault-") as path:
        folder = Path(path)
        folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
        env = {**os.environ, "NHOOD_STATE_DIR": path, "NHOOD_SANDBOX_PORT": str(ports["sandbox"])}
        sandbox = Child([sys.executable, "-m", "nhood", "serve", "sandbox"], env)
        double = Child.module("bench.token_double", ports["double"])
        database = postgres.start(folder, os.environ, port=free_port())
        try:
            migrate(database.address)
            create_key_file(folder / "master.key")
            _wait_for(f"{urls['sandbox']}/_sandbox/counts")
            _wait_for(f"{urls['double']}/count")
            override = ProviderOverride(
                token_url=f"{urls['double']}/token", client_id="c", client_secret=Secret("s")
            )
            settings = replace(
                Settings(),
                database_url=Secret(database.address),
                state_dir=path,
                sandbox_url=urls["sandbox"],
                providers={SLUG: override},
            )
            pids = {"postgres": database.pid, "sandbox": sandbox.pid}
            uvloop.run(measure(settings, options, pids))
        finally:
            stop(database, number=signal.SIGINT)
            for child in (sandbox, double):
                child.stop()


if __name__ == "__main__":
    main()
