"""Tables that forget: partitions by time, of which the oldest is dropped whole.

A rotated table is `PARTITION BY LIST (slot)`. A slot is the day on which a partition was begun and
names it; new rows go to the newest, since its slot is the column's default. Moving on to a new one
is one transaction that waits for every writer and lets none in meanwhile, so whoever writes after
it sees all that was written before. A key that is looked for in every partition before it is
written to the newest is therefore there once, although a unique index of a partitioned table holds
within a partition only.

Kept is everything at least for the days that are wanted, and at most half as long again.
"""

import itertools
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta

import structlog
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from wire.database import Pool, connection

_log = structlog.get_logger()

SLOTS = 2  # that make up the days to keep: the more, the more indexes a look-up visits
LOCK_TIMEOUT_MS = 5_000  # a reader that takes long must not hold up the writers behind us
EVERY_S = 3_600.0
# Options of a connection that looks keys up: by index and planned once, whatever the statistics of
# a partition say that was begun a minute ago.
BY_INDEX = " ".join(
    f"-c {name}"
    for name in (
        "enable_seqscan=off",
        "enable_hashjoin=off",
        "enable_mergejoin=off",
        "plan_cache_mode=force_generic_plan",
    )
)

_PARTITIONS = """
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = %s::regclass
"""
_TODAY = "SELECT (now() AT TIME ZONE 'utc')::date"
_PARTITION = re.compile(r"^\w+_\d{8}$")


def is_partition(table: str) -> bool:
    """Say whether a table's name is that of a partition."""
    return _PARTITION.match(table) is not None


async def rotate(
    on: AsyncConnection[TupleRow], table: str, keep_days: int, today: date | None = None
) -> list[str]:
    """Begin a new partition where one is due, and drop those whose time is over.

    Any number of processes may, at the same time and as often as they like.

    Args:
        on: Where; the change is made when its transaction is committed.
        table: A table of this kind.
        keep_days: How long a row is kept at least.
        today: For tests; PostgreSQL's own day (UTC) otherwise, since the rows' times are its too.

    Returns:
        The partitions that are there then, oldest first.

    Raises:
        psycopg.Error: Nothing was changed.
    """
    await on.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_TIMEOUT_MS}ms",))
    lock = f"nhood.rotation.{table}"
    await on.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock,))
    day = today
    if day is None:
        ((day,),) = await (await on.execute(_TODAY)).fetchall()
    found = await (await on.execute(_PARTITIONS, (table,))).fetchall()
    slots = sorted(_slot(name) for (name,) in found)
    if not slots or day - slots[-1] >= timedelta(max(1, keep_days // SLOTS)):
        await _begin(on, table, day)
        slots.append(day)
    # The youngest row of a partition was written on the day on which the next one was begun.
    old = [slot for slot, after in itertools.pairwise(slots) if day - after > timedelta(keep_days)]
    for slot in old:
        name = _name(table, slot)
        await on.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        _log.info("rotation.dropped", table=name)
    return [_name(table, slot) for slot in slots if slot not in old]


async def _begin(on: AsyncConnection[TupleRow], table: str, slot: date) -> None:
    names = {
        "table": sql.Identifier(table),
        "partition": sql.Identifier(_name(table, slot)),
        "slot": sql.Literal(slot.isoformat()),
    }
    for text in (
        # First: who writes has ended then, and nobody begins before we have.
        "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        "CREATE TABLE {partition} PARTITION OF {table} FOR VALUES IN ({slot})",
        "ALTER TABLE {table} ALTER COLUMN slot SET DEFAULT {slot}",
    ):
        await on.execute(sql.SQL(text).format(**names))
    _log.info("rotation.begun", table=_name(table, slot))


def _name(table: str, slot: date) -> str:
    return f"{table}_{slot:%Y%m%d}"


def _slot(name: str) -> date:
    return datetime.strptime(name.rpartition("_")[2], "%Y%m%d").date()  # noqa: DTZ007 - a day


class Rotation:
    """Rotates some tables; any number of processes may have one.

    Args:
        pool: Where.
        tables: Table -> days to keep.
    """

    def __init__(self, pool: Pool, tables: Mapping[str, int]) -> None:
        self._pool = pool
        self._tables = tables

    async def turn(self) -> bool:
        """Do what is due; False: there is nothing more to do at once.

        Raises:
            DependencyDown: The database is away, or a reader held a table for too long.
        """
        for table, keep_days in self._tables.items():
            async with connection(self._pool) as on:
                await rotate(on, table, keep_days)
        return False
