"""Plays Slack and Salesforce at full speed: `python -m bench.double`.

Answers `…/chat.postMessage` and `…/sobjects/Lead`, and notes when each call came by the mark in its
body (`nb<phase>x<number>`). Whatever else is asked, OAuth above all, is passed on to the product's
own sandbox, so that accounts are connected as always.

    POST /__sandbox {"url": …}       where the rest goes
    GET  /__count?phase=1            {"slack": how many executions called, "salesforce": …}
    GET  /__calls?phase=1            {"slack": {"0": [ns, …]}, "salesforce": {…}}

Times are CLOCK_MONOTONIC, the same for all processes of the machine.
"""

import argparse
import asyncio
import re
import time
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

import aiohttp
import orjson
import uvloop

from bench.plain_http import ServerConnection, http_answer

MARK = re.compile(rb"nb(\d+)x(\d+)")
_SLACK = http_answer(
    "200 OK",
    orjson.dumps(
        {
            "ok": True,
            "channel": "C024BE91L",
            "ts": "1503435956.000247",
            "message": {"type": "message", "text": "New customer", "ts": "1503435956.000247"},
        }
    ),
)
_SALESFORCE = http_answer(
    "201 Created", orjson.dumps({"id": "00Q5e00000AbCdEEAV", "success": True, "errors": []})
)
_HOP_BY_HOP = {b"host", b"connection", b"content-length", b"transfer-encoding", b"accept-encoding"}

Calls = dict[int, dict[int, list[int]]]


class Double:
    """What was called when."""

    def __init__(self) -> None:
        self.calls: dict[str, Calls] = {
            vendor: defaultdict(lambda: defaultdict(list)) for vendor in ("slack", "salesforce")
        }
        self.sandbox = ""
        self.session: aiohttp.ClientSession | None = None

    def connection(self) -> ServerConnection:
        """Build what serves one connection."""
        connection: ServerConnection

        def handle(target: bytes, body: bytes) -> "bytes | asyncio.Future[bytes]":
            path = target.partition(b"?")[0]
            if path.endswith(b"/chat.postMessage"):
                return self._note("slack", body, _SLACK)
            if path.endswith(b"/sobjects/Lead"):
                return self._note("salesforce", body, _SALESFORCE)
            if path.startswith(b"/__"):
                return self._steer(target.decode(), body)
            return asyncio.ensure_future(self._pass_on(connection, target.decode(), body))

        connection = ServerConnection(handle)
        return connection

    def _note(self, vendor: str, body: bytes, answer: bytes) -> bytes:
        mark = MARK.search(body)
        if mark is not None:
            self.calls[vendor][int(mark[1])][int(mark[2])].append(time.monotonic_ns())
        return answer

    def _steer(self, target: str, body: bytes) -> bytes:
        url = urlsplit(target)
        if url.path == "/__sandbox":
            self.sandbox = orjson.loads(body)["url"]
            return http_answer("200 OK", b"{}")
        phase = int(parse_qs(url.query)["phase"][0])
        if url.path == "/__count":
            counts = {vendor: len(calls[phase]) for vendor, calls in self.calls.items()}
            return http_answer("200 OK", orjson.dumps(counts))
        found = {vendor: calls[phase] for vendor, calls in self.calls.items()}
        return http_answer("200 OK", orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS))

    async def _pass_on(self, connection: ServerConnection, target: str, body: bytes) -> bytes:
        if self.session is None:
            self.session = aiohttp.ClientSession(auto_decompress=False)
        headers = [
            (name.decode(), value.decode())
            for name, value in connection.headers
            if name not in _HOP_BY_HOP
        ]
        try:
            async with self.session.request(
                connection.method.decode(),
                self.sandbox + target,
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError as error:
            return http_answer("502 Bad Gateway", str(error).encode(), "text/plain")
        lines = [
            f"{name}: {value}"
            for name, value in answer.headers.items()
            if name.lower().encode() not in _HOP_BY_HOP
        ]
        head = f"HTTP/1.1 {answer.status} {answer.reason}"
        lines = [head, *lines, f"content-length: {len(content)}", "", ""]
        return "\r\n".join(lines).encode() + content


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    double = Double()
    server = await asyncio.get_running_loop().create_server(double.connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    uvloop.run(serve(parser.parse_args().port))
