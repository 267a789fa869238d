"""Which offset of a partition may be committed: everything below the lowest unfinished one."""

import heapq
from dataclasses import dataclass, field


@dataclass(slots=True)
class Offsets:
    """Follows one partition's records from taken to done.

    Records are done in any order; `committable` only ever grows, and never passes a record that is
    not done. Unfinished ones are few (the intake is bounded), so a heap of them is enough.
    """

    _open: list[int] = field(default_factory=list)
    _done: set[int] = field(default_factory=set)
    _next: int = -1

    def take(self, offset: int) -> None:
        """Note a record as taken; offsets come in growing order."""
        heapq.heappush(self._open, offset)
        self._next = offset + 1

    def done(self, offset: int) -> None:
        """Note a record as done."""
        self._done.add(offset)
        while self._open and self._open[0] in self._done:
            self._done.discard(heapq.heappop(self._open))

    @property
    def unfinished(self) -> int:
        """How many records are taken and not done."""
        return len(self._open) - len(self._done)

    @property
    def committable(self) -> int:
        """The offset to commit (the next to be read after a restart); -1: nothing was taken."""
        return self._open[0] if self._open else self._next
