"""How much may wait in memory, and whose; pure.

What is free is shared: a workspace may have as much waiting as is free, and one line of it (the
steps of one end customer or order key at one provider) half as much. So one greedy workspace takes
half of the room at most, two take a third each, and there is always some left for whoever comes
next (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
What has no room is put off: only its offset is kept, and it is read from the log again later.
"""

from dataclasses import dataclass, field
from typing import Final

RECORDS_MAX: Final = 2_000
BYTES_MAX: Final = 64 * 1024 * 1024
TENANT_RECORDS_MIN: Final = 4
"""A workspace gets this many in whatever the others have: there is a turn for everybody."""

LINE_RECORDS_MIN: Final = 2
TENANT_BYTES_MIN: Final = 2 * 1024 * 1024  # one command can be this large with its state


@dataclass(slots=True)
class Room:
    """Counts what is in memory, waiting or under way.

    Args:
        records_max: Records in all.
        bytes_max: Their bytes in all.
    """

    records_max: int = RECORDS_MAX
    bytes_max: int = BYTES_MAX
    records: int = 0
    size: int = 0
    _tenants: dict[str, list[int]] = field(default_factory=dict)
    _lines: dict[object, int] = field(default_factory=dict)

    def admits(self, tenant: str, line: object) -> bool:
        """Say whether one more of this line has room."""
        free = self.records_max - self.records
        used = self._tenants.get(tenant)
        if used is None:
            return True
        return (
            used[0] < max(free, TENANT_RECORDS_MIN)
            and self._lines.get(line, 0) < max(free // 2, LINE_RECORDS_MIN)
            and used[1] < max(self.bytes_max - self.size, TENANT_BYTES_MIN)
        )

    def hungry(self, tenant: str, line: object) -> bool:
        """Say whether a line has room for many more: half of what it may have is free."""
        free = self.records_max - self.records
        used = self._tenants.get(tenant)
        if used is None:
            return True
        return (
            used[0] <= max(free, TENANT_RECORDS_MIN) // 2
            and self._lines.get(line, 0) <= max(free // 2, LINE_RECORDS_MIN) // 2
            and used[1] <= max(self.bytes_max - self.size, TENANT_BYTES_MIN) // 2
        )

    def copy(self) -> "Room":
        """Give one like it, to plan with."""
        tenants = {name: list(used) for name, used in self._tenants.items()}
        return Room(
            *(self.records_max, self.bytes_max, self.records, self.size),
            *(tenants, dict(self._lines)),
        )

    def add(self, tenant: str, line: object, size: int) -> None:
        """Count one in."""
        used = self._tenants.setdefault(tenant, [0, 0])
        used[0] += 1
        used[1] += size
        self._lines[line] = self._lines.get(line, 0) + 1
        self.records += 1
        self.size += size

    def remove(self, tenant: str, line: object, size: int) -> None:
        """Count one out."""
        used = self._tenants[tenant]
        used[0] -= 1
        used[1] -= size
        if used[0] == 0:
            del self._tenants[tenant]
        left = self._lines[line] - 1
        if left:
            self._lines[line] = left
        else:
            del self._lines[line]
        self.records -= 1
        self.size -= size
