"""The ledger of effects: what was begun and what came of it, in Postgres, committed in groups.

Before a call its effect is written as `started`, after it as `done` with the result. A command that
comes again is answered from `done`; `started` without `done` means that nobody knows. Many steps
share one transaction: whoever comes while one is being committed goes into the next.
"""

import asyncio
import contextlib
from dataclasses import dataclass

import psycopg
import structlog
from psycopg.rows import TupleRow

from schemas.settings import Secret
from wire.rotation import BY_INDEX

_log = structlog.get_logger()
GROUP_MAX = 500  # effects in one transaction: bounds its memory and its time
_RECONNECT_S = 0.5

# Keys come as lines of one text: psycopg writes a list of texts in Python, item by item.
# An effect may stand in any partition (`wire.rotation`), new ones go to the newest.
_BEGIN = """
    INSERT INTO effects (effect_key, workspace_id, status)
    SELECT news.effect_key, news.workspace_id, 'started'
    FROM unnest(string_to_array(%s, E'\n'), string_to_array(%s, E'\n'))
        AS news(effect_key, workspace_id)
    WHERE NOT EXISTS (SELECT FROM effects WHERE effects.effect_key = news.effect_key)
    ON CONFLICT (effect_key, slot) DO NOTHING RETURNING effect_key
"""
_AGAIN = """
    UPDATE effects SET status = 'started'
    WHERE effect_key = ANY(%s) AND status = 'waiting' RETURNING effect_key
"""
_FIND = "SELECT effect_key, status, result FROM effects WHERE effect_key = ANY(%s)"
_FINISH = """
    UPDATE effects SET status = 'done', result = news.result, done_at = now()
    FROM unnest(string_to_array(%s, E'\n'), %b::bytea[]) AS news(effect_key, result)
    WHERE effects.effect_key = news.effect_key AND effects.status <> 'done'
"""
_WAIT = "UPDATE effects SET status = 'waiting' WHERE effect_key = ANY(%s) AND status <> 'done'"
_RECORD = """
    UPDATE effects SET status = 'done', done_at = now(),
        result = CASE WHEN status = 'done' THEN result ELSE %s END
    WHERE effect_key = %s RETURNING result
"""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody began this effect before, or it is known that nothing came of it yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Its next attempt is a timer's affair."""


@dataclass(frozen=True, slots=True)
class Begun:
    """It was begun and nobody knows whether it happened."""


@dataclass(frozen=True, slots=True)
class Done:
    """It was carried out; `result` is the StepFinished that was recorded, as bytes."""

    result: bytes


Entry = Fresh | Begun | Waiting | Done


_Row = tuple[str, str, bytes | None]
_Connection = psycopg.AsyncConnection[_Row]
_Cursor = psycopg.AsyncCursor[_Row]


@dataclass(slots=True)
class _Begin:
    effect_key: str
    workspace_id: str
    again: bool
    answer: "asyncio.Future[Entry]"


@dataclass(slots=True)
class _Finish:
    effect_key: str
    result: bytes | None  # None: it waits for its next attempt
    answer: "asyncio.Future[None]"


