"""People who use the whole gateway over real HTTP, on PostgreSQL and Valkey."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import redis.asyncio

from control.api.rate import Window
from control.app import build_ports
from control.ports import Ports
from executors.proxy.calls import Proxy
from executors.runtime.limits import Limits
from ingest.app import IngestPorts
from ingest.directory import Directory
from nhood.gateway import Parts, build_app, hook_ports
from schemas.provider import load_catalogue
from schemas.settings import Secret, Settings
from token_vault.vault import Vault
from wire.bus import MemoryBus
from wire.clock import mint, now, now_us
from wire.database import open_pool
from wire.http import open_client
from wire.serving import bind, build_server

PASSWORD = "plum orbit kettle fjord"
AUTH = "/api/v1/auth"
V1 = "/api/v1/workspaces"


@dataclass
class Clock:
    """The time of sessions; can be put forward."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead

    def forward(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@dataclass
class Gateway:
    """One gateway process, as far as its clients can tell."""

    url: str
    ports: Ports
    bus: MemoryBus
    app: Any
    clock: Clock
    client: httpx.AsyncClient = field(repr=False)

    async def register(self, **more: Any) -> "Visitor":
        """Make a person and log them in."""
        email = more.pop("email", f"{mint('ev')}@acme.example")
        headers = more.pop("headers", {})
        body = {"email": email, "password": PASSWORD, "name": "Ada"} | more
        answer = await self.client.post(f"{AUTH}/register", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return Visitor(self, email, answer.json())

    async def login(self, email: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
        body = {"email": email, "password": password} | more
        return await self.client.post(f"{AUTH}/login", json=body)

    async def refresh(self, token: str) -> httpx.Response:
        return await self.client.post(f"{AUTH}/refresh", json={"refresh_token": token})

    async def with_key(self, key: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} | more.pop("headers", {})
        return await self.client.request(method, path, headers=headers, **more)

    async def sql(self, query: str, *values: Any) -> list[Any]:
        async with self.ports.pool.connection() as on:
            cursor = await on.execute(query, values)
            return await cursor.fetchall() if cursor.description else []


@dataclass
class Visitor:
    """Somebody who is logged in."""

    gateway: Gateway
    email: str
    tokens: dict[str, Any]

    @property
    def id(self) -> str:
        return self.tokens["person"]["person_id"]

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.gateway.with_key(self.tokens["access_token"], method, path, **more)

    async def refresh(self) -> httpx.Response:
        """Refresh, and use the new tokens from now on."""
        answer = await self.gateway.refresh(self.tokens["refresh_token"])
        if answer.status_code == 200:
            self.tokens |= answer.json()
        return answer

    async def make_workspace(self) -> dict[str, str]:
        body = {"name": "Acme", "email": self.email, "plan": "free"}
        answer = await self.call("POST", V1, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def join(self, workspace: str, role: str) -> None:
        """Become a member, whatever one was."""
        await self.gateway.sql(
            "INSERT INTO memberships (workspace_id, person_id, role) VALUES (%s, %s, %s)"
            " ON CONFLICT (workspace_id, person_id) DO UPDATE SET role = excluded.role",
            workspace,
            self.id,
            role,
        )
        self.gateway.ports.sessions.forget()


async def refused_within(ask: Callable[[], Awaitable[httpx.Response]], seconds: float) -> None:
    """Ask until it is refused; no request that began later than the bound may be answered."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        if (await ask()).status_code == 401:
            return
        assert asked - began <= seconds, f"still let in after {asked - began:.2f} s"


class NoListeners:
    """Stands for the definitions that ingest follows: nothing listens."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nothing here needs {name}")


@contextlib.asynccontextmanager
async def running_gateway(settings: Settings, **limits: Any) -> AsyncIterator[Gateway]:
    """Serve the gateway's app on a free port; the log is in memory."""
    pool = await open_pool(settings.database_url.reveal(), max_size=8)
    catalogue = load_catalogue()
    listening = bind("127.0.0.1", 0, "")
    settings = replace(settings, port=listening.getsockname()[1])
    vault = await Vault.open(settings, pool, catalogue)
    bus = MemoryBus({"nhood.events.v1": 3, "nhood.definitions.v1": 1, "nhood.executions.v1": 3})
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    ports = build_ports(settings, pool, bus, bus, catalogue, vault, vault.subscriptions)
    clock = Clock()
    ports.sessions.clock = clock
    client_out = open_client()
    ingest = IngestPorts(
        bus,
        Directory(vault.webhook_secrets, now_us),
        NoListeners(),
        ports.doors.caller,
        hooks=hook_ports(ports, client_out),
    )
    window = Window(settings.redis_url, **limits)

    async def is_ready() -> dict[str, bool]:
        return {}

    proxy = Proxy(vault, Limits(settings), client_out)
    app = build_app(settings, Parts(ports, vault, ingest, window, proxy, is_ready))
    server = build_server(app)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield Gateway(url, ports, bus, app, clock, client)
    finally:
        server.stop()
        await serving
        listening.close()
        await window.close()
        await client_out.aclose()
        await ports.throttle.close()
        await vault.close()
        await pool.close()


async def forget_tries(url: str) -> None:
    """Let no test be limited by what another one did."""
    async with redis.asyncio.Redis.from_url(url) as client:
        async for key in client.scan_iter("nhood:try:*"):
            await client.delete(key)


def settings_for(database: str, master_key: str, valkey: str) -> Settings:
    return replace(
        Settings(),
        database_url=Secret(database),
        redis_url=Secret(valkey),
        master_key_file=master_key,
    )
