"""What the commands that work on the log share: servers opened for one run, times read, exits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from schemas.errors import InvalidInput
from schemas.settings import Settings
from wire.bus import KafkaLog, KafkaPublisher
from wire.database import Pool, migrate, open_pool

T = TypeVar("T")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Open:
    """Servers, open."""

    settings: Settings
    pool: Pool
    publisher: KafkaPublisher
    log: KafkaLog


def run(settings: Settings, name: str, work: Callable[[Open], Awaitable[T]]) -> T:
    """Open Kafka and Postgres, do something, close them.

    Raises:
        DependencyDown: One of them does not answer.
    """
    migrate(settings.database_url.reveal())

    async def do() -> T:
        async with _opened(settings, name) as found:
            return await work(found)

    return asyncio.run(do())


@contextlib.asynccontextmanager
async def _opened(settings: Settings, name: str) -> AsyncIterator[Open]:
    bootstrap = settings.kafka_bootstrap_servers
    pool = await open_pool(settings.database_url.reveal(), max_size=4, name=name)
    publisher = KafkaPublisher(bootstrap, f"nhood-{name}")
    await publisher.start()
    try:
        yield Open(settings, pool, publisher, KafkaLog(bootstrap, f"nhood-{name}"))
    finally:
        await publisher.close()
        await pool.close()


def read_time(text: str, now: datetime) -> datetime:
    """Read a moment: `2026-01-31T08:00:00Z`, a date, or how long ago (`90s`, `15m`, `2h`, `3d`).

    Args:
        text: As it was typed; without a zone it is UTC.
        now: UTC.

    Raises:
        InvalidInput: `bad_time`.
    """
    if text[-1:] in _UNITS and text[:-1].isdigit():
        return now - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
    if text == "now":
        return now
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{text!r} is no time; write 2026-01-31T08:00:00Z, or 15m, 2h, 3d for how long ago.",
            code="bad_time",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
