"""What every request to the control API passes before a route sees it.

    body        at most 1 MiB, JSON by its content type, strict (no NaN, no NUL, not too deep)
    POST        with an `Idempotency-Key`: done once, answered again with the first answer

Pure ASGI, so that requests to other addresses (webhooks) pay one comparison of their path.
The header: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import hashlib
import re
import time
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.core.access import bearer_token
from control.core.roles import ALL, of_scopes
from control.core.tokens import kid_of
from control.doors import Person
from control.ports import Ports
from control.store import idempotency
from schemas.errors import (
    Conflict,
    DependencyDown,
    InvalidInput,
    NeighbourhoodError,
    NotFound,
    Problem,
    SecretUnavailable,
    TooLarge,
)
from schemas.settings import Secret
from wire.database import connection
from wire.problems import answer, problem

BODY_MAX: Final = 1_048_576
DEPTH_MAX: Final = 100
KEY_MAX: Final = 255
_FIELD: Final = "idempotent_answer"
_SIGN_UP: Final = "/api/v1/workspaces"
_KEY = re.compile(r'"?[\x21-\x7e]{1,255}"?')
# Ingest, files and the proxy read their own bodies, up to larger bounds.
_OTHERS = re.compile(r"/api/v1/workspaces/[^/]+/(events/?|files/?|proxy/.*)", re.DOTALL)
_BAD_REQUEST, _UNSUPPORTED = 400, 415
_OK_BELOW = 300
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_log = structlog.get_logger()

REQUESTS = Counter(
    "nhood_control_requests", "Requests to the control API.", ["method", "route", "status"]
)
SECONDS = Histogram(
    "nhood_control_request_seconds",
    "Time to the answer; waiting that was asked for included.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)


class Malformed(Exception):  # noqa: N818 - never leaves this module
    """The body cannot be used at all; `response` says why."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(slots=True)
