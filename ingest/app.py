"""The routes of ingest, built from ports; nothing happens at import.

The gateway opens the ports, mounts the router and closes what it opened:

    listeners = FollowedListeners(bootstrap, "nhood-gateway")      await listeners.start()
    ports = IngestPorts(publisher, Directory(load_secrets, now_us), listeners, authenticate)
    app.include_router(build_router(ports))
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from ingest.core.batch import CLOUDEVENT, CLOUDEVENTS, EVENTS_MAX
from ingest.definitions import Definitions
from ingest.directory import Directory
from ingest.events import Events
from ingest.pace import Admit, everybody
from ingest.vendor_hooks import HookPorts, VendorHooks
from ingest.webhooks import Webhooks, wrong_method
from schemas.access import Authenticate, needs
from wire.bus import Publisher
from wire.clock import mint as mint_id
from wire.clock import now_us


@dataclass(frozen=True, slots=True)
class IngestPorts:
    """What ingest needs from outside.

    Attributes:
        clock: UTC, microseconds.
        mint: Makes an id of a kind.
        admit: Asked before events of a workspace are written.
        hooks: What vendors' own webhooks need; None: they are not taken here.
    """

    publisher: Publisher
    directory: Directory
    definitions: Definitions
    authenticate: Authenticate
    clock: Callable[[], int] = now_us
    mint: Callable[[str], str] = mint_id
    admit: Admit = everybody
    hooks: HookPorts | None = None


class RawRoute(APIRoute):
    """Hands the request to the endpoint as it is; FastAPI's part is the documentation only.

    Reading and checking by FastAPI would cost more than all the rest of ingest (65 µs a request
    instead of 33, measured).
    """

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Give the endpoint itself."""
        return self.endpoint


Endpoint = Callable[[Request], Awaitable[Response]]


def build_router(ports: IngestPorts) -> APIRouter:
    """Build the routes for webhooks and events."""
    webhooks = Webhooks(
        ports.publisher, ports.directory, ports.definitions, ports.clock, ports.mint, ports.admit
    )
    events = Events(ports.publisher, ports.authenticate, ports.clock, ports.mint, ports.admit)
    router = APIRouter(route_class=RawRoute)
    address = "/webhooks/{workspace_id}/{path:path}"

    async def take_webhook(request: Request) -> Response:
        return await webhooks.post(request)

    async def take_events(request: Request) -> Response:
        return await events.post(request)

    router.add_api_route(
        address,
        take_webhook,
        methods=["POST"],
        status_code=202,
        tags=["events in"],
        summary="Take a webhook",
        description=_WEBHOOK_HELP,
        openapi_extra=_WEBHOOK_API | needs("public"),
        responses=_RESPONSES,
    )
    router.add_api_route(
        address,
        wrong_method,
        methods=["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"],
        include_in_schema=False,
        openapi_extra=needs("public"),
    )
    router.add_api_route(
        "/api/v1/workspaces/{workspace_id}/events",
        take_events,
        methods=["POST"],
        status_code=202,
        tags=["events in"],
        summary=f"Send 1 to {EVENTS_MAX} events",
        description=_EVENTS_HELP,
        openapi_extra=_EVENTS_API | needs("events:write"),
        responses=_RESPONSES | {207: {"description": "Some were taken; see `results`."}},
    )
    if ports.hooks is not None:
        _add_hooks(router, ports.hooks)
    return router


def _add_hooks(router: APIRouter, ports: HookPorts) -> None:
    hooks = VendorHooks(ports)

    async def take_hook(request: Request) -> Response:
        return await hooks.take(request)

    router.add_api_route(
        "/hooks/{endpoint_id}",
        take_hook,
        methods=["POST", "GET", "HEAD"],
        openapi_extra=needs("public"),
        include_in_schema=False,  # for vendors; where it is, the endpoint itself tells
    )


_WEBHOOK_HELP = """\
Any body up to 1 MiB. Answered once Kafka has the event, with its place as a receipt.
A signature (https://www.standardwebhooks.com) that comes along must be right.
`webhook-id` or `Idempotency-Key` make a second delivery start nothing."""

_EVENTS_HELP = """\
One event, `{"events": […]}`, a CloudEvent or a batch of them. Each gets a result of its own.
An `id` makes a second sending of the same event start nothing."""

_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "Kafka has it."},
    401: {"description": "Signature or key missing or wrong.", **_PROBLEM},
    404: {"description": "No such workspace.", **_PROBLEM},
    413: {"description": "Too large.", **_PROBLEM},
    429: {"description": "Too many events, or the month's executions are used up.", **_PROBLEM},
    503: {"description": "Kafka is away; nothing was taken; try again.", **_PROBLEM},
}


def _parameter(place: str, name: str, text: str, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string"}
    found = {"in": place, "name": name, "description": text, "schema": schema}
    return {**found, "required": required}


_WORKSPACE = _parameter("path", "workspace_id", "ws_…", required=True)
_WEBHOOK_API: dict[str, Any] = {
    "parameters": [
        _WORKSPACE,
        _parameter("path", "path", "As in the workflow's trigger.", required=True),
        _parameter("query", "user_id", "Whose accounts are used."),
        _parameter("query", "order_key", "Events with equal keys keep their order."),
        _parameter("query", "mode", "live or test; without it what listens on the path decides."),
        _parameter("header", "webhook-id", "Names the delivery."),
        _parameter("header", "Idempotency-Key", "Names the delivery, where webhook-id does not."),
    ],
    "requestBody": {"content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}}},
}
_EVENT = {
    "type": "object",
    "required": ["type"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "example": "order.created"},
        "data": {"description": "What happened; any JSON value."},
        "id": {"type": "string", "description": "The same id is the same event."},
        "subject": {"type": "string"},
        "source": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "user_id": {"type": "string", "description": "Whose accounts are used."},
        "order_key": {"type": "string", "description": "Equal keys keep their order."},
    },
}
_LIST = {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": EVENTS_MAX}
_EVENTS_API: dict[str, Any] = {
    "parameters": [_WORKSPACE],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"type": "object", "required": ["events"], "properties": {"events": _LIST}},
                        _EVENT,
                    ]
                }
            },
            CLOUDEVENT: {"schema": {"type": "object"}},
            CLOUDEVENTS: {"schema": {"type": "array", "items": {"type": "object"}}},
        },
    },
}
