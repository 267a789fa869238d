"""What is due when: the timers of the partitions that are ours, as small as they can be kept.

A timer is its key, its time and its place on the log; the record itself is read again when it is
due. What Kafka says last about a key counts: a later record replaces the timer, a tombstone ends
it. Nothing is due in a partition before it was read to its end, since an end may still come.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_SLACK = 1_000  # entries of ended timers that a heap may hold beside the living ones


class Due(NamedTuple):
    """A timer; `due_us` is UTC, in microseconds."""

    due_us: int
    partition: int
    offset: int
    key: bytes


class _Partition:
    """The timers of one partition.

    Attributes:
        live: Timer by key.
        heap: The same, the next one first; entries that are not in `live` any more are passed over.
        whole: Whether it was read to its end.
    """

    __slots__ = ("heap", "live", "whole")

    def __init__(self) -> None:
        self.live: dict[bytes, Due] = {}
        self.heap: list[Due] = []
        self.whole = False

    def first(self) -> Due | None:
        """Give the next timer; clears away what has ended."""
        while self.heap and self.live.get(self.heap[0].key) is not self.heap[0]:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def put(self, timer: Due) -> None:
        self.live[timer.key] = timer
        heapq.heappush(self.heap, timer)
        if len(self.heap) > 2 * len(self.live) + _SLACK:
            self.heap = list(self.live.values())
            heapq.heapify(self.heap)


class Pending:
    """Timers by partition; holds no clock."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def __len__(self) -> int:
        return sum(len(partition.live) for partition in self._partitions.values())

    def put(self, timer: Due) -> None:
        """Take in a timer; replaces one of the same key."""
        self._of(timer.partition).put(timer)

    def end(self, partition: int, key: bytes) -> None:
        """Take in a tombstone."""
        self._of(partition).live.pop(key, None)

    def read_whole(self, partition: int) -> bool:
        """Note that a partition was read to its end; True where that is news."""
        found = self._of(partition)
        news, found.whole = not found.whole, True
        return news

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that are another's now."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def whole(self, partition: int) -> bool:
        """Say whether a partition is ours and was read to its end."""
        found = self._partitions.get(partition)
        return found is not None and found.whole

    def live(self, partition: int, key: bytes) -> Due | None:
        """Give the timer of a key."""
        found = self._partitions.get(partition)
        return found.live.get(key) if found is not None else None

    def next_us(self) -> int | None:
        """Say when the next timer is due; None: there is none."""
        return min((timer.due_us for timer in self._firsts()), default=None)

    def take(self, now_us: int, limit: int) -> list[Due]:
        """Take out what is due, in the order of its times; at most `limit`."""
        taken: list[Due] = []
        while len(taken) < limit:
            timer = min(self._firsts(), default=None)
            if timer is None or timer.due_us > now_us:
                break
            partition = self._partitions[timer.partition]
            heapq.heappop(partition.heap)
            del partition.live[timer.key]
            taken.append(timer)
        return taken

    def _of(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())

    def _firsts(self) -> Iterator[Due]:
        for partition in self._partitions.values():
            if partition.whole and (timer := partition.first()) is not None:
                yield timer
