"""Takes records from Kafka on a thread of its own and hands them to the event loop.

    taken ─▶ handed to the loop ─▶ handled ─▶ done ─▶ committed (never past an unfinished one)

The thread polls whatever happens, so membership is kept while calls are slow; when too much is
under way it pauses the partitions instead. On a rebalance what has begun gets time to end, what has
not is left to the next owner.

What has no room for now can be put off (`put_off`): it stays uncommitted, its content is dropped,
and whoever put it off reads it from the log again (`wire.reread`) and hands it in by `take_again`.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from wire.bus import Stored, stored
from wire.offsets import Offsets

_log = structlog.get_logger()

UNDER_WAY_MAX = 2_000  # records taken and not done; more would only wait in memory
UNDER_WAY_BYTES_MAX = 64 * 1024 * 1024
PUT_OFF_MAX = 200_000  # offsets in memory, and what a crash makes us look at again
COMMIT_EVERY_S = 0.5  # what a crash makes us handle again, for the ledger to answer
REVOKE_WAIT_S = 10.0  # for calls under way at a rebalance; a fraction of the poll interval (300 s)
_POLL_S = 0.2
_BATCH = 200
# Under load a few milliseconds make batches of what would be single records; at rest nobody waits.
_GATHER_S = 0.005
_FEW = 2


@dataclass(slots=True)
class Assignment:
    """One partition while it is ours.

    Attributes:
        ours: False after a rebalance took it: what has not begun must not begin.
        begun: Records being handled.
        put_off: Records of which only the offset is kept.
    """

    offsets: Offsets = field(default_factory=Offsets)
    ours: bool = True
    begun: int = 0
    put_off: int = 0
    committed: int = -1


@dataclass(slots=True)
class Taken:
    """A record with the assignment it came under."""

    stored: Stored
    assignment: Assignment
    since: float


class GroupConsumer:
    """One member of a consumer group.

    Args:
        bootstrap: Kafka's address.
        group: Consumer group.
        topics: What to read.
        deliver: Called on the event loop with what was taken.
        rebalanced: Called on the event loop after partitions came or went, before any record of a
            new one is delivered.
        losing: Called on the event loop when partitions are about to go, or all at the end: what
            only waits had better be given up, for what has begun is waited for.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        deliver: Callable[[list[Taken]], None],
        rebalanced: Callable[[], None] = lambda: None,
        losing: Callable[[], None] = lambda: None,
    ) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "client.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "roundrobin",
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 2_000,
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 2,
            }
        )
        self._topics = list(topics)
        self._deliver = deliver
        self._rebalanced = rebalanced
        self._losing = losing
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Condition()
        self._assigned: dict[tuple[str, int], Assignment] = {}
        self._under_way: dict[tuple[str, int, int], tuple[float, int]] = {}
        self._bytes = 0
        self._paused = False
        self._busy = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="consumer", daemon=True)
        self.ready = False
        # Records on the assigned partitions of a topic that are not committed.
        self.lag: dict[str, int] = {}
        self.failure: Exception | None = None

    def start(self) -> None:
        """Join the group and begin to take."""
        self._thread.start()

    def begin(self, taken: Taken) -> bool:
        """Say whether a record may be handled now; False: it is another member's by now."""
        with self._lock:
            if not taken.assignment.ours or self._stop.is_set():
                self._drop(taken)
                return False
            taken.assignment.begun += 1
            return True

    def done(self, taken: Taken, *, handled: bool) -> None:
        """Note the end of a record; one that was not handled stays uncommitted."""
        with self._lock:
            taken.assignment.begun -= 1
            if handled:
                taken.assignment.offsets.done(taken.stored.place.offset)
            self._drop(taken)
            self._lock.notify_all()

    def put_off(self, taken: Taken) -> None:
        """Forget a record's content until `take_again`; nobody has begun it."""
        with self._lock:
            taken.assignment.put_off += 1
            self._drop(taken)

    def take_again(self, record: Stored, assignment: Assignment) -> Taken | None:
        """Count a record in again that was put off; None: it is another member's by now."""
        now = time.monotonic()
        with self._lock:
            if not assignment.ours:
                return None
            assignment.put_off -= 1
            self._count(record, now)
        return Taken(record, assignment, now)

    def give_up(self, assignment: Assignment, offset: int) -> None:
        """Note that a record that was put off cannot be read any more."""
        with self._lock:
            assignment.put_off -= 1
            assignment.offsets.done(offset)

    def _count(self, record: Stored, now: float) -> None:
        place, size = record.place, len(record.value or b"")
        self._under_way[place.topic, place.partition, place.offset] = (now, size)
        self._bytes += size

    def _drop(self, taken: Taken) -> None:
        place = taken.stored.place
        _, size = self._under_way.pop((place.topic, place.partition, place.offset), (0.0, 0))
        self._bytes -= size

    def oldest_unfinished_s(self) -> float:
        """Age of the oldest record under way, in seconds; 0 where there is none."""
        with self._lock:
            first = next(iter(self._under_way.values()), None)
        return time.monotonic() - first[0] if first else 0.0

    def _measure(self) -> None:
        """Note the lag; on the polling thread, since this call waits for its lock elsewhere."""
        found: dict[str, int] = {}
        with self._lock:
            assigned = list(self._assigned.items())
        for (topic, partition), assignment in assigned:
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), cached=True
            )
            behind = max(0, high - assignment.offsets.committable) if high > 0 else 0
            found[topic] = found.get(topic, 0) + (
                behind if assignment.offsets.committable >= 0 else 0
            )
        self.lag = found

    def close(self, timeout_s: float = 30) -> None:
        """Take no more, let what has begun end, commit, leave the group; blocks."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _serve(self) -> None:
        try:
            self._consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke
            )
            last_commit = time.monotonic()
            while not self._stop.is_set():
                self._take()
                if time.monotonic() - last_commit > COMMIT_EVERY_S:
                    self._commit(asynchronous=True)
                    self._measure()
                    last_commit = time.monotonic()
            self._consumer.close()
        except Exception as error:  # noqa: BLE001 - told to whoever watches over this thread
            self.failure = error
            _log.error("consumer.died", error=str(error))

    def _take(self) -> None:
        self._regulate()
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return
        gather = _GATHER_S if self._busy else 0
        messages = (first, *self._consumer.consume(_BATCH, timeout=gather))
        self._busy = len(messages) > _FEW
        batch = [self._taken(message) for message in messages]
        found = [taken for taken in batch if taken is not None]
        if found:
            self._loop.call_soon_threadsafe(self._deliver, found)

    def _taken(self, message: Message) -> Taken | None:
        if message.error() is not None:
            _log.warning("consumer.error", error=str(message.error()))
            return None
        record = stored(message)
        place = record.place
        now = time.monotonic()
        with self._lock:
            assignment = self._assigned.get((place.topic, place.partition))
            if assignment is None:
                return None
            assignment.offsets.take(place.offset)
            self._count(record, now)
        return Taken(record, assignment, now)

    def _regulate(self) -> None:
        """Pause when too much is under way, go on at half of it."""
        with self._lock:
            count, size = len(self._under_way), self._bytes
            put_off = sum(assignment.put_off for assignment in self._assigned.values())
        full = count >= UNDER_WAY_MAX or size >= UNDER_WAY_BYTES_MAX or put_off >= PUT_OFF_MAX
        free = (
            count <= UNDER_WAY_MAX // 2
            and size <= UNDER_WAY_BYTES_MAX // 2
            and put_off < PUT_OFF_MAX
        )
        if full and not self._paused:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        elif free and self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def _commit(self, *, asynchronous: bool) -> None:
        with self._lock:
            offsets = []
            for (topic, partition), assignment in self._assigned.items():
                offset = assignment.offsets.committable
                if offset > assignment.committed:
                    offsets.append(TopicPartition(topic, partition, offset))
                    assignment.committed = offset
        if not offsets:
            return
        try:
            if asynchronous:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            _log.warning("consumer.commit_failed", error=str(error))
            with self._lock:
                for each in offsets:
                    key = (each.topic, each.partition)
                    if key in self._assigned:
                        self._assigned[key].committed = -1

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        with self._lock:
            for each in partitions:
                self._assigned[each.topic, each.partition] = Assignment()
        self._paused = False
        self.ready = True
        self._loop.call_soon_threadsafe(self._rebalanced)
        _log.info("consumer.assigned", partitions=len(partitions))

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        deadline = time.monotonic() + REVOKE_WAIT_S
        keys = [(each.topic, each.partition) for each in partitions]
        with self._lock:
            going = [self._assigned[key] for key in keys if key in self._assigned]
            for assignment in going:
                assignment.ours = False
            with contextlib.suppress(RuntimeError):  # the loop may be over by the time we leave
                self._loop.call_soon_threadsafe(self._losing)
            self._lock.wait_for(
                lambda: not any(assignment.begun for assignment in going),
                max(0.0, deadline - time.monotonic()),
            )
        self._commit(asynchronous=False)
        with self._lock:
            for key in keys:
                self._assigned.pop(key, None)
        with contextlib.suppress(RuntimeError):  # the loop may be over by the time we leave
            self._loop.call_soon_threadsafe(self._rebalanced)
