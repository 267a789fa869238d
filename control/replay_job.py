"""Carries replays out: takes one by a lease, item after item, at its rate; survives kill -9.

An item is handled so that doing it twice does no harm: the new execution's id is made of the event,
the version and the replay's generation, and effect keys decide what is called. A process that dies
lets go of its replay when the lease ends, and another goes on with the items that are not settled.

It runs in the gateway: that has the publisher and the read side, there are several of them, and it
is the composition root, where the router's core (for dry runs) may be handed in.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson
import structlog
from msgspec.structs import replace

from control.core.pace import Pace
from control.core.replays import Change, differences, from_on, step_of
from control.places import Places
from control.store import replays as store
from control.store import workflows
from control.store.query import Borrowed, Row
from schemas import codec
from schemas.errors import CorruptEvent, InvalidInput, NeighbourhoodError
from schemas.events import Envelope, Payload, Place, ReplayRequested, StepFinished
from schemas.ids import execution_id
from schemas.incoming import read_event
from schemas.lineage import REDRIVEN_HEADER, origin, place_name
from schemas.plan import Plan, compile_workflow
from schemas.topics import EVENTS, RESULTS
from wire.bus import Log, Publisher, Record, publish_all
from wire.clock import now_us
from wire.database import Pool, connection

LEASE_S: Final = 10.0  # so long a dead process holds a replay back
KEEP_EVERY_S: Final = 2.0
CHUNK: Final = 50
STOP_S: Final = 5.0  # for the item under way when the process has to end
AHEAD: Final = 64  # events read at once: items are in the order of the log
POLL_S: Final = 1.0
_SOURCE: Final = "/control"
_log = structlog.get_logger()

Told = dict[str, Any]


class Engine(Protocol):
    """What a replay needs of the router's core."""

    def input_of(self, data: bytes, content_type: str) -> bytes:
        """Give an event's body as workflows read it, as JSON; ValueError where it is none."""
        ...

    def rehearse(
        self,
        plan: Plan,
        request: ReplayRequested,
        recorded: Mapping[str, Mapping[str, Any]],
        again: frozenset[str],
    ) -> dict[str, Any]:
        """Say what a replay would do."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What the job needs of the world."""

    pool: Pool
    publisher: Publisher
    log: Log
    engine: Engine


@dataclass(slots=True)
class _Past:
    """What is known of an execution that is run once more.

    Attributes:
        results: By step, or item of a loop, in the short form of the router's state.
        failed, unknown: Effect keys of the ledger's entries that are no successes.
    """

    row: Row
    plan: Plan
    input: bytes
    event: Place
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def good(self) -> dict[str, dict[str, Any]]:
        """Give the successes alone."""
        return {name: told for name, told in self.results.items() if told["s"] == "succeeded"}


class _Skip(Exception):  # noqa: N818 - a signal inside this module
    """An item cannot be replayed."""


