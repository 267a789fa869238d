"""What ingest knows of workflows: which of them listen on which webhook path, from the log.

    Listeners           a table workspace, path → hooks; takes the records of nhood.definitions.v1
    FollowedListeners   keeps one up to date on a thread of its own

Ingest needs it for two questions only: must a post be signed, and does only test mode listen. What
is matched in the end is the router's decision.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from schemas.codec import decode_as
from schemas.errors import CorruptEvent, DependencyDown
from schemas.events import WorkflowVersion
from schemas.starts import normal_path
from schemas.topics import DEFINITIONS
from wire.bus import Stored
from wire.tail import Tail

# Long enough for a broker that works, short enough for a sender who waits.
CATCH_UP_S = 2.0
START_S = 30.0  # a full definitions topic is read before the first request is taken


@dataclass(frozen=True, slots=True)
class Hook:
    """A workflow that listens on a path.

    Attributes:
        verify: Whether an unsigned post is refused.
    """

    workflow_id: str
    mode: str
    verify: bool


class Definitions(Protocol):
    """Says who listens."""

    def on_path(self, workspace: str, path: str) -> Sequence[Hook]:
        """Give the workflows that listen on this path, as far as they are known now."""
        ...

    async def refresh(self) -> None:
        """Take in what the log held when this was called; returns all the same where it cannot."""
        ...


class Listeners:
    """The table; one thread writes it, any number may read it meanwhile."""

    def __init__(self) -> None:
        self._place_of: dict[str, tuple[str, str]] = {}
        self._hooks: dict[tuple[str, str], tuple[Hook, ...]] = {}

    def on_path(self, workspace: str, path: str) -> Sequence[Hook]:
        """Give the workflows that listen on this path."""
        return self._hooks.get((workspace, path), ())

    def take(self, record: Stored) -> None:
        """Take in one record of the definitions topic; one that cannot be read is left out.

        Only records under a bare workflow id count: they hold the current version.
        """
        workflow_id = (record.key or b"").decode(errors="replace")
        if not workflow_id or "@" in workflow_id:
            return
        self._forget(workflow_id)
        if record.value is None:
            return
        try:
            version = decode_as(WorkflowVersion, record.value)
            trigger = orjson.loads(version.definition).get("trigger")
        except (CorruptEvent, orjson.JSONDecodeError, AttributeError):
            return
        if version.status != "deleted" and _is_webhook(trigger):
            place = (version.workspace_id, normal_path(trigger["path"]))
            required = trigger.get("verify") == "required"
            self._remember(place, Hook(workflow_id, version.mode, required))

    def _remember(self, place: tuple[str, str], hook: Hook) -> None:
        self._place_of[hook.workflow_id] = place
        self._hooks[place] = (*self._hooks.get(place, ()), hook)

    def _forget(self, workflow_id: str) -> None:
        place = self._place_of.pop(workflow_id, None)
        if place is None:
            return
        left = tuple(hook for hook in self._hooks[place] if hook.workflow_id != workflow_id)
        if left:
            self._hooks[place] = left
        else:
            del self._hooks[place]


def _is_webhook(trigger: object) -> bool:
    return (
        isinstance(trigger, Mapping)
        and trigger.get("type") == "webhook"
        and isinstance(trigger.get("path"), str)
    )


class FollowedListeners:
    """Keeps the table up to date with the log."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._table = Listeners()
        self._tail = Tail(bootstrap, client_id, DEFINITIONS, self._table.take)
        self._waiting: asyncio.Task[None] | None = None
        self.ready = False

    async def start(self) -> None:
        """Begin to follow; returns once everything that stands on the topic now was taken in.

        Raises:
            DependencyDown: Kafka does not answer.
        """
        self._tail.start()
        await asyncio.to_thread(self._tail.catch_up, START_S)
        self.ready = True

    async def close(self) -> None:
        """Stop following."""
        self.ready = False
        await asyncio.to_thread(self._tail.close)

    def on_path(self, workspace: str, path: str) -> Sequence[Hook]:
        """Give the workflows that listen on this path."""
        return self._table.on_path(workspace, path)

    async def refresh(self) -> None:
        """Take in what the log held when this was called.

        A workflow saved a moment ago is seen by the next post. However many posts wait, one
        question is asked of the broker at a time: those that come while it is under way share the
        next one.
        """
        if self._waiting is not None and not self._waiting.done():
            await asyncio.wait([self._waiting])
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(self._catch_up())
        await asyncio.wait([self._waiting])

    async def _catch_up(self) -> None:
        # Without it the post goes on with what is known; the log's own outage shows in publish.
        try:
            await asyncio.to_thread(self._tail.catch_up, CATCH_UP_S)
        except (DependencyDown, RuntimeError):  # RuntimeError: the consumer was closed meanwhile
            return


def modes(hooks: Sequence[Hook]) -> list[str]:
    """List the modes of these hooks."""
    return [hook.mode for hook in hooks]


def must_be_signed(hooks: Sequence[Hook], mode: str) -> bool:
    """Say whether a workflow of this mode takes signed posts only."""
    return any(hook.verify and hook.mode == mode for hook in hooks)
