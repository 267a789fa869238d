"""The gateway: every address that the outside sees, on one port.

    /webhooks/…  …/events        ingest
    /api/…                       control API, connections (vault)
    /oauth/callback/…            vault
    /  /docs  /openapi.json      portal and documentation, without any look-up elsewhere
    /healthz  /readyz  /metrics  for whoever runs it

`opened` opens what the parts need and closes it again; `build_app` only puts them together.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import fastapi_offline
import httpx
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

import control
from control import replay_job
from control.api.border import Border
from control.api.rate import RateLimit, Window
from control.app import build_ports, build_router, chores
from control.ports import Ports
from executors.proxy.calls import Proxy
from executors.proxy.routes import build_router as build_proxy
from executors.runtime.limits import Limits
from ingest.app import IngestPorts
from ingest.app import build_router as build_ingest
from ingest.definitions import FollowedListeners
from ingest.directory import Directory
from ingest.pace import Pace
from ingest.vendor_hooks import HookPorts
from nhood.replay_engine import RouterCore
from schemas.provider import load_catalogue
from schemas.settings import Settings
from schemas.topics import EVENTS
from token_vault.audit_routes import build_router as build_audit
from token_vault.chores import vault_chores
from token_vault.events_routes import build_router as build_changes
from token_vault.routes import build_router as build_connections
from token_vault.vault import Vault
from wire.bus import KafkaLog, KafkaPublisher
from wire.clock import now_us
from wire.database import migrate, open_pool, reachable
from wire.http import allowed_by, open_client
from wire.problems import install
from wire.serving import bind, build_server
from wire.telemetry import configure_logging

VERSION: Final = "0.1.0"
POOL_MAX: Final = 10
_STAGE: Final = "gateway"
_PORTAL: Final = Path(control.__file__).parent / "portal"
_DOCS: Final = Path(fastapi_offline.__file__).parent / "static"
_READY_TIMEOUT_S: Final = 2.0
# Probes may come often and from many sides; the servers are asked once in this time.
_READY_KEPT_S: Final = 1.0
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
    " data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": _CSP,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_DESCRIPTION: Final = """\
