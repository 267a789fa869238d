"""The sandbox as a server: vendors below their slug, its own controls below `/_sandbox`.

    /{slug}/<path of the vendor's address>     OAuth and actions, as the vendor answers
    /_sandbox/received, /counts, /faults, …    see `nhood.sandbox.controls`
    /                                          what came in, for people
    /healthz /readyz /metrics

Vendors are played by a bare ASGI function, since it stands in the way of every test step; the
controls are a FastAPI app beside it.
"""

import asyncio
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nhood.sandbox import acting, consent
from nhood.sandbox.controls import build_controls
from nhood.sandbox.faults import Fault, Faults
from nhood.sandbox.grants import GrantBook
from nhood.sandbox.received import Received
from nhood.sandbox.records import Accounts
from nhood.sandbox.vendor import Match, Vendor, World, build_vendors, seeds
from nhood.sandbox.wire_in import Answer, Incoming, json_answer
from schemas.provider import Catalogue, load_catalogue
from schemas.settings import Settings
from wire.serving import Server, bind
from wire.telemetry import configure_logging, start_ops_server

# No vendor that we play takes more in one request.
BODY_BYTES_MAX: Final = 128 * 1024 * 1024
# Longer than the executors keep a connection, so that they never meet one that is just closing.
KEEP_ALIVE_S: Final = 75
# A slow answer that a fault script asked for is cut off at the end.
DRAIN_S: Final = 2
_TRANSPORT: Final = "nhood.transport"
_log = structlog.get_logger("sandbox")


