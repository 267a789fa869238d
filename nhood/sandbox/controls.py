"""The sandbox's own addresses: what came in, faults to come, tokens to end; and a page for people.

GET    /_sandbox/received?provider=&since=&limit=   requests with answers, oldest first
DELETE /_sandbox/received
GET    /_sandbox/counts?provider=                   by action; effects that came more than once
GET    /_sandbox/faults    POST    DELETE           see `nhood.sandbox.faults`
POST   /_sandbox/expire {provider, account?}        access tokens end now
DELETE /_sandbox/records                            forget what was made
GET    /_sandbox/subscriptions?provider=            webhooks that were asked for over vendors' APIs
POST   /_sandbox/webhooks {provider, event?, url?}  send one, as the vendor does
"""

from html import escape
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from nhood.sandbox.faults import SCRIPTS_MAX, Faults, FaultScript
from nhood.sandbox.received import KEPT_MAX, Received
from nhood.sandbox.sending import send
from nhood.sandbox.vendor import World
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.provider import nearest
from wire import problems

SHOWN_MAX = 200

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sandbox: what came in</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: .95rem/1.45 system-ui, sans-serif; margin: 0; padding: 1rem 1.5rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884;
  vertical-align: top; }}
pre {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85em; }}
</style></head><body>
<h1>Sandbox</h1>
<p>Plays {vendors}. The last {shown} requests, newest first; all of them as JSON:
<a href="/_sandbox/received">/_sandbox/received</a>,
<a href="/_sandbox/counts">/_sandbox/counts</a>. <a href="/_sandbox/docs">All controls</a>.</p>
<table><thead><tr><th>No.</th><th>Vendor</th><th>Action</th><th>Request</th><th>Answer</th></tr>
</thead><tbody>{rows}</tbody></table>
</body></html>
"""


class Expire(BaseModel):
    """Whose access tokens end."""

    model_config = ConfigDict(extra="forbid")

    provider: str
    account: str | None = None


class Webhook(BaseModel):
    """What to send; without `url` to all that subscribed over the vendor's API."""

    model_config = ConfigDict(extra="forbid")

    provider: str
    event: str = Field("", description="Left out: the vendor's first sample.")
    url: str = Field("", description="A webhook endpoint's.")
    secret: str = Field("", description="What the endpoint was told; with `url`.")
    body: Any = Field(None, description="JSON in place of the sample's body.")


def build_controls(world: World, received: Received, faults: Faults) -> FastAPI:
    """Build the app."""
    app = FastAPIOffline(
        title="NeighbourHood sandbox",
        docs_url="/_sandbox/docs",
        openapi_url="/_sandbox/openapi.json",
        redoc_url=None,
        static_url="/_sandbox/static",
    )
    problems.install(app)
    _add_received(app, received)
    _add_faults(app, world, faults)
    _add_webhooks(app, world)
    _add_pages(app, world, received)

    @app.post("/_sandbox/expire", summary="End access tokens now")
    async def expire(body: Expire) -> dict[str, int]:
        _known(world, body.provider)
        return {"expired": world.grants.expire(body.provider, body.account)}

    @app.delete("/_sandbox/records", status_code=204, summary="Forget what was made")
    async def forget() -> None:
        world.accounts.clear()

    return app


def _add_received(app: FastAPI, received: Received) -> None:
    @app.get("/_sandbox/received", summary="What came in")
    async def show(
        provider: str | None = None,
        since: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=KEPT_MAX)] = KEPT_MAX,
    ) -> Response:
        items = received.since(provider, since, limit)
        return Response(orjson.dumps({"items": items}), media_type="application/json")

    @app.delete("/_sandbox/received", status_code=204, summary="Forget what came in")
    async def clear() -> None:
        received.clear()

    @app.get("/_sandbox/counts", summary="How often what came in")
    async def counts(provider: str | None = None) -> Response:
        return Response(orjson.dumps(received.counts(provider)), media_type="application/json")


def _add_faults(app: FastAPI, world: World, faults: Faults) -> None:
    @app.get("/_sandbox/faults", summary="What will go wrong")
    async def show() -> list[dict[str, Any]]:
        return [dict(item) for item in faults.shown()]

    @app.post("/_sandbox/faults", status_code=201, summary="Let something go wrong")
    async def add(script: FaultScript) -> dict[str, Any]:
        _known(world, script.provider)
        if not faults.add(script):
            raise Conflict(f"{SCRIPTS_MAX} faults wait already; delete them first.")
        return script.model_dump(mode="json")

    @app.delete("/_sandbox/faults", status_code=204, summary="Let nothing go wrong any more")
    async def clear() -> None:
        faults.clear()


def _add_webhooks(app: FastAPI, world: World) -> None:
    @app.get("/_sandbox/subscriptions", summary="What was subscribed to over vendors' APIs")
    async def show(provider: str) -> list[dict[str, Any]]:
        _known(world, provider)
        return [
            {"id": one.id, "account": one.account, "url": one.url, "renewed": one.renewed}
            for one in world.subscriptions.of(provider)
        ]

    @app.post("/_sandbox/webhooks", summary="Send a webhook as the vendor does")
    async def deliver(body: Webhook) -> list[dict[str, Any]]:
        _known(world, body.provider)
        spec = world.vendors[body.provider].spec
        found = [(one.url, one.secret) for one in world.subscriptions.of(body.provider)]
        targets = [(body.url, body.secret)] if body.url else found
        if not targets:
            text = f"Nobody subscribed to {spec.name}'s webhooks over its API: say where, in `url`."
            raise InvalidInput(text, code="no_subscription")
        done = [await send(spec, body.event, *target, body.body, _loopback) for target in targets]
        return [
            {
                "url": url,
                "event": one.event,
                "status": one.status,
                "answer": one.answer,
                "tries": one.tries,
            }
            for one, (url, _) in zip(done, targets, strict=True)
        ]


def _loopback(host: str, _port: int) -> bool:
    """Let webhooks out to this machine and to public addresses, to no other private one."""
    return host in {"127.0.0.1", "::1", "localhost"}


def _add_pages(app: FastAPI, world: World, received: Received) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        rows = "".join(_row(item) for item in received.last(SHOWN_MAX))
        names = ", ".join(escape(vendor.spec.name) for vendor in world.vendors.values())
        return HTMLResponse(_PAGE.format(vendors=names, shown=SHOWN_MAX, rows=rows))

    @app.get("/healthz", include_in_schema=False)
    @app.get("/readyz", include_in_schema=False)
    async def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})


def _row(item: dict[str, Any]) -> str:
    request = f"{item['method']} {item['path']}"
    if item["query"]:
        request += f"\n{orjson.dumps(item['query']).decode()}"
    if item["body"] is not None:
        request += f"\n{orjson.dumps(item['body'], option=orjson.OPT_INDENT_2).decode()}"
    answer = f"{item['status'] or 'broken off'}\n{item['answer'] or ''}"
    if item["fault"]:
        answer = f"fault: {item['fault']}\n{answer}"
    cells = (str(item["number"]), item["provider"], item["action"])
    texts = (request, answer)
    plain = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr>{plain}{''.join(f'<td><pre>{escape(t)}</pre></td>' for t in texts)}</tr>"


def _known(world: World, slug: str) -> None:
    if slug not in world.vendors:
        hint = nearest(slug, world.vendors) or f"; known: {', '.join(world.vendors)}"
        raise NotFound(f"The sandbox plays no {slug!r}{hint}", code="unknown_provider")