Workflow automation, event-driven on Kafka. Make a workspace, save a workflow, connect your
customers' accounts, send events; every error is a problem (RFC 9457) with a stable `code`."""
_TAGS: Final = [
    {"name": "people", "description": "Log-ins, members of a workspace and their roles."},
    {"name": "workspaces", "description": "Accounts of developers, their keys and secrets."},
    {"name": "API keys", "description": "What programs call with: scoped, rotated, revoked."},
    {"name": "workflows", "description": "What is to happen, in versions that never change."},
    {"name": "events in", "description": "What happened outside."},
    {"name": "vendors' webhooks", "description": "Where vendors' own webhooks come in."},
    {"name": "polls", "description": "What is looked for at vendors that do not tell."},
    {"name": "executions", "description": "What became of it, step by step."},
    {"name": "replays", "description": "Executions run once more: dry, to repair, or by force."},
    {"name": "dead letters", "description": "Records that nobody could handle; sent again."},
    {"name": "files", "description": "What steps upload and download; kept for some days."},
    {"name": "completeness", "description": "What became of all that was accepted; signed."},
    {"name": "integrations", "description": "The catalogue of providers."},
    {"name": "connections", "description": "Accounts of your customers."},
]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that is open while the gateway runs."""

    ports: Ports
    vault: Vault
    ingest: IngestPorts
    window: Window
    proxy: Proxy
    is_ready: Callable[[], Awaitable[dict[str, bool]]]


class BrowserDoor(CORSMiddleware):
    """Lets pages of other origins begin a connection, which is the one thing made for them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply CORS to that address only."""
        if scope["type"] == "http" and scope["path"].startswith("/api/integrations/"):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def build_app(settings: Settings, parts: Parts) -> FastAPI:
    """Put all routes together; opens nothing."""
    app = FastAPI(
        title="NeighbourHood",
        version=VERSION,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        servers=[{"url": settings.gateway_url}],
        docs_url=None,
        redoc_url=None,
    )
    install(app)
    app.include_router(build_ingest(parts.ingest))
    app.include_router(build_router(parts.ports))
    app.include_router(build_connections(parts.vault, parts.ports.doors.caller))
    app.include_router(build_proxy(parts.proxy, parts.ports.doors.caller))
    app.include_router(build_audit(parts.vault.pool, parts.ports.doors.caller))
    app.include_router(build_changes(parts.vault.pool, parts.ports.doors.caller))
    _add_pages(app)
    _add_probes(app, parts.is_ready)
    app.add_middleware(Border, ports=parts.ports)
    app.add_middleware(RateLimit, doors=parts.ports.doors, window=parts.window)
    app.add_middleware(
        BrowserDoor, allow_origins=["*"], allow_methods=["POST"], allow_headers=["content-type"]
    )
    return app


def _add_pages(app: FastAPI) -> None:
    app.mount("/assets/portal", StaticFiles(directory=_PORTAL), name="portal")
    app.mount("/assets/docs", StaticFiles(directory=_DOCS), name="docs")

    @app.get("/", include_in_schema=False)
    async def portal() -> Response:
        return FileResponse(_PORTAL / "index.html", headers=_PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="NeighbourHood API",
            swagger_js_url="/assets/docs/swagger-ui-bundle.js",
            swagger_css_url="/assets/docs/swagger-ui.css",
            swagger_favicon_url="/assets/portal/icon.svg",
        )


def _add_probes(app: FastAPI, is_ready: Callable[[], Awaitable[dict[str, bool]]]) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        found = await is_ready()
        return JSONResponse({"ready": all(found.values()), **found}, _status(found))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _status(found: dict[str, bool]) -> int:
    return 200 if all(found.values()) else 503


class Readiness:
    """Asks the servers that requests need, but not for every probe."""

    def __init__(self, ports: Ports, listeners: FollowedListeners, admin: AdminClient) -> None:
        self._pool = ports.pool
        self._listeners = listeners
        self._admin = admin
        self._known: dict[str, bool] = {}
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def check(self) -> dict[str, bool]:
        """Say of each server whether it answers."""
        async with self._asking:
            if time.monotonic() >= self._until:
                database, kafka = await asyncio.gather(
                    reachable(self._pool, _READY_TIMEOUT_S), asyncio.to_thread(self._kafka)
                )
                followed = self._listeners.ready
                self._known = {"database": database, "kafka": kafka, "definitions": followed}
                self._until = time.monotonic() + _READY_KEPT_S
        return self._known

    def _kafka(self) -> bool:
        try:
            self._admin.list_topics(EVENTS, timeout=_READY_TIMEOUT_S)
        except KafkaException:
            return False
        return True


def hook_ports(ports: Ports, client: httpx.AsyncClient) -> HookPorts:
    """Give what vendors' own webhooks need."""
    return HookPorts(
        publisher=ports.publisher,
        catalogue=ports.catalogue,
        find=ports.hooks.find,
        owners=ports.hooks.owners,
        learn=ports.hooks.set_secret,
        client=client,
        base_url=ports.settings.gateway_url,
    )


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Parts]:
    """Open everything, and close it in the end: accepted events are on the log by then.

    Raises:
        DependencyDown: Postgres or Kafka does not answer.
        SecretUnavailable: The vault has no root key.
    """
    url, bootstrap = settings.database_url.reveal(), settings.kafka_bootstrap_servers
    await asyncio.to_thread(migrate, url)
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(url, max_size=POOL_MAX, name=_STAGE)
        stack.push_async_callback(pool.close)
        publisher = KafkaPublisher(bootstrap, f"nhood-{_STAGE}")
        await publisher.start()
        stack.push_async_callback(publisher.close)
        catalogue = load_catalogue()
        vault = await Vault.open(settings, pool, catalogue)
        stack.push_async_callback(vault.close)
        listeners = FollowedListeners(bootstrap, f"nhood-{_STAGE}")
        stack.push_async_callback(listeners.close)
        await listeners.start()
        log = KafkaLog(bootstrap, f"nhood-{_STAGE}")
        ports = build_ports(settings, pool, publisher, log, catalogue, vault, vault.subscriptions)
        stack.push_async_callback(ports.throttle.close)
        directory = Directory(vault.webhook_secrets, now_us)
        client = open_client(allow_private=allowed_by(settings))
        stack.push_async_callback(client.aclose)
        pace = Pace(settings.redis_url, rate=settings.ingest_rate, burst=settings.ingest_burst)
        stack.push_async_callback(pace.close)

        async def admit(workspace: str, events: int) -> None:
            await ports.usage.require(workspace)
            await pace.require(workspace, events)

        ingest = IngestPorts(publisher, directory, listeners, ports.doors.caller, admit=admit)
        ingest = replace(ingest, hooks=replace(hook_ports(ports, client), admit=admit))
        await stack.enter_async_context(chores(ports))
        work = replay_job.Ports(pool, publisher, log, RouterCore())
        await stack.enter_async_context(replay_job.replaying(replay_job.Job(work)))
        await stack.enter_async_context(vault_chores(pool))
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "client.id": "nhood-readyz",
            "log_level": 2,
        }
        readiness = Readiness(ports, listeners, stack.enter_context(AdminClient(config)))
        window = Window(settings.redis_url)
        stack.push_async_callback(window.close)
        proxy = Proxy(vault, Limits(settings), client)
        yield Parts(ports, vault, ingest, window, proxy, readiness.check)


async def serve(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT; requests under way are answered first.

    Raises:
        StackError: The port is taken.
        DependencyDown: Postgres or Kafka does not answer at the start.
        SecretUnavailable: The vault has no root key.
    """
    configure_logging(_STAGE, settings.log_level)
    listening = bind(settings.host, settings.port, "NHOOD_PORT")
    try:
        async with opened(settings) as parts:
            server = build_server(build_app(settings, parts))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.stop)
            _log.info("gateway.started", address=settings.gateway_url)
            await server.serve(sockets=[listening])
            _log.info("gateway.stopped")
    finally:
        listening.close()
