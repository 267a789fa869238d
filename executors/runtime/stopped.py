"""Which executions were stopped, as executors know it: nothing is called for them any more."""

import asyncio

import structlog

from schemas import codec
from schemas.errors import CorruptEvent, DependencyDown
from schemas.events import CancelRequested
from schemas.topics import CANCELLATIONS
from wire.bus import Stored
from wire.tail import Tail

_log = structlog.get_logger()

KEPT_MAX = 500_000  # some 60 MB; what is older than that many is hardly queued any more
_RETRY_S = 0.5


class Stopped:
    """Ids of stopped executions, from the topic that the router writes.

    Read to its end before the first command is taken, then some milliseconds behind the router.
    """

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._ids: dict[str, None] = {}  # in the order of the log

    def __contains__(self, execution_id: object) -> bool:
        return execution_id in self._ids

    def take(self, stored: Stored) -> None:
        """Take in a record; called on the thread that reads the topic."""
        key = (stored.key or b"").decode()
        if stored.value is None:
            self._ids.pop(key, None)
            return
        try:
            codec.decode_as(CancelRequested, stored.value)
        except CorruptEvent as error:
            _log.error("cancellation.unreadable", key=key, code=error.code)
            return
        self._ids[key] = None
        if len(self._ids) > self._kept_max:
            del self._ids[next(iter(self._ids))]

    async def follow(self, bootstrap: str) -> Tail:
        """Read the topic to its end, and follow it from then on; waits while Kafka is away."""
        tail = Tail(bootstrap, "nhood-executors", CANCELLATIONS, self.take)
        tail.start()
        while True:
            try:
                await asyncio.to_thread(tail.catch_up)
            except DependencyDown as error:
                _log.warning("kafka.unreachable", detail=error.detail or error.public)
                await asyncio.sleep(_RETRY_S)
            else:
                return tail