class Job:
    """Works on replays, one at a time.

    Args:
        ports: The world.
        owner: Name of this process in leases.
    """

    def __init__(self, ports: Ports, owner: str = "") -> None:
        self._stop = asyncio.Event()
        self._ports = ports
        self._owner = owner or secrets.token_hex(8)
        self._places = Places(ports.log, AHEAD)
        self._plans: dict[tuple[str, int], Plan] = {}

    def stop(self) -> None:
        """Let go after the item under way."""
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop`."""
        while not self._stop.is_set():
            try:
                worked = await self.once()
            except NeighbourhoodError as error:
                _log.warning("replay.waits", code=error.code, detail=error.detail)
                worked = False
            if not worked:
                await self._pause(POLL_S)

    async def _pause(self, seconds: float) -> None:
        # Not `wait_for`: before Python 3.12 it may lose a cancellation that comes with the timeout.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def once(self) -> bool:
        """Take a replay and work on it until it ends, is paused, or goes to another process.

        Returns:
            Whether there was one.

        Raises:
            DependencyDown: Kafka or Postgres is away; the replay goes on later, with the same item.
        """
        async with connection(self._ports.pool) as on:
            replay = await store.lease(on, self._owner, LEASE_S)
        if replay is None:
            return False
        self._plans.clear()
        try:
            await self._work(replay)
        finally:
            with contextlib.suppress(NeighbourhoodError):
                async with connection(self._ports.pool) as on:
                    await store.let_go(on, replay["replay_id"], self._owner)
        return True

    async def _work(self, replay: Row) -> None:
        name = replay["replay_id"]
        pace = Pace(replay["rate_per_s"], time.monotonic())
        kept, done = time.monotonic(), 0
        while True:
            async with connection(self._ports.pool) as on:
                items = await store.pending(on, name, CHUNK)
                if not items:
                    await store.set_status(on, name, ["running"], "finished")
                    return
            for item in items:
                if time.monotonic() - kept > KEEP_EVERY_S or item is items[0]:
                    if self._stop.is_set() or not await self._mine(name):
                        return
                    kept = time.monotonic()
                told = await self._settle(replay, item)
                async with connection(self._ports.pool) as on:
                    await store.settle(on, name, item["sequence"], told)
                done += 1
                # Never longer than the lease is renewed for; a slow rate waits in several turns.
                while (wait := pace.wait_s(done, time.monotonic())) > 0:
                    await self._pause(min(wait, KEEP_EVERY_S))
                    if self._stop.is_set() or not await self._mine(name):
                        return
                    kept = time.monotonic()

    async def _mine(self, replay: str) -> bool:
        async with connection(self._ports.pool) as on:
            return await store.keep(on, replay, self._owner, LEASE_S)

    async def _settle(self, replay: Row, item: Row) -> Told:
        try:
            if item["execution_id"] is None:
                return await self._event_again(replay, item)
            return await self._execution_again(replay, item)
        except _Skip as skip:
            return {"status": "skipped", "reason": str(skip)}
        except NeighbourhoodError:
            raise  # Kafka or Postgres is away: the same item again, later
        except Exception as error:  # noqa: BLE001 - one bad item must not stop the others
            _log.exception("replay.item_failed", item=item["sequence"])
            reason = f"It cannot be replayed ({type(error).__name__}); report it."
            return {"status": "skipped", "reason": reason}

    async def _event_again(self, replay: Row, item: Row) -> Told:
        """Match an event anew that started nothing."""
        place = Place(EVENTS, item["event_partition"], item["event_offset"])
        stored = await self._places.get(place)
        if stored is None:
            raise _Skip("The log has its event no more.")
        if replay["kind"] == "dry":
            return {"status": "reported", "report": {"status": "undetermined", "steps": {}}}
        headers = [each for each in stored.headers.items() if each[0] != REDRIVEN_HEADER]
        first = origin(stored.headers, place)
        headers.append((REDRIVEN_HEADER, place_name(first).encode()))
        record = Record(EVENTS, stored.key, stored.value, headers)
        (at,) = await publish_all(self._ports.publisher, [record])
        return {"status": "sent", "place": _place(at)}

    async def _execution_again(self, replay: Row, item: Row) -> Told:
        async with connection(self._ports.pool) as on:
            past = await self._past(on, replay, item["execution_id"])
            version, plan = await self._version(on, replay, past)
        kind, known = replay["kind"], past.row
        if kind != "dry" and known["status"] == "running":
            raise _Skip("It is still running.")
        again = self._again(replay, plan)
        results = past.results
        if kind == "force":
            good = past.good() if replay["from_step"] else {}
            results = {name: told for name, told in good.items() if step_of(name) not in again}
        request = _request(replay, past, version, results if kind == "force" else past.good())
        if kind == "dry":
            return await self._rehearsed(past, plan, request, again)
        if kind == "repair":
            report = await self._rehearse(plan, request, past.results, frozenset())
            if not report["would_call"] and known["status"] == "succeeded":
                raise _Skip("Nothing of it is missing.")
            async with connection(self._ports.pool) as on:
                workspace = replay["workspace_id"]
                await store.reopen(on, workspace, past.failed, past.unknown)
        (at,) = await publish_all(self._ports.publisher, [_record(request)])
        return {
            "status": "sent",
            "new_execution_id": request.execution_id,
            "place": _place(at),
        }

    def _again(self, replay: Row, plan: Plan) -> frozenset[str]:
        step = replay["from_step"]
        if step is None:
            return frozenset()
        if step not in plan.steps:
            raise _Skip(f"This version has no step {step!r}.")
        return from_on(plan, step)

    async def _rehearsed(
        self, past: _Past, plan: Plan, request: ReplayRequested, again: frozenset[str]
    ) -> Told:
        """Rehearse it, and tell how that differs from what was."""
        bare = replace(request, results=Payload(b"{}"))
        report = await self._rehearse(plan, bare, past.results, again)
        if plan is not past.plan or request.input.data != past.input:
            number = past.row["version"]
            was = replace(bare, version=number, input=Payload(past.input))
            before = await self._rehearse(past.plan, was, past.results, frozenset())
            report["changes"] = [told_change(each) for each in differences(before, report)]
        else:
            report["changes"] = []
        return {"status": "reported", "report": report}

    async def _rehearse(
        self,
        plan: Plan,
        request: ReplayRequested,
        recorded: Mapping[str, Mapping[str, Any]],
        again: frozenset[str],
    ) -> dict[str, Any]:
        rehearse = self._ports.engine.rehearse
        try:
            # On a thread: a loop of 1,000 items takes longer than a request may wait for the loop.
            return await asyncio.to_thread(rehearse, plan, request, recorded, again)
        except CorruptEvent as error:
            raise _Skip(error.public) from error

    async def _version(self, on: Borrowed, replay: Row, past: _Past) -> tuple[int, Plan]:
        wanted = replay["version"]
        workspace, workflow = replay["workspace_id"], past.row["workflow_id"]
        if wanted == "pinned":
            return past.row["version"], past.plan
        if wanted == "current":
            found = await workflows.get(on, workspace, replay["mode"], workflow)
            if found is None:
                raise _Skip("Its workflow was deleted.")
            number = int(found["version"])
        else:
            number = int(wanted)
        return number, await self._plan(on, workspace, workflow, number)

    async def _plan(self, on: Borrowed, workspace: str, workflow: str, version: int) -> Plan:
        if (workflow, version) not in self._plans:
            found = await workflows.version(on, workspace, workflow, version)
            if found is None:
                raise _Skip(f"Version {version} of its workflow is not known.")
            try:
                self._plans[workflow, version] = compile_workflow(found["definition"], None)
            except InvalidInput as error:
                raise _Skip(error.public) from error
        return self._plans[workflow, version]

    async def _past(self, on: Borrowed, replay: Row, name: str) -> _Past:
        workspace = replay["workspace_id"]
        known = await store.original(on, workspace, replay["mode"], name)
        if known is None or known["event_offset"] is None:
            raise _Skip("It is not known any more.")
        plan = await self._plan(on, workspace, known["workflow_id"], known["version"])
        event = Place(EVENTS, known["event_partition"], known["event_offset"])
        was = await self._input(event)
        if was is None and replay["input"] is None:
            raise _Skip("The log has its event no more; give an input.")
        past = _Past(known, plan, was if was is not None else b"null", event)
        rows = await store.recordings(on, workspace, known)
        for row in rows:
            _take_row(past, row)
        keys = {row["effect_key"]: row for row in rows}
        ledger = await store.effects(on, workspace, list(keys))
        for key, record in ledger.items():
            _take_effect(past, keys[key], record)
        return past

    async def _input(self, event: Place) -> bytes | None:
        stored = await self._places.get(event)
        if stored is None:
            return None
        try:
            first = origin(stored.headers, event)
            _, found = read_event(stored.value, stored.headers, first, stored.time_ms * 1000)
            return self._ports.engine.input_of(found.data.data, found.data.content_type)
        except (CorruptEvent, ValueError):
            return None


@contextlib.asynccontextmanager
async def replaying(job: Job) -> AsyncIterator[None]:
    """Carry replays out beside something else."""
    task = asyncio.create_task(job.run(), name="replays")
    try:
        yield
    finally:
        job.stop()
        _, left = await asyncio.wait([task], timeout=STOP_S)
        for each in left:
            each.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _take_row(past: _Past, row: Row) -> None:
    """Take in a result of the read side; a success stays, whatever else there is."""
    name = past.plan.result_name(row["step_id"], row["loop_index"])
    if past.results.get(name, {}).get("s") == "succeeded":
        return
    if row["outcome"] == "succeeded":
        if not _is_sealed(row["output"]):
            past.results[name] = _success(row["output"], row["vendor_id"])
        return
    error = row["error"] or {}
    told = {"code": error.get("code", row["outcome"]), "message": error.get("message", "")}
    past.results[name] = {"s": "failed", "e": told | {"outcome": row["outcome"]}}


def _take_effect(past: _Past, row: Row, record: bytes) -> None:
    """Take in what the ledger says, which is what a command would be answered."""
    finished = codec.decode_as(StepFinished, record)
    name = past.plan.result_name(row["step_id"], row["loop_index"])
    if finished.outcome == "succeeded":
        output = orjson.loads(finished.output.data) if finished.output.data else None
        past.results[name] = _success(output, finished.vendor_id)
    elif finished.outcome == "unknown":
        past.unknown.append(row["effect_key"])
    else:
        past.failed.append(row["effect_key"])


def _success(output: object, vendor_id: str | None) -> dict[str, Any]:
    told = {"s": "succeeded", "o": output, "i": vendor_id}
    return {name: value for name, value in told.items() if value is not None}


def _is_sealed(output: object) -> bool:
    """Say whether a column holds the name of a key in place of an output (`Changes._payload`)."""
    return isinstance(output, dict) and output.keys() == {"sealed"}


def _request(
    replay: Row, past: _Past, version: int, results: Mapping[str, Mapping[str, Any]]
) -> ReplayRequested:
    known = past.row
    forced = replay["kind"] == "force"
    name = execution_id(known["event_id"], known["workflow_id"], version, replay["generation"])
    edited = replay["input"]
    return ReplayRequested(
        workspace_id=replay["workspace_id"],
        execution_id=name,
        workflow_id=known["workflow_id"],
        version=version,
        replay_id=replay["replay_id"],
        replays=known["id"],
        generation=replay["generation"],
        effect_version=version if forced else known["effect_version"],
        effect_generation=replay["generation"] if forced else known["effect_generation"],
        event_id=known["event_id"],
        event=past.event,
        event_time_us=int(known["event_time"].timestamp() * 1_000_000),
        mode=known["mode"],
        user=known["user_id"],
        input=Payload(past.input if edited is None else bytes(edited)),
        results=Payload(orjson.dumps(dict(results))),
        requested_at_us=now_us(),
    )


def _record(request: ReplayRequested) -> Record:
    name = request.execution_id
    envelope = Envelope(
        f"{name}/replay",
        "nhood.execution.replay_requested",
        _SOURCE,
        request.workspace_id,
        request.requested_at_us,
        subject=name,
        generation=request.generation,
    )
    return Record(RESULTS, name.encode(), codec.encode(request), envelope.headers())


def _place(place: Place) -> dict[str, Any]:
    return {"topic": place.topic, "partition": place.partition, "offset": place.offset}


def told_change(change: Change) -> dict[str, Any]:
    """Tell a difference as JSON values."""
    return {
        "step": change.step or None,
        "kind": change.kind,
        "before": change.before,
        "after": change.after,
        "paths": list(change.paths),
    }
