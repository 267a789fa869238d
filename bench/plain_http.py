"""HTTP/1.1 with as little as possible around it: one request or answer at a time a connection."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

Handler = Callable[[bytes, bytes], "bytes | asyncio.Future[bytes]"]


class ServerConnection(asyncio.Protocol):
    """Collects a request (target, body) and writes whatever the handler gives."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._body: list[bytes] = []
        self.method = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self._target, self._body, self.headers = b"", [], []

    def on_url(self, url: bytes) -> None:
        """Note the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Note a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        self.method = self._parser.get_method()
        found = self._handle(self._target, b"".join(self._body))
        if isinstance(found, bytes):
            self._write(found)
        else:
            found.add_done_callback(lambda done: self._write(done.result()))

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


def http_answer(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Build an answer: `200 OK` and a body."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class ClientConnection(asyncio.Protocol):
    """Sends one request at a time and waits for its status."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[int] | None = None
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Wake whoever waits."""
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that nothing will come."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionError("the server closed the connection"))

    def send(self, request: bytes) -> "asyncio.Future[int]":
        """Send a request; the answer's status comes as a future."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int) -> ClientConnection:
    """Open a connection."""
    _, protocol = await asyncio.get_running_loop().create_connection(ClientConnection, host, port)
    return protocol
