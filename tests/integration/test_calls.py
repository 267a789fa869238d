"""wire.calls against real sockets: what it raises means what wire.http's errors mean."""

import asyncio
import gzip
import socket

import httpx
import pytest

from tests.integration.test_http_client import (
    anywhere,
    hang_up,
    reset,
    rubbish,
    server,
    truncate,
)
from wire.calls import AiohttpCalls
from wire.http import ANSWER_BYTES_MAX, AnswerTooLarge, map_http_failure, nobody


@pytest.mark.parametrize("handler", [reset, hang_up, truncate, rubbish])
async def test_call_without_whole_answer_may_have_arrived(handler):
    async with server(handler) as port, AiohttpCalls(anywhere) as calls:
        with pytest.raises(httpx.TransportError) as caught:
            await calls.send("POST", f"http://127.0.0.1:{port}/", {}, b"{}")
    assert map_http_failure(caught.value)[0] == "may_have_arrived"


async def test_refused_connection_was_never_sent():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with AiohttpCalls(anywhere) as calls:
        with pytest.raises(httpx.ConnectError) as caught:
            await calls.send("POST", f"http://127.0.0.1:{port}/", {}, None)
    assert map_http_failure(caught.value)[0] == "never_sent"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80/", "http://[::1]/", "http://169.254.169.254/", "http://localhost/"]
)
async def test_private_address_is_refused_before_anything_is_sent(url):
    async with AiohttpCalls(nobody) as calls:
        with pytest.raises(httpx.ConnectError) as caught:
            await calls.send("GET", url, {}, None)
    assert map_http_failure(caught.value)[0] == "never_sent"


async def test_packed_answer_is_unpacked_and_its_size_bounded():
    sizes = iter([10, ANSWER_BYTES_MAX + 1])

    async def packed(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = gzip.compress(b"x" * next(sizes))
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async with server(packed) as port, AiohttpCalls(anywhere) as calls:
        answer = await calls.send("GET", f"http://127.0.0.1:{port}/", {}, None)
        assert answer.content == b"x" * 10
        with pytest.raises(AnswerTooLarge):
            await calls.send("GET", f"http://127.0.0.1:{port}/", {}, None)


async def test_redirect_is_an_answer_like_any_other():
    async def elsewhere(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n"
        )
        await writer.drain()

    async with server(elsewhere) as port, AiohttpCalls(anywhere) as calls:
        answer = await calls.send("GET", f"http://127.0.0.1:{port}/", {}, None)
    assert (answer.status, answer.headers["location"]) == (302, "http://10.0.0.1/")
