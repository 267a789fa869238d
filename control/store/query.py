"""Runs a statement and gives its rows as dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, dict_row

Borrowed = AsyncConnection[TupleRow]
Row = dict[str, Any]
Arguments = Mapping[str, Any] | Sequence[Any]


async def rows(on: Borrowed, sql: str, arguments: Arguments = ()) -> list[Row]:
    """Give all rows."""
    async with on.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql, arguments)
        return await cursor.fetchall()


async def row(on: Borrowed, sql: str, arguments: Arguments = ()) -> Row | None:
    """Give the first row, or None."""
    async with on.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql, arguments)
        return await cursor.fetchone()


async def run(on: Borrowed, sql: str, arguments: Arguments = ()) -> int:
    """Run a statement that gives no rows; say how many it touched."""
    cursor = await on.execute(sql, arguments)
    return cursor.rowcount
