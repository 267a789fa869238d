"""Reads a request's body up to a limit, and answers no longer than it takes."""

import asyncio
from collections.abc import Mapping

from starlette.requests import Request

from schemas.errors import InvalidInput, TooLarge

BODY_TIMEOUT_S = 30  # a sender that trickles bytes holds memory and a connection


class Gone(Exception):  # noqa: N818 - no error of anybody's
    """The sender hung up before the body was there; nobody waits for an answer."""


async def read_body(request: Request, headers: Mapping[str, str], limit: int) -> bytes:
    """Read the body, checking its size while it arrives.

    Args:
        request: Its body must not have been read.
        headers: Its headers, names in lower case.
        limit: Bytes.

    Raises:
        TooLarge: More than `limit`; told from the content length before anything is read.
        InvalidInput: `body_timeout`, it took longer than `BODY_TIMEOUT_S`.
        Gone: The sender hung up.
    """
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await request.receive()
            if message.get("more_body") or message["type"] != "http.request":
                return await _rest(request, message, limit)
    except TimeoutError as error:
        raise InvalidInput(
            f"The body did not arrive within {BODY_TIMEOUT_S} s.", code="body_timeout"
        ) from error
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _rest(request: Request, message: Mapping[str, object], limit: int) -> bytes:
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            raise Gone
        body += message.get("body", b"")  # type: ignore[arg-type]  # ASGI says bytes
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await request.receive()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body has more than {limit} bytes; send a link to the content instead.")


def header_texts(request: Request) -> dict[str, str]:
    """Give the headers, names in lower case; of a repeated one the first."""
    found: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return found
