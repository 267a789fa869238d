"""The floor: the same two calls by a bare aiohttp program that keeps nothing.

`python -m bench.floor PORT DOUBLE_PORT`. A webhook is answered 202 at once, then Slack and
Salesforce are called one after the other. No signature, no log, no database, no retry: what is lost
is lost.
"""

import argparse
import asyncio

import aiohttp
import orjson
import uvloop
from aiohttp import web

CALLS_AT_A_TIME = 64


class Floor:
    """Takes webhooks and calls."""

    def __init__(self, double: str) -> None:
        self._slack = f"{double}/slack/api/chat.postMessage"
        self._lead = f"{double}/salesforce/services/data/v62.0/sobjects/Lead"
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(CALLS_AT_A_TIME)
        connector = aiohttp.TCPConnector(limit=CALLS_AT_A_TIME)
        self._session = aiohttp.ClientSession(connector=connector)

    async def post(self, request: web.Request) -> web.Response:
        """Take one webhook."""
        event = orjson.loads(await request.read())
        task = asyncio.create_task(self._run(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.Response(status=202, body=b"{}", content_type="application/json")

    async def _run(self, event: dict[str, dict[str, str]]) -> None:
        customer = event["customer"]
        async with self._free:
            message = {"channel": "#sales", "text": f"New customer: {customer['name']}"}
            await self._call(self._slack, message)
            lead = {
                "FirstName": customer["first_name"],
                "LastName": customer["last_name"],
                "Company": customer["company"],
                "Email": customer["email"],
            }
            await self._call(self._lead, lead)

    async def _call(self, url: str, body: dict[str, str]) -> None:
        headers = {"content-type": "application/json", "authorization": "Bearer none"}
        async with self._session.post(url, data=orjson.dumps(body), headers=headers) as answer:
            orjson.loads(await answer.read())


async def serve(port: int, double_port: int) -> None:
    """Serve until the process is ended."""
    floor = Floor(f"http://127.0.0.1:{double_port}")
    app = web.Application()
    app.router.add_post("/webhooks/{tail:.*}", floor.post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("double_port", type=int)
    given = parser.parse_args()
    uvloop.run(serve(given.port, given.double_port))
