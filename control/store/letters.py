"""Reads `dead_letters` (the projector writes them) and keeps `redrives`: what was sent again."""

from collections.abc import Mapping
from typing import Any, Final

from psycopg.types.json import Jsonb

from control.store.query import Borrowed, Row, row, rows, run
from schemas.events import Place

_COLUMNS: Final = (
    'd.topic, d.partition, d."offset", d.workspace_id, d.stage, d.class, d.code, d.reason,'
    " d.attempts, d.at, d.letter_partition, d.letter_offset,"
    " r.begun_at AS redriven_at, r.by AS redriven_by, r.times AS redriven_times,"
    " r.place AS redriven_place"
)
_FROM: Final = (
    "FROM dead_letters d LEFT JOIN redrives r"
    ' ON (r.topic, r.partition, r."offset") = (d.topic, d.partition, d."offset")'
)
_EQUAL: Final = ("class", "code", "stage", "topic")
_ORDER: Final = 'd.at, d.topic, d.partition, d."offset"'
_NEWEST: Final = 'd.at DESC, d.topic DESC, d.partition DESC, d."offset" DESC'


def _conditions(workspace: str | None, wanted: Mapping[str, Any]) -> str:
    """Write the filter; `workspace` None is the operator, who sees all."""
    found = [f'd."{name}" = %({name})s' for name in _EQUAL if wanted.get(name) is not None]
    if workspace is not None or wanted.get("workspace") is not None:
        found.append("d.workspace_id = %(workspace)s")
    if wanted.get("since") is not None:
        found.append("d.at >= %(since)s")
    if wanted.get("until") is not None:
        found.append("d.at < %(until)s")
    if wanted.get("redriven") is not None:
        found.append(f"r.topic IS {'NOT ' if wanted['redriven'] else ''}NULL")
    return " AND ".join(found) or "true"


async def page(
    on: Borrowed,
    workspace: str | None,
    wanted: Mapping[str, Any],
    after: tuple[int, Place] | None,
    limit: int,
) -> list[Row]:
    """List letters, newest first.

    Args:
        on: The connection.
        workspace: Whose; None: everybody's, for the operator.
        wanted: class, code, stage, topic, since, until, redriven, and for the operator workspace,
            where not None.
        after: Time (microseconds) and place of the last one shown.
        limit: How many at most.
    """
    where = _conditions(workspace, wanted)
    arguments = {**wanted, "limit": limit}
    if workspace is not None:
        arguments["workspace"] = workspace
    if after is not None:
        micros, place = after
        where += (
            ' AND (d.at, d.topic, d.partition, d."offset")'
            " < ('epoch'::timestamptz + %(us)s::bigint * interval '1 microsecond',"
            " %(t)s, %(p)s, %(o)s)"
        )
        arguments |= {"us": micros, "t": place.topic, "p": place.partition, "o": place.offset}
    return await rows(
        on,
        f"SELECT {_COLUMNS}, (extract(epoch FROM d.at) * 1000000)::bigint AS sort_us"  # noqa: S608
        f" {_FROM} WHERE {where} ORDER BY {_NEWEST} LIMIT %(limit)s",
        arguments,
    )


async def oldest(
    on: Borrowed, workspace: str | None, wanted: Mapping[str, Any], limit: int
) -> list[Row]:
    """Give the letters of a filter in the order in which they came (arguments as in `page`)."""
    arguments = {**wanted, "limit": limit}
    if workspace is not None:
        arguments["workspace"] = workspace
    return await rows(
        on,
        f"SELECT {_COLUMNS} {_FROM} WHERE {_conditions(workspace, wanted)}"
        f" ORDER BY {_ORDER} LIMIT %(limit)s",
        arguments,
    )


async def count(on: Borrowed, workspace: str | None, wanted: Mapping[str, Any]) -> int:
    """Say how many letters a filter has (arguments as in `page`)."""
    arguments = dict(wanted) if workspace is None else {**wanted, "workspace": workspace}
    found = await row(
        on,
        f"SELECT count(*) AS n {_FROM} WHERE {_conditions(workspace, wanted)}",
        arguments,
    )
    return int(found["n"]) if found else 0


async def get(on: Borrowed, workspace: str | None, place: Place) -> Row | None:
    """Give one letter; `workspace` None is the operator."""
    return await row(
        on,
        f"SELECT {_COLUMNS} {_FROM} WHERE d.topic = %(t)s AND d.partition = %(p)s"
        ' AND d."offset" = %(o)s AND (%(w)s::text IS NULL OR d.workspace_id = %(w)s)',
        {"t": place.topic, "p": place.partition, "o": place.offset, "w": workspace},
    )


async def claim(
    on: Borrowed, letter: Place, workspace: str | None, by: str, *, again: bool
) -> bool:
    """Note that a letter is about to be sent; False: it was already, and not `again` is meant."""
    conflict = "DO NOTHING"
    if again:
        conflict = (
            '(topic, partition, "offset") DO UPDATE SET by = excluded.by, place = NULL,'
            " begun_at = excluded.begun_at, times = redrives.times + 1"
        )
    touched = await run(
        on,
        'INSERT INTO redrives (topic, partition, "offset", workspace_id, by, begun_at)'  # noqa: S608
        f" VALUES (%s, %s, %s, %s, %s, now()) ON CONFLICT {conflict}",
        (letter.topic, letter.partition, letter.offset, workspace, by),
    )
    return touched == 1


async def sent(on: Borrowed, letter: Place, place: Place) -> None:
    """Note where a letter's record stands now."""
    told = {"topic": place.topic, "partition": place.partition, "offset": place.offset}
    await run(
        on,
        'UPDATE redrives SET place = %s WHERE topic = %s AND partition = %s AND "offset" = %s',
        (Jsonb(told), letter.topic, letter.partition, letter.offset),
    )


async def give_back(on: Borrowed, letter: Place) -> None:
    """Forget a claim of which nothing came: the broker refused the record."""
    await run(
        on,
        'DELETE FROM redrives WHERE topic = %s AND partition = %s AND "offset" = %s'
        " AND place IS NULL AND times = 1",
        (letter.topic, letter.partition, letter.offset),
    )
