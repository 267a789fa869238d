"""The control API put together from its nouns; nothing happens at import.

app.include_router(build_router(ports))
app.add_middleware(Border, ports=ports)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request

from control import statements
from control.api import (
    api_keys,
    auth,
    cancellations,
    completeness,
    deadletters,
    events,
    executions,
    files,
    members,
    polls,
    replays,
    webhook_endpoints,
    workflows,
    workspaces,
)
from control.api.border import Border
from control.api.integrations import Integrations
from control.core.address import networks
from control.core.lint import CatalogueActions
from control.definitions import Definitions
from control.doors import Doors
from control.keys import ApiKeys
from control.passwords import Passwords
from control.ports import Ports, Sealer
from control.sessions import Sessions
from control.signing import LIFE_S, SigningKeys
from control.store import idempotency, people, signing
from control.store import members as member_rows
from control.throttle import Throttle
from schemas.errors import NeighbourhoodError
from schemas.provider import Catalogue
from schemas.settings import Settings
from token_vault.subscriptions import Subscriptions
from wire.bus import KafkaPublisher, Log, Publisher
from wire.clock import now, now_us
from wire.database import Pool, connection, open_pool
from wire.files import forget_old as forget_files
from wire.problems import install
from wire.usage import Usage

HEAL_EVERY_S: Final = 10.0
TIDY_EVERY_S: Final = 600.0
STATE_EVERY_S: Final = 60.0
STOP_S: Final = 5.0
_log = structlog.get_logger()


def build_ports(  # noqa: PLR0913 - the composition root hands everything over
    settings: Settings,
    pool: Pool,
    publisher: Publisher,
    log: Log,
    catalogue: Catalogue,
    sealer: Sealer,
    subscriptions: Subscriptions,
) -> Ports:
    """Put the ports together.

    Raises:
        InvalidInput: A setting says nothing sensible.
    """
    networks(settings.trusted_proxies)
    keys = ApiKeys(pool)
    sessions = Sessions(pool, SigningKeys(pool, sealer), settings.gateway_url)
    return Ports(
        settings=settings,
        pool=pool,
        publisher=publisher,
        log=log,
        catalogue=catalogue,
        sealer=sealer,
        keys=keys,
        sessions=sessions,
        doors=Doors(keys, sessions),
        passwords=Passwords(),
        throttle=Throttle(settings.redis_url),
        definitions=Definitions(pool, publisher, now_us),
        actions=CatalogueActions(catalogue),
        subscriptions=subscriptions,
        usage=Usage(pool),
    )


def build_router(ports: Ports) -> APIRouter:
    """Build all routes of the control API; mount them behind `Border`."""

    async def bind(request: Request) -> None:
        request.state.control = ports

    router = APIRouter(dependencies=[Depends(bind)])
    for noun in (
        auth,
        workspaces,
        members,
        api_keys,
        workflows,
        cancellations,
        executions,
        events,
        deadletters,
        files,
        webhook_endpoints,
        polls,
        completeness,
        replays,
    ):
        noun.add_routes(router)
    Integrations(ports.catalogue).add_routes(router)
    return router


def build_app(ports: Ports) -> FastAPI:
    """Build an app of the control API alone."""
    app = FastAPI(title="NeighbourHood control API")
    install(app)
    app.include_router(build_router(ports))
    app.add_middleware(Border, ports=ports)
    return app


@contextlib.asynccontextmanager
async def chores(ports: Ports) -> AsyncIterator[None]:
    """Do what must be done beside the requests: heal definitions, drop what is too old."""
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(_every(HEAL_EVERY_S, stop, lambda: _heal(ports.definitions))),
        asyncio.create_task(_every(TIDY_EVERY_S, stop, lambda: _tidy(ports.pool))),
        asyncio.create_task(_every(STATE_EVERY_S, stop, lambda: _state(ports))),
    ]
    try:
        yield
    finally:
        # What is under way may end by itself: a query that is cut off costs its connection.
        stop.set()
        _, left = await asyncio.wait(tasks, timeout=STOP_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _every(seconds: float, stop: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    while not stop.is_set():
        try:
            await work()
        except NeighbourhoodError as error:
            _log.warning("control.chore_waits", code=error.code, detail=error.detail)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


async def _heal(definitions: Definitions) -> None:
    healed = await definitions.heal()
    if healed:
        _log.warning("definitions.healed", workflows=healed)


async def _state(ports: Ports) -> None:
    await statements.issue(statements.Ports(ports.pool, ports.log, ports.sealer), now())


async def _tidy(pool: Pool) -> None:
    async with connection(pool) as on:
        await idempotency.forget_old(on)
        await people.forget_old(on)
        await member_rows.forget_old(on)
        await signing.forget_old(on, now() - timedelta(seconds=2 * LIFE_S))
    await forget_files(pool)


async def republish_definitions(settings: Settings) -> int:
    """Write every workflow version to nhood.definitions.v1 again, for a log that was lost.

    Returns:
        How many records were written.

    Raises:
        DependencyDown: Postgres or Kafka is away; run it again, it does no harm.
    """
    pool = await open_pool(settings.database_url.reveal(), max_size=1, name="republish")
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers, "nhood-republish")
    await publisher.start()
    try:
        return await Definitions(pool, publisher, now_us).republish()
    finally:
        await publisher.close()
        await pool.close()
