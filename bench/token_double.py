"""Plays a vendor's token endpoint as fast as it can: `python -m bench.token_double <port>`.

POST /token     a new pair that lives an hour
GET  /count     how many refreshes came
"""

import argparse
import asyncio
import secrets

import orjson
import uvloop

from bench.plain_http import ServerConnection, http_answer


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    came = 0

    def handle(target: bytes, _body: bytes) -> bytes:
        nonlocal came
        if target == b"/count":
            return http_answer("200 OK", orjson.dumps(came))
        came += 1
        pair = {
            "access_token": secrets.token_urlsafe(32),
            "refresh_token": secrets.token_urlsafe(32),
            "expires_in": 3600,
        }
        return http_answer("200 OK", orjson.dumps(pair))

    def connection() -> ServerConnection:
        return ServerConnection(handle)

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    uvloop.run(serve(parser.parse_args().port))