class _Captured:
    """An answer on its way out, held back."""

    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def release(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": bytes(self.body)})


class Border:
    """The middleware."""

    def __init__(self, app: ASGIApp, ports: Ports) -> None:
        self._app = app
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, then hand it on."""
        if scope["type"] != "http" or not _is_ours(scope):
            await self._app(scope, receive, send)
            return
        await self._guarded(scope, receive, _timed(scope, send))

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            _check_path(scope)
            body = await _read(request)
            check_json(body, request.headers)
            again = _replay(body, receive)
            key = _key_of(request)
            if key is None:
                await self._app(scope, again, send)
            else:
                await self._once(_Asked(request, body, key), again, send)
        except ClientDisconnect:
            return
        except Malformed as error:
            await error.response(scope, receive, send)
        except NeighbourhoodError as error:
            await answer(error)(scope, receive, send)

    async def _once(self, asked: "_Asked", receive: Receive, send: Send) -> None:
        ports = self._ports
        scope = await self._scope_of(asked.request)
        if scope is None:
            await self._app(asked.request.scope, receive, send)
            return
        async with connection(ports.pool) as on:
            known = await idempotency.claim(on, scope, asked.key, asked.fingerprint)
        if known is not None:
            await self._answer_again(known, asked, send)
            return
        captured = _Captured()
        asked.request.scope["nhood.seed"] = (scope, asked.key)
        kept = False
        try:
            await self._app(asked.request.scope, receive, captured.take)
            if captured.status < _OK_BELOW:
                kept = True
                await self._keep(scope, asked.key, captured)
        except (DependencyDown, SecretUnavailable) as error:
            # It was done: say so. The claim stays, and whoever takes it over does the same again.
            _log.warning("idempotency.not_kept", code=error.code, detail=error.detail)
        finally:
            if not kept:
                async with connection(ports.pool) as on:
                    await idempotency.give_up(on, scope, asked.key)
        await captured.release(send)

    async def _scope_of(self, request: Request) -> str | None:
        """Say within what a key is unique; None where the route knows no caller.

        Whoever may do less than everything shares keys only with those who may do the same: an
        answer that is given again has passed no check of permissions.
        """
        header = request.headers.get("authorization")
        if request.url.path.rstrip("/") == _SIGN_UP:
            return "sign-up/" + await self._signs_up(request, header or "")
        if header is None:
            return None
        caller = await self._ports.doors.who(request.scope)
        if isinstance(caller, Person):
            return None  # what people do for themselves hands out tokens, which are never kept
        scope = f"{caller.workspace_id}/{caller.mode}"
        if caller.permissions == of_scopes([ALL], caller.mode):
            return scope
        rights = " ".join(sorted(caller.permissions)).encode()
        return f"{scope}/{hashlib.sha256(rights).hexdigest()[:16]}"

    async def _signs_up(self, request: Request, header: str) -> str:
        if kid_of(bearer_token(header) or "") is not None:
            # A person: their next access token must find the answer too.
            return (await self._ports.doors.person(request.scope)).person_id
        return hashlib.sha256(header.encode()).hexdigest()

    async def _keep(self, scope: str, key: str, captured: _Captured) -> None:
        """Keep an answer, sealed with its workspace's key: it may hold API keys."""
        workspace = scope.partition("/")[0]
        if workspace == "sign-up":
            workspace = orjson.loads(captured.body)["workspace_id"]
        headers = Headers(raw=captured.headers)
        kept = {
            "body": captured.body.decode(),
            "headers": {
                name: headers[name] for name in ("content-type", "location") if name in headers
            },
        }
        text = Secret(orjson.dumps(kept).decode())
        sealed = await self._ports.sealer.seal_text(workspace, _FIELD, text)
        stored = workspace.encode() + b" " + sealed
        async with connection(self._ports.pool) as on:
            await idempotency.keep(on, scope, key, captured.status, stored)

    async def _answer_again(self, known: idempotency.Known, asked: "_Asked", send: Send) -> None:
        if known.fingerprint != asked.fingerprint:
            raise InvalidInput(
                "This Idempotency-Key was used for another request; make a new one.",
                code="idempotency_key_reused",
            )
        if known.status is None or known.answer is None:
            raise Conflict(
                "A request with this Idempotency-Key is being worked on; ask again in a moment.",
                code="idempotency_in_progress",
            )
        workspace, _, sealed = known.answer.partition(b" ")
        text = await self._ports.sealer.open_text(workspace.decode(), _FIELD, sealed)
        kept: dict[str, Any] = orjson.loads(text.reveal())
        response = Response(kept["body"], known.status, kept["headers"])
        MutableHeaders(raw=response.raw_headers)["Idempotency-Replayed"] = "true"
        await response(asked.request.scope, asked.request.receive, send)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A POST with an Idempotency-Key."""

    request: Request
    body: bytes
    key: str

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same: method, address and body."""
        url = self.request.url
        head = f"{self.request.method} {url.path}?{url.query}\n".encode()
        return hashlib.sha256(head + self.body).digest()


def seed_of(request: Request) -> tuple[str, str] | None:
    """Give what a derived id may be made of, so that a POST done twice makes the same thing.

    Returns:
        Scope and Idempotency-Key; None where the request has none.
    """
    seed: tuple[str, str] | None = request.scope.get("nhood.seed")
    return seed


def _timed(scope: Scope, send: Send) -> Send:
    """Count and time an answer when it begins, under its route's pattern."""
    begun = time.perf_counter()

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            path = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUESTS.labels(method, path, str(message["status"])).inc()
            SECONDS.labels(path).observe(time.perf_counter() - begun)
        await send(message)

    return noting


def _is_ours(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith("/api/") and _OTHERS.fullmatch(path) is None


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    if key is not None and _KEY.fullmatch(key) is None:
        place = Problem(
            "header.Idempotency-Key",
            f"must be 1 to {KEY_MAX} visible ASCII characters",
            "A UUID is fine.",
            "bad_idempotency_key",
        )
        raise InvalidInput(
            f"Idempotency-Key {place.message}.", problems=[place], code="bad_idempotency_key"
        )
    return key


async def _read(request: Request) -> bytes:
    """Read the body, but not further than the bound.

    Raises:
        TooLarge: It is larger.
    """
    too_large = TooLarge(f"The body is larger than {BODY_MAX} bytes.", code="body_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > BODY_MAX:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise too_large
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body to the route as if it came just now; after it, what comes from the client."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def check_json(body: bytes, headers: Headers) -> None:
    """Refuse a body that is no JSON, or JSON that cannot be kept.

    Raises:
        Malformed: It is not JSON by its header or by its bytes.
        InvalidInput: It holds NUL characters, or is nested deeper than `DEPTH_MAX`.
    """
    if not body:
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        told = f"not {kind}" if kind else "and say so"
        text = f"Send JSON, {told}: `Content-Type: application/json`."
        raise Malformed(problem(_UNSUPPORTED, "media_type", text))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        text = f"The body is not JSON: {error.msg}, line {error.lineno} column {error.colno}."
        raise Malformed(problem(_BAD_REQUEST, "malformed_json", text)) from None
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX and _deeper(value, DEPTH_MAX):
        raise InvalidInput(f"The body is nested deeper than {DEPTH_MAX} levels.", code="too_deep")
    if b"\\u0000" in body and _has_nul(value):
        raise InvalidInput(
            "The body holds a NUL character (\\u0000), which cannot be kept; take it out.",
            code="nul_character",
        )


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _deeper(value: object, bound: int) -> bool:
    level = [value]
    for _ in range(bound + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _check_path(scope: Scope) -> None:
    """Refuse an address that no id is in: Postgres takes no NUL, not even to look for one.

    Raises:
        NotFound: `route_not_found`.
    """
    if "\x00" in scope["path"]:
        raise NotFound("The address holds a NUL character (%00).", code="route_not_found")


def _has_nul(value: object) -> bool:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str) and "\x00" in item:
            return True
        if isinstance(item, dict):
            left.extend(item)
        left.extend(_children(item))
    return False
