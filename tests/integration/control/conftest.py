"""The control API on a real PostgreSQL and the real vault; the log is in memory."""

import base64
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from control.app import build_app, build_ports
from control.ports import Ports
from schemas.provider import load_catalogue
from schemas.settings import Secret, Settings
from schemas.topics import DEADLETTER, DEFINITIONS, EVENTS, EXECUTIONS, RESULTS
from tests.integration.control.people_parts import (
    Gateway,
    forget_tries,
    running_gateway,
    settings_for,
)
from token_vault.vault import Vault
from wire.bus import MemoryBus
from wire.database import open_pool

TOPICS = {EVENTS: 3, DEFINITIONS: 1, RESULTS: 3, EXECUTIONS: 3, DEADLETTER: 1}
V1 = "/api/v1/workspaces"


@pytest.fixture(scope="session")
def master_key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "master.key"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(os.urandom(32)).decode())
    return str(path)


@dataclass
class Api:
    """A workspace's view of the API."""

    client: httpx.AsyncClient
    ports: Ports
    bus: MemoryBus
    workspace: dict[str, str]

    @property
    def base(self) -> str:
        return f"{V1}/{self.workspace['workspace_id']}"

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Call with the test key, below the workspace unless the path is absolute."""
        headers = {"Authorization": f"Bearer {self.workspace['test_api_key']}"}
        headers |= more.pop("headers", {})
        address = path if path.startswith("/api") else self.base + path
        return await self.client.request(method, address, json=body, headers=headers, **more)


async def sign_up(client: httpx.AsyncClient, **values: Any) -> dict[str, str]:
    answer = await client.post(
        V1, json={"name": "Acme", "email": "dev@acme.example", "plan": "free"} | values
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
async def ports(database, master_key) -> AsyncIterator[Ports]:
    settings = replace(Settings(), database_url=Secret(database), master_key_file=master_key)
    pool = await open_pool(database, max_size=4)
    catalogue = load_catalogue()
    vault = await Vault.open(settings, pool, catalogue)
    bus = MemoryBus(TOPICS)
    yield build_ports(settings, pool, bus, bus, catalogue, vault, vault.subscriptions)
    await vault.close()
    await pool.close()


@pytest.fixture
async def client(ports) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app(ports), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


@pytest.fixture
async def api(client, ports) -> Api:
    return Api(client, ports, ports.publisher, await sign_up(client))


@pytest.fixture
async def other(client, ports) -> Api:
    """A second workspace."""
    return Api(client, ports, ports.publisher, await sign_up(client, name="Other"))


@pytest.fixture
def live_settings(database, master_key, stack) -> Settings:
    """With a real Valkey, for what is counted there."""
    return settings_for(database, master_key, stack.valkey)


@pytest.fixture
async def gateway(live_settings, stack) -> AsyncIterator[Gateway]:
    """The whole gateway over real HTTP."""
    await forget_tries(stack.valkey)
    async with running_gateway(live_settings) as found:
        yield found
