"""The executors' composition root: one process that serves some or all providers."""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from executors.runtime.dispatch import Dispatch
from executors.runtime.driver import Driver
from executors.runtime.files import StepFiles
from executors.runtime.ledger import Ledger
from executors.runtime.parking import Parking
from executors.runtime.plans import Plans
from executors.runtime.poll_rows import PollRows
from executors.runtime.polling import LOOK_EVERY_S, Polling
from executors.runtime.releases import Releases
from executors.runtime.stopped import Stopped
from executors.runtime.worker import Job, Ports, Worker
from schemas.errors import InvalidInput, NotFound
from schemas.provider import Catalogue, load_catalogue
from schemas.settings import Settings
from schemas.topics import steps_topic
from token_vault.duties import repeating, vault_duties
from token_vault.vault import Vault
from wire.bus import KafkaPublisher
from wire.calls import AiohttpCalls
from wire.consumer import GroupConsumer
from wire.database import Pool, open_pool
from wire.files import file_store
from wire.gather import Gathered
from wire.http import allowed_by
from wire.reread import Reread
from wire.retention import tell_gaps
from wire.rotation import EVERY_S, Rotation
from wire.telemetry import (
    LAG,
    OLDEST_UNFINISHED,
    STEPS_PUT_OFF,
    STEPS_WAITING,
    configure_logging,
    start_ops_server,
)

_log = structlog.get_logger()

GROUP = "nhood-executors"
DRAIN_S = (
    20.0  # for calls under way when the process has to end; the rest is done by the next owner
)
LINGER_MS = 0.5  # `Gathered` makes the batches
_MEASURE_S = 2.0


@dataclass(slots=True)
class Executors:
    """What runs: stopped in the order of the fields."""

    consumer: GroupConsumer
    dispatch: Dispatch[Job]
    plans: Plans
    again: Reread

    async def measure(self) -> None:
        """Keep the gauges true, for ever."""
        while True:
            OLDEST_UNFINISHED.set(self.consumer.oldest_unfinished_s())
            STEPS_WAITING.set(self.dispatch.waiting)
            STEPS_PUT_OFF.set(self.dispatch.put_off)
            for topic, lag in self.consumer.lag.items():
                LAG.labels(stage="executors", topic=topic).set(lag)
            await asyncio.sleep(_MEASURE_S)


async def build(settings: Settings, pool: Pool, topics: Sequence[str], worker: Worker) -> Executors:
    """Put together what takes steps and gives them their turns; nothing begins yet."""
    bootstrap = settings.kafka_bootstrap_servers
    await tell_gaps("executors", bootstrap, GROUP, topics)
    again = Reread(bootstrap, "nhood-executors")
    plans = Plans(pool, lambda name, plan: dispatch.set_plan(name, plan))
    dispatch = Dispatch(
        settings.executor_calls, Job.read, worker.handle, lambda: consumer, again, plans.of
    )
    consumer = GroupConsumer(bootstrap, GROUP, topics, dispatch.deliver, losing=dispatch.abandon)
    return Executors(consumer, dispatch, plans, again)


def chosen_slugs(catalogue: Catalogue, wanted: tuple[str, ...] | None) -> list[str]:
    """List the providers to serve.

    Raises:
        InvalidInput: One of the wanted ones does not exist.
    """
    if not wanted:
        return [spec.slug for spec in catalogue]
    try:
        return [catalogue.get(slug).slug for slug in wanted]
    except NotFound as error:
        raise InvalidInput(error.public, code=error.code) from error


async def serve(settings: Settings, providers: tuple[str, ...] | None = None) -> None:
    """Run until SIGTERM or SIGINT, then let calls under way end.

    Raises:
        InvalidInput: A provider that does not exist.
        DependencyDown: Postgres cannot be reached at the start.
    """
    configure_logging("executors", settings.log_level)
    catalogue = load_catalogue()
    slugs = chosen_slugs(catalogue, providers)
    bootstrap = settings.kafka_bootstrap_servers
    pool = await open_pool(settings.database_url.reveal(), max_size=6, name="executors")
    vault = await Vault.open(settings, pool)
    publisher = KafkaPublisher(
        bootstrap, "nhood-executors", delivery_timeout_ms=60_000, linger_ms=LINGER_MS
    )
    ledger = Ledger(settings.database_url)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AiohttpCalls(allowed_by(settings)) as calls:
        stopped = Stopped()
        tail = await stopped.follow(bootstrap)
        files = StepFiles(file_store(pool, settings))
        driver = Driver(calls, vault.tokens, settings, vault.audit, stopped, files=files)
        await publisher.start()
        await ledger.start()
        worker = Worker(
            Ports(catalogue, ledger, driver, Gathered(publisher), Parking(pool), stopped),
            lambda: running.consumer,
        )
        running = await build(settings, pool, [steps_topic(slug) for slug in slugs], worker)
        running.plans.start()
        ops = start_ops_server(
            settings.host, settings.ops_port, lambda: running.consumer.ready and not stop.is_set()
        )
        releases = Releases(pool, publisher)
        running.consumer.start()
        gauges = asyncio.create_task(running.measure())
        async with (
            vault_duties(vault, publisher),
            repeating("release", releases.turn, 1.0),
            repeating(
                "poll",
                Polling(PollRows(pool), catalogue, driver, publisher, slugs).turn,
                LOOK_EVERY_S,
            ),
            repeating("rotation", Rotation(pool, {"effects": settings.ledger_days}).turn, EVERY_S),
        ):
            await _until(stop, running.consumer)
            await asyncio.to_thread(running.consumer.close)
            await running.dispatch.stop(DRAIN_S)
        gauges.cancel()
        await asyncio.to_thread(tail.close)
        await running.plans.close()
        await running.again.close()
        await ledger.close()
        await publisher.close()
        await vault.close()
        ops.close()
    await pool.close()
    if running.consumer.failure is not None:
        raise running.consumer.failure


async def _until(stop: asyncio.Event, consumer: GroupConsumer) -> None:
    """Wait for the signal, or for the consumer's thread to die."""
    while not stop.is_set() and consumer.failure is None:
        try:
            await asyncio.wait_for(stop.wait(), 1)
        except TimeoutError:
            continue