class Ledger:
    """Groups what comes at the same time into one transaction after the other."""

    def __init__(self, database_url: Secret) -> None:
        self._url = database_url
        self._begins: list[_Begin] = []
        self._finishes: list[_Finish] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: _Connection | None = None

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._serve(), name="ledger")

    async def close(self) -> None:
        """Stop writing; what was not answered is not recorded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def begin(self, workspace_id: str, effect_key: str, *, again: bool = False) -> Entry:
        """Write an effect as started, unless it is known; waits while Postgres is away.

        Args:
            workspace_id: Whose.
            effect_key: Which.
            again: A timer brought the command back: one that waits is started again.
        """
        answer: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._begins.append(_Begin(effect_key, workspace_id, again, answer))
        self._wake.set()
        return await answer

    async def finish(self, effect_key: str, result: bytes) -> None:
        """Write what came of an effect; waits while Postgres is away."""
        await self._end(effect_key, result)

    async def wait(self, effect_key: str) -> None:
        """Write that nothing came of an effect yet and a timer brings it back."""
        await self._end(effect_key, None)

    async def _end(self, effect_key: str, result: bytes | None) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._finishes.append(_Finish(effect_key, result, answer))
        self._wake.set()
        await answer

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._begins or self._finishes:
                begins, self._begins = self._begins[:GROUP_MAX], self._begins[GROUP_MAX:]
                ends, self._finishes = self._finishes[:GROUP_MAX], self._finishes[GROUP_MAX:]
                await self._commit_until_done(begins, ends)

    async def _commit_until_done(self, begins: list[_Begin], ends: list[_Finish]) -> None:
        while True:
            try:
                known = await self._commit(begins, ends)
            except psycopg.Error as error:
                _log.warning("ledger.unreachable", error=type(error).__name__)
                await self._drop_connection()
                await asyncio.sleep(_RECONNECT_S)
            else:
                _answer(begins, ends, known)
                return

    async def _commit(self, begins: list[_Begin], ends: list[_Finish]) -> dict[str, Entry]:
        """Write one group.

        Returns:
            What was known of each effect that was to begin. A retry after a lost commit answer
            finds its own `started` and calls it Begun: careful, never wrong.
        """
        connection = await self._connected()
        unique = {begin.effect_key: begin for begin in begins}
        again = [key for key, begin in unique.items() if begin.again]
        revived: _Cursor | None = None
        begun: _Cursor | None = None
        # One statement commits by itself; several are one transaction in one round trip.
        alone = not (ends and begins) and not again
        async with contextlib.nullcontext() if alone else connection.pipeline():
            await self._finish(connection, ends)
            if again:
                revived = await connection.execute(_AGAIN, (again,))
            if unique:
                owners = [begin.workspace_id for begin in unique.values()]
                begun = await connection.execute(_BEGIN, ("\n".join(unique), "\n".join(owners)))
        fresh = [row[0] for part in (revived, begun) if part for row in await part.fetchall()]
        known: dict[str, Entry] = dict.fromkeys(fresh, Fresh())
        if old := [key for key in unique if key not in known]:
            found = await connection.execute(_FIND, (old,))
            for key, status, result in await found.fetchall():
                known[key] = _entry(status, result)
        return known

    async def _finish(self, connection: _Connection, ends: list[_Finish]) -> None:
        done = [end for end in ends if end.result is not None]
        if done:
            keys = [end.effect_key for end in done]
            await connection.execute(_FINISH, ("\n".join(keys), [end.result for end in done]))
        if len(done) < len(ends):
            waiting = [end.effect_key for end in ends if end.result is None]
            await connection.execute(_WAIT, (waiting,))

    async def _connected(self) -> _Connection:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url.reveal(),
                autocommit=True,
                application_name="nhood-ledger",
                options=BY_INDEX,
            )
        return self._connection

    async def _drop_connection(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _entry(status: str, result: bytes | None) -> Entry:
    if status == "done" and result:
        return Done(result)
    return Waiting() if status == "waiting" else Begun()


def _answer(begins: list[_Begin], ends: list[_Finish], known: dict[str, Entry]) -> None:
    told: set[str] = set()
    for begin in begins:
        entry = known.get(begin.effect_key, Begun())  # it went away just now: nobody knows
        if begin.effect_key in told and isinstance(entry, Fresh):
            entry = Begun()  # the same command twice at the same time: only one is fresh
        told.add(begin.effect_key)
        if not begin.answer.done():
            begin.answer.set_result(entry)
    for end in ends:
        if not end.answer.done():
            end.answer.set_result(None)


async def record(
    on: psycopg.AsyncConnection[TupleRow], workspace_id: str, effect_key: str, result: bytes
) -> bytes:
    """Write what came of an effect without a call; gives what stands: the first one recorded."""
    cursor = await on.execute(_RECORD, (result, effect_key))
    row = await cursor.fetchone()
    if row is None:
        await on.execute(_BEGIN, (effect_key, workspace_id))
        cursor = await on.execute(_RECORD, (result, effect_key))
        row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - it was there, or is there now
    return bytes(row[0])
