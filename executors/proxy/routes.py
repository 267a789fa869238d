"""`ANY /api/v1/workspaces/{ws}/proxy/{provider}/{path}`; see `executors.proxy.calls`."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from executors.core.forward import choose
from executors.proxy.calls import BODY_BYTES_MAX, Asked, Proxy
from schemas.access import Authenticate, needs
from schemas.errors import InvalidInput, TooLarge

BODY_TIMEOUT_S: Final = 30
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Whatever a vendor sends, no browser is to take it for a page of ours.
_SAFE: Final = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff"}
_HELP: Final = f"""\
Calls the provider's own API with a customer's connection: method, path, query, headers and body go
to the vendor, status, headers and body come back. `Nhood-Connection-Id` or `Nhood-User-Id` choose
the account (or `connection_id` or `user_id` in the query, which are then taken out of it). The
credential is added here and never shown. Bodies have at most {BODY_BYTES_MAX // 2**20} MiB each."""


class _Raw(APIRoute):
    """Hands the request to the endpoint as it is: bodies and queries are the vendor's affair."""

    def get_route_handler(self) -> Any:  # noqa: ANN401 - FastAPI's own type is as open
        return self.endpoint


def build_router(proxy: Proxy, authenticate: Authenticate) -> APIRouter:
    """Build the route.

    Args:
        proxy: Makes the calls.
        authenticate: Says who calls.
    """
    router = APIRouter(route_class=_Raw)

    async def call(request: Request) -> Response:
        caller = await authenticate(request.scope)
        caller.require(request.path_params["workspace_id"])
        slug = request.path_params["provider"]
        body = await _body(request)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.scope["headers"]
        ]
        query = request.scope["query_string"].decode("latin-1")
        asked = Asked(request.method, _path(request), choose(headers, query), headers, body)
        answered = await proxy.call(caller, slug, asked)
        response = StreamingResponse(answered.pieces, answered.status)
        response.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in (*answered.headers, *_SAFE.items(), ("nhood-provider", slug))
        ]
        return response

    for method in METHODS:
        router.add_api_route(
            "/api/v1/workspaces/{workspace_id}/proxy/{provider}/{path:path}",
            call,
            methods=[method],
            operation_id=f"proxy_{method.lower()}",
            tags=["connections"],
            summary="Call a vendor's API with a connection",
            description=_HELP,
            openapi_extra=_API | needs("proxy:write"),
        )
    return router


def _parameter(place: str, name: str, text: str) -> dict[str, Any]:
    found = {"in": place, "name": name, "description": text, "schema": {"type": "string"}}
    return {**found, "required": place == "path"}


_API: Final[dict[str, Any]] = {
    "parameters": [
        _parameter("path", "workspace_id", "ws_…"),
        _parameter("path", "provider", "Its slug."),
        _parameter("path", "path", "Below the provider's own address, such as `chat.postMessage`."),
        _parameter("header", "Nhood-Connection-Id", "Exactly this connection."),
        _parameter("header", "Nhood-User-Id", "The connection of this customer of yours."),
    ]
}


def _path(request: Request) -> str:
    """Give the vendor's path as it came: decoding it would change what it names."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    text = raw.partition(b"?")[0].decode("latin-1")
    # /api/v1/workspaces/{ws}/proxy/{provider}/…
    return text.split("/", 7)[7]


async def _body(request: Request) -> bytes | None:
    """Read the body up to the bound; None where there is none.

    Raises:
        TooLarge: It is larger.
        InvalidInput: `body_timeout`.
    """
    too_large = TooLarge(f"The body is larger than {BODY_BYTES_MAX} bytes.", code="body_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > BODY_BYTES_MAX:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise too_large
    except TimeoutError as error:
        raise InvalidInput(
            f"The body did not arrive within {BODY_TIMEOUT_S} s.", code="body_timeout"
        ) from error
    return bytes(body) or None