class Sandbox:
    """The ASGI application."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.received = Received()
        self.faults = Faults()
        self._controls: ASGIApp = build_controls(world, self.received, self.faults)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        vendor = self._vendor(scope)
        if vendor is None:
            await self._controls(scope, receive, send)
            return
        incoming = await _read(scope, receive, vendor.spec.slug)
        if incoming is None:
            await _send(send, json_answer(413, {"error": "the body is too large"}))
            return
        incoming = vendor.as_declared(incoming)
        match = vendor.find(incoming)
        name = _name(match)
        fault = self.faults.take(vendor.spec.slug, name, incoming.path)
        wire = _Wire(scope, receive, send)
        if fault is None:
            answer, account = self._answer(vendor, match, incoming)
            self._note(incoming, match, name, account, answer)
            await _send(send, answer)
        else:
            await self._play(wire, fault, vendor, match, incoming)

    def _vendor(self, scope: Scope) -> Vendor | None:
        if scope["type"] != "http":
            return None
        slug = scope["path"][1:].partition("/")[0]
        return self.world.vendors.get(slug)

    def _answer(
        self, vendor: Vendor, match: Match | None, incoming: Incoming
    ) -> tuple[Answer, str | None]:
        if match is None:
            message = f"There is no {incoming.method} {incoming.path}"
            return vendor.error("not_found", message=message), None
        route = match.route
        if route.plan is not None:
            return acting.act(self.world, vendor, route.plan, incoming, match.groups)
        if route.hook is not None:
            return acting.subscribe(self.world, vendor, route.hook, incoming, match.groups)
        if route.extra is not None:
            return vendor.fill(route.extra.shape, {"params": match.groups}), None
        return _OAUTH[route.part](self.world, vendor, incoming), None

    async def _play(
        self,
        wire: "_Wire",
        fault: Fault,
        vendor: Vendor,
        match: Match | None,
        incoming: Incoming,
    ) -> None:
        """Let go wrong what the script says."""
        if fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        name = _name(match)
        answer: Answer | None = None
        account = None
        if fault.unauthorised:
            answer = vendor.error("unauthorised", message="The access token expired")
        elif fault.status is not None:
            answer = json_answer(fault.status, fault.body, fault.headers)
            if fault.body_bytes or isinstance(fault.body, str):
                text = b"x" * fault.body_bytes or str(fault.body).encode()
                answer = Answer(fault.status, text, fault.headers, "text/html; charset=utf-8")
        elif fault.reset not in (True, "before"):
            answer, account = self._answer(vendor, match, incoming)
        self._note(incoming, match, name, account, None if fault.reset else answer, fault.name)
        if fault.reset or answer is None:
            await wire.break_off()
        elif fault.truncate:
            await wire.truncate(answer)
        else:
            await _send(wire.send, answer)

    def _note(
        self,
        incoming: Incoming,
        match: Match | None,
        name: str,
        account: str | None,
        answer: Answer | None,
        fault: str | None = None,
    ) -> None:
        plan = match.route.plan if match is not None else None
        self.received.add(
            incoming,
            at=self.world.clock(),
            action=name,
            account=account,
            answer=answer,
            key=acting.idempotency_key(plan, incoming) if plan is not None else "",
            fault=fault,
        )


_OAUTH: Final[dict[str, Callable[[World, Vendor, Incoming], Answer]]] = {
    "authorize": consent.authorize,
    "token": consent.token,
    "revoke": consent.revoke,
    "account": consent.account,
}


def _name(match: Match | None) -> str:
    if match is None:
        return "unknown"
    if match.route.plan is not None:
        return match.route.plan.spec.id
    if match.route.hook is not None:
        return f"hooks.{match.route.hook.part}"
    return "extra" if match.route.extra is not None else f"oauth.{match.route.part}"


async def _read(scope: Scope, receive: Receive, slug: str) -> Incoming | None:
    """Read a request whole; None where it is too large."""
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > BODY_BYTES_MAX:
                return None
        body = b"".join(parts)
    path = cast("bytes", scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    return Incoming(
        slug=slug,
        method=scope["method"],
        path=path[len(slug) + 1 :],
        query=scope["query_string"].decode("latin-1"),
        headers={
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        },
        body=body,
    )


def _head(answer: Answer) -> dict[str, Any]:
    headers = [(b"content-length", str(len(answer.body)).encode())]
    if answer.body:
        headers.append((b"content-type", answer.content_type.encode()))
    headers += [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.items()
    ]
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


async def _send(send: Send, answer: Answer) -> None:
    if answer.status in (204, 304):
        answer = Answer(answer.status, b"", answer.headers, answer.content_type)
    await send(_head(answer))
    await send({"type": "http.response.body", "body": answer.body})


@dataclass(frozen=True, slots=True)
class _Wire:
    """A request's connection, for what ASGI cannot say: breaking it off."""

    scope: Scope
    receive: Receive
    send: Send

    async def break_off(self) -> None:
        """Reset the connection (RST, not an orderly end)."""
        transport = self.scope.get(_TRANSPORT)
        if transport is not None:
            raw = transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        while (await self.receive())["type"] != "http.disconnect":
            continue

    async def truncate(self, answer: Answer) -> None:
        """Send half of what the head promises, then break off."""
        await self.send(_head(answer))
        half = answer.body[: len(answer.body) // 2]
        await self.send({"type": "http.response.body", "body": half, "more_body": True})
        transport = self.scope.get(_TRANSPORT)
        if transport is not None:
            transport.close()
        while (await self.receive())["type"] != "http.disconnect":
            continue


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, handing the connection on so that a fault can break it off."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[_TRANSPORT] = self.transport


def build_app(
    catalogue: Catalogue,
    *,
    journal: Path | None = None,
    clock: Callable[[], float] = time.time,
    vendors: Mapping[str, Vendor] | None = None,
) -> Sandbox:
    """Build the sandbox.

    Args:
        catalogue: The providers to play, loaded without overrides.
        journal: File that keeps OAuth grants over a restart; None: they end with the process.
        clock: UTC, seconds since 1970.
        vendors: The catalogue's, where `build_vendors` has built them already.

    Raises:
        InvalidInput: A sandbox.yaml cannot be used.
    """
    vendors = vendors if vendors is not None else build_vendors(catalogue)
    grants = GrantBook(journal, clock)
    return Sandbox(World(vendors, grants, Accounts(seeds(vendors)), clock))


def build_server(app: Sandbox) -> Server:
    """Build the server; `await server.serve(sockets=[bind(…)])` runs it until `server.stop()`."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return Server(config)


async def serve(settings: Settings) -> None:
    """Run the sandbox until SIGTERM or SIGINT.

    Raises:
        InvalidInput: A provider file or sandbox.yaml cannot be used.
        StackError: The port is taken.
    """
    configure_logging("sandbox", settings.log_level)
    listening = bind(settings.host, settings.sandbox_port, "NHOOD_SANDBOX_PORT")
    journal = Path(settings.state_dir) / "sandbox" / "grants.jsonl"
    app = build_app(load_catalogue(), journal=journal)
    server = build_server(app)
    ops = start_ops_server(settings.host, settings.ops_port, lambda: server.started)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    _log.info("sandbox.started", address=settings.sandbox_base, vendors=len(app.world.vendors))
    try:
        await server.serve(sockets=[listening])
        _log.info("sandbox.stopped")
    finally:
        ops.close()
        listening.close()
