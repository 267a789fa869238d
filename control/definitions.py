"""Saves workflows: a row and a record on the log, and no crash between the two leaves a lie.

    1  a draft row takes the next version number                    committed
    2  the version goes to nhood.definitions.v1, under `wf@n` and under `wf`     acknowledged
    3  the row becomes the current version                          committed, then answered

A failure before 3 leaves a draft. `heal` writes the version that is current in the database to the
log once more and withdraws the draft; its number is never used again, so `wf@n` never names two
definitions. Deleting goes the same way, but forwards: what was begun is finished.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import orjson

from control.core.quota import check_workflows
from control.store import workflows, workspaces
from control.store.query import Borrowed, Row
from schemas import codec
from schemas.access import Caller
from schemas.errors import DependencyDown, NotFound
from schemas.events import Envelope, WorkflowVersion
from schemas.topics import DEFINITIONS
from wire.bus import Publisher, Record, publish_all
from wire.database import Pool, connection

# Saves hold a database connection while Kafka answers: so many at a time, others wait their turn.
SAVES_AT_ONCE: Final = 4
TURN_S: Final = 10.0
_HEAL_BATCH: Final = 100
_REPUBLISH_BATCH: Final = 500
_SOURCE: Final = "/control"
_ACTIVE, _DELETED = "active", "deleted"


class Definitions:
    """Saves, deletes and repairs.

    Args:
        clock: UTC, microseconds.
    """

    def __init__(self, pool: Pool, publisher: Publisher, clock: Callable[[], int]) -> None:
        self._pool = pool
        self._publisher = publisher
        self._clock = clock
        self._turns = asyncio.Semaphore(SAVES_AT_ONCE)

    async def create(
        self, caller: Caller, workflow_id: str, name: str, definition: dict[str, Any]
    ) -> Row:
        """Save a new workflow.

        Args:
            caller: Whose.
            workflow_id: Its id; where a workflow of this id was saved already, that one is given.
            name: Its name.
            definition: It, checked.

        Raises:
            Forbidden: The plan has no room for one more.
            DependencyDown: Nothing came into force.
        """
        workspace, mode = caller.workspace_id, caller.mode
        async with self._alone(workflow_id) as on:
            there = await workflows.get(on, workspace, mode, workflow_id)
            if there is not None:
                return there
            await _require_room(on, workspace, mode)
            await workflows.insert(on, workspace, mode, workflow_id, name)
            return await self._save(on, caller, workflow_id, name, definition)

    async def replace(
        self, caller: Caller, workflow_id: str, name: str, definition: dict[str, Any]
    ) -> Row:
        """Save a new version, unless it says what the current one says.

        Raises:
            NotFound: There is no such workflow.
            DependencyDown: The current version stays in force.
        """
        async with self._alone(workflow_id) as on:
            there = await workflows.get(on, caller.workspace_id, caller.mode, workflow_id)
            if there is None:
                raise no_workflow(workflow_id)
            if there["definition"] == definition:
                return there
            return await self._save(on, caller, workflow_id, name, definition)

    async def delete(self, caller: Caller, workflow_id: str) -> None:
        """Delete a workflow: no event starts it any more; executions under way go on.

        Raises:
            NotFound: There is no such workflow.
            DependencyDown: It will be deleted as soon as Kafka is back.
        """
        async with self._alone(workflow_id) as on:
            there = await workflows.get(on, caller.workspace_id, caller.mode, workflow_id)
            if there is None:
                raise no_workflow(workflow_id)
            await workflows.set_status(on, workflow_id, "deleting")
            await on.commit()
            await self._finish_delete(on, there)

    async def heal(self) -> int:
        """Finish or withdraw what was interrupted.

        Returns:
            How many workflows were put right.

        Raises:
            DependencyDown: Postgres or Kafka is away; call again.
        """
        healed = 0
        async with connection(self._pool) as on:
            for item in await workflows.unsettled(on, _HEAL_BATCH):
                if await workflows.try_lock(on, item["workflow_id"]):
                    try:
                        healed += await self._settle(on, item["workflow_id"])
                    finally:
                        await on.rollback()
                        await workflows.unlock(on, item["workflow_id"])
                await on.commit()
        return healed

    async def republish(self) -> int:
        """Write every version of every workflow to the log again, for a log that was lost.

        Returns:
            How many records were written.
        """
        count, after = 0, ""
        while True:
            async with connection(self._pool) as on:
                ids = await workflows.all_ids(on, after, _REPUBLISH_BATCH)
                records = [record for one in ids for record in await self._all_of(on, one)]
            if not ids:
                return count
            await publish_all(self._publisher, records)
            count, after = count + len(records), ids[-1]

    @contextlib.asynccontextmanager
    async def _alone(self, workflow_id: str) -> AsyncIterator[Borrowed]:
        """Borrow a connection that nobody else saves this workflow beside."""
        try:
            await asyncio.wait_for(self._turns.acquire(), TURN_S)
        except TimeoutError:
            raise DependencyDown(
                "Saving takes too long just now, since Kafka does not answer; try again.",
                code="kafka_down",
            ) from None
        try:
            async with connection(self._pool) as on:
                await workflows.lock(on, workflow_id)
                try:
                    yield on
                finally:
                    await on.rollback()
                    await workflows.unlock(on, workflow_id)
        finally:
            self._turns.release()

    async def _save(
        self, on: Borrowed, caller: Caller, workflow_id: str, name: str, definition: dict[str, Any]
    ) -> Row:
        number = await workflows.insert_draft(on, caller.workspace_id, workflow_id, definition)
        await on.commit()
        version = WorkflowVersion(
            workspace_id=caller.workspace_id,
            workflow_id=workflow_id,
            version=number,
            mode=caller.mode,
            name=name,
            status=_ACTIVE,
            definition=orjson.dumps(definition),
            saved_at_us=self._clock(),
        )
        await publish_all(self._publisher, [_numbered(version), _current(version)])
        await workflows.publish(on, workflow_id, number, name)
        await on.commit()
        saved = await workflows.get(on, caller.workspace_id, caller.mode, workflow_id)
        if saved is None:
            raise no_workflow(workflow_id)
        return saved

    async def _finish_delete(self, on: Borrowed, item: Row) -> None:
        await publish_all(self._publisher, [_current(self._record(item, _DELETED))])
        await workflows.withdraw_drafts(on, item["workflow_id"])
        await workflows.set_status(on, item["workflow_id"], _DELETED)
        await on.commit()

    async def _settle(self, on: Borrowed, workflow_id: str) -> int:
        """Write to the log what the database says; the lock is held, so nobody is saving."""
        item = await workflows.by_id(on, workflow_id)
        if item is None:
            return 0
        await on.commit()
        if item["status"] == "deleting" or item["version"] == 0:
            await self._finish_delete(on, item)
        else:
            await publish_all(self._publisher, [_current(self._record(item, item["status"]))])
            await workflows.withdraw_drafts(on, workflow_id)
            await on.commit()
        return 1

    def _record(self, item: Row, status: str) -> WorkflowVersion:
        return WorkflowVersion(
            workspace_id=item["workspace_id"],
            workflow_id=item["workflow_id"],
            version=item["version"],
            mode=item["mode"],
            name=item["name"],
            status=status,
            definition=orjson.dumps(item["definition"] or {}),
            saved_at_us=self._clock(),
        )

    async def _all_of(self, on: Borrowed, workflow_id: str) -> list[Record]:
        item = await workflows.by_id(on, workflow_id)
        if item is None or item["version"] == 0:
            return []
        records = []
        for version in await workflows.published(on, workflow_id):
            told = {
                **item,
                "version": version["version"],
                "definition": version["definition"],
                "name": version["definition"].get("name", item["name"]),
            }
            records.append(_numbered(self._record(told, _ACTIVE)))
        status = _ACTIVE if item["status"] == _ACTIVE else _DELETED
        return [*records, _current(self._record(item, status))]


def no_workflow(workflow_id: str) -> NotFound:
    """Build the error for a workflow that is not there."""
    return NotFound(
        f"There is no workflow {workflow_id[:64]!r} that this API key can see; a key sees the"
        " workflows of its own mode, live or test.",
        code="workflow_not_found",
    )


async def _require_room(on: Borrowed, workspace: str, mode: str) -> None:
    """Check the plan's bound; the lock on the workspace's row makes two saves take turns."""
    owner = await workspaces.get(on, workspace, lock=True)
    if owner is None:
        raise NotFound("The workspace is gone.", code="workspace_not_found")
    check_workflows(owner["plan"], owner["settings"], await workflows.count(on, workspace, mode))


def _numbered(version: WorkflowVersion) -> Record:
    return _to_log(version, f"{version.workflow_id}@{version.version}")


def _current(version: WorkflowVersion) -> Record:
    return _to_log(version, version.workflow_id)


def _to_log(version: WorkflowVersion, key: str) -> Record:
    word = "deleted" if version.status == _DELETED else "saved"
    envelope = Envelope(
        f"{version.workflow_id}@{version.version}",
        f"nhood.workflow.{word}",
        _SOURCE,
        version.workspace_id,
        version.saved_at_us,
        subject=version.workflow_id,
    )
    return Record(DEFINITIONS, key.encode(), codec.encode(version), envelope.headers())
