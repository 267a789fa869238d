"""wire.http against real sockets: failures keep their meaning, private addresses are refused."""

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from schemas.settings import ProviderOverride, Settings
from wire.http import (
    AnswerTooLarge,
    allowed_by,
    is_public,
    map_http_failure,
    open_client,
)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
        finally:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


def anywhere(_host: str, _port: int) -> bool:
    return True


async def failure(handler: Handler, **options: float) -> Exception:
    async with (
        server(handler) as port,
        open_client(allow_private=anywhere, **options) as client,  # type: ignore[arg-type]
    ):
        with pytest.raises(httpx.TransportError) as caught:
            await client.post(f"http://127.0.0.1:{port}/", json={"a": 1})
        return caught.value


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def silence(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3)


async def truncate(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def rubbish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is not HTTP\r\n\r\n")
    await writer.drain()


async def test_refused_connection_was_never_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with open_client(allow_private=anywhere) as client:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.post(f"http://127.0.0.1:{port}/")
    assert map_http_failure(caught.value)[:2] == ("never_sent", "connect_failed")


async def test_unknown_name_was_never_sent() -> None:
    async with open_client() as client:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.get("http://no-such-host.invalid/")
    assert map_http_failure(caught.value)[:2] == ("never_sent", "connect_failed")


@pytest.mark.parametrize(
    ("handler", "kind", "code"),
    [
        (reset, (httpx.ReadError, httpx.RemoteProtocolError), None),
        (hang_up, httpx.RemoteProtocolError, "broken_answer"),
        (truncate, httpx.RemoteProtocolError, "broken_answer"),
        (rubbish, httpx.RemoteProtocolError, "broken_answer"),
    ],
)
async def test_request_without_whole_answer_may_have_arrived(
    handler: Handler, kind: type[Exception], code: str | None
) -> None:
    error = await failure(handler)
    assert isinstance(error, kind)
    sent, found, _ = map_http_failure(error)
    assert sent == "may_have_arrived"
    assert code in (None, found)


async def test_read_timeout_may_have_arrived() -> None:
    error = await failure(silence, read_timeout_s=0.1)
    assert isinstance(error, httpx.ReadTimeout)
    assert map_http_failure(error)[:2] == ("may_have_arrived", "read_timeout")


async def test_waiting_for_a_free_connection_was_never_sent() -> None:
    async with (
        server(silence) as port,
        open_client(
            allow_private=anywhere, max_connections=1, connect_timeout_s=0.1, read_timeout_s=1
        ) as client,
    ):
        url = f"http://127.0.0.1:{port}/"
        first = asyncio.create_task(client.get(url))
        await asyncio.sleep(0)
        with pytest.raises((httpx.ConnectTimeout, httpx.PoolTimeout)) as caught:
            await asyncio.gather(client.get(url), client.get(url))
        assert map_http_failure(caught.value)[0] == "never_sent"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("packed", [False, True])
async def test_answer_over_the_limit_is_read_no_further(packed: bool) -> None:
    body = b"x" * 300_000

    async def large(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = gzip.compress(body) if packed else body
        head = b"Content-Encoding: gzip\r\n" if packed else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(sent))
        writer.write(sent)
        await writer.drain()

    error = await failure(large, answer_bytes_max=100_000)
    assert isinstance(error, AnswerTooLarge)
    assert map_http_failure(error)[:2] == ("may_have_arrived", "answer_too_large")


async def test_packed_answer_is_unpacked_and_cookies_are_not_kept() -> None:
    heads: list[bytes] = []

    async def packed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = gzip.compress(b'{"ok":true}')
        head = b"Content-Encoding: gzip\r\nSet-Cookie: tenant=a\r\nConnection: close\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(sent))
        writer.write(sent)
        await writer.drain()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await packed(reader, writer)
        writer.close()

    running = await asyncio.start_server(run, "127.0.0.1", 0)
    async with running, open_client(allow_private=anywhere) as client:
        url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/"
        assert (await client.get(url)).json() == {"ok": True}
        await client.get(url)
    assert len(heads) == 2
    assert b"cookie" not in heads[1].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://127.1:{port}/",
        "http://2130706433:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://\u2460\u2461\u2466.0.0.1:{port}/",
    ],
)
async def test_private_address_is_refused(url: str) -> None:
    async def reached(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pytest.fail("the request went out")

    async with server(reached) as port, open_client() as client:
        with pytest.raises((httpx.TransportError, httpx.InvalidURL)) as caught:
            await client.get(url.format(port=port))
    sent, code, _ = map_http_failure(caught.value)
    assert sent == "never_sent"
    assert code in ("address_refused", "bad_url")  # the latter for numbers in no usual spelling


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "2002:7f00:1::",
        "::",
        "nonsense",
    ],
)
def test_address_that_is_not_public_is_told(address: str) -> None:
    assert not is_public(address)


def test_public_address_is_told() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2606:4700::1111")


def test_settings_allow_the_hosts_they_name_and_no_other() -> None:
    settings = Settings(
        sandbox_port=9000,
        providers={"slack": ProviderOverride(base_url="https://gateway.internal/slack")},
    )
    allow = allowed_by(settings)
    assert allow("127.0.0.1", 9000)
    assert allow("gateway.internal", 443)
    assert not allow("127.0.0.1", 9001)
    assert not allow("gateway.internal", 80)


async def test_redirect_is_not_followed() -> None:
    async def away(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n")
        await writer.drain()

    async with server(away) as port, open_client(allow_private=anywhere) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 302
