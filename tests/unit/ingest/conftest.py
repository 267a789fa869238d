"""An ingest app on the bus in memory, with a clock that stands still."""

import base64
from dataclasses import dataclass, field

import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers

from ingest.app import IngestPorts, build_router
from ingest.definitions import Listeners
from ingest.directory import Directory
from ingest.pace import Admit, everybody
from schemas.access import Caller
from schemas.codec import encode
from schemas.errors import DependencyDown, NotFound, Unauthenticated
from schemas.events import Place, WorkflowVersion
from schemas.ids import derived_id
from schemas.settings import Secret
from wire.bus import MemoryBus, Stored
from wire.problems import install

WS = derived_id("ws", "acme")
OTHER_WS = derived_id("ws", "other")
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
NOW = 1_769_846_400_000_000


@dataclass
class World:
    """Everything around ingest; a test turns what it needs."""

    bus: MemoryBus = field(default_factory=lambda: MemoryBus({"nhood.events.v1": 3}))
    secrets: dict[str, list[str]] = field(default_factory=lambda: {WS: [SECRET]})
    listeners: Listeners = field(default_factory=Listeners)
    now_us: int = NOW
    kafka_down: bool = False
    database_down: bool = False
    loads: int = 0
    refreshes: int = 0
    on_refresh: list = field(default_factory=list)
    admit: Admit = everybody
    minted: int = 0

    async def publish(self, records):
        if self.kafka_down:
            return [DependencyDown("Kafka is away.", code="kafka_down") for _ in records]
        return await self.bus.publish(records)

    async def load(self, workspace):
        self.loads += 1
        if self.database_down:
            raise DependencyDown("The database is away.")
        if workspace not in self.secrets:
            raise NotFound("no such workspace")
        return [Secret(text) for text in self.secrets[workspace]]

    def on_path(self, workspace, path):
        return self.listeners.on_path(workspace, path)

    async def refresh(self):
        self.refreshes += 1
        for late in self.on_refresh:
            self.listeners.take(late)

    async def authenticate(self, scope):
        header = Headers(scope=scope).get("authorization")
        if header == "Bearer live":
            return Caller(WS, "live", "key_1")
        if header == "Bearer test":
            return Caller(WS, "test", "key_2")
        raise Unauthenticated("Send an API key.")

    def clock(self):
        return self.now_us

    def mint(self, kind):
        self.minted += 1
        return derived_id(kind, self.minted)

    async def stored(self):
        return [s for p in range(3) for s in await self.bus.read("nhood.events.v1", p, 0, 5_000)]


def saved(path="/new-customer", *, number=1, mode="live", verify=None, status="active", ws=WS):
    """A record of the definitions topic."""
    trigger = {"type": "webhook", "path": path} | ({"verify": verify} if verify else {})
    name = derived_id("wf", number)
    definition = orjson.dumps({"name": "a", "trigger": trigger, "steps": []})
    version = WorkflowVersion(ws, name, 1, mode, "a", status, definition, NOW)
    place = Place("nhood.definitions.v1", 0, number)
    return Stored(place, name.encode(), encode(version))


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def client(world):
    app = FastAPI()
    install(app)
    directory = Directory(world.load, world.clock)

    async def admit(workspace, events):
        await world.admit(workspace, events)

    ports = IngestPorts(
        *(world, directory, world, world.authenticate, world.clock, world.mint), admit=admit
    )
    app.include_router(build_router(ports))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as found:
        found.app = app
        yield found
