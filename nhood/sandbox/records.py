"""What was made in the sandbox: per provider and account, kind by kind; in memory, bounded."""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nhood.sandbox.likeness import merged
from nhood.sandbox.wire_in import SentFile

# Of one kind in one account; the oldest go first.
RECORDS_MAX: Final = 5_000
ACCOUNTS_MAX: Final = 1_000
# Of the contents of one account.
CONTENT_BYTES_MAX: Final = 256 * 1024 * 1024


@dataclass(slots=True)
class Record:
    """A thing.

    Attributes:
        names: How it is called: `{"id": "10001", "key": "ED-25"}`.
        sent: What was sent of it, updates merged in; or an example's thing as it is.
        made_s, changed_s: When, in seconds since 1970; 0: it was there before.
    """

    number: int
    names: Mapping[str, Any]
    sent: Mapping[str, Any]
    made_s: float = 0.0
    changed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """Something was made, changed or taken out.

    Attributes:
        seq: Counts the changes of an account.
    """

    seq: int
    resource: str
    record: Record
    removed: bool


@dataclass(slots=True)
class Shelf:
    """The things of one kind in one account."""

    records: "OrderedDict[int, Record]" = field(default_factory=OrderedDict)
    by_name: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Put a thing in."""
        self.records[record.number] = record
        for name in record.names.values():
            self.by_name[str(name)] = record.number
        if len(self.records) > RECORDS_MAX:
            _, oldest = self.records.popitem(last=False)
            self._forget(oldest)

    def find(self, name: object) -> Record | None:
        """Find a thing by any of its names."""
        number = self.by_name.get(str(name))
        return self.records.get(number) if number is not None else None

    def find_by(self, key: str, value: object) -> Record | None:
        """Find a thing by what was sent of it; the newest wins."""
        for record in reversed(self.records.values()):
            if record.sent.get(key) == value:
                return record
        return None

    def update(self, record: Record, sent: Mapping[str, Any]) -> None:
        """Change a thing."""
        record.sent = merged(record.sent, sent)

    def remove(self, record: Record) -> None:
        """Take a thing out."""
        self.records.pop(record.number, None)
        self._forget(record)

    def _forget(self, record: Record) -> None:
        for name in record.names.values():
            if self.by_name.get(str(name)) == record.number:
                del self.by_name[str(name)]


@dataclass(slots=True)
class Account:
    """Everything that one account of one provider holds."""

    slug: str
    key: str
    shelves: dict[str, Shelf] = field(default_factory=dict)
    counter: int = 0
    # Idempotency keys: fingerprint of the request and the first answer.
    replays: "OrderedDict[str, tuple[bytes, Any]]" = field(default_factory=OrderedDict)

    # What was uploaded; the oldest go first.
    contents: "OrderedDict[tuple[str, int], SentFile]" = field(default_factory=OrderedDict)

    # What changed, for who asks for it by place; the oldest go first.
    journal: "deque[Change]" = field(default_factory=lambda: deque(maxlen=RECORDS_MAX))

    def note(self, resource: str, record: Record, now_s: float, *, removed: bool = False) -> None:
        """Note a change."""
        record.made_s = record.made_s or now_s
        record.changed_s = now_s
        seq = self.journal[-1].seq + 1 if self.journal else 1
        self.journal.append(Change(seq, resource, record, removed))

    def keep(self, place: tuple[str, int], file: SentFile) -> None:
        """Keep a content: of which kind, of the thing of which number."""
        self.contents[place] = file
        while len(self.contents) > 1 and self._size() > CONTENT_BYTES_MAX:
            self.contents.popitem(last=False)

    def _size(self) -> int:
        return sum(len(file.content) for file in self.contents.values())

    def shelf(self, resource: str) -> Shelf:
        """Give the things of one kind."""
        shelf = self.shelves.get(resource)
        if shelf is None:
            shelf = self.shelves[resource] = Shelf()
        return shelf

    def next_number(self) -> int:
        """Count on."""
        self.counter += 1
        return self.counter


class Accounts:
    """All accounts; made when first asked for, seeded with the examples' things."""

    def __init__(self, seeds: Mapping[str, list[tuple[str, Record]]]) -> None:
        self._seeds = seeds
        self._accounts: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def get(self, slug: str, key: str) -> Account:
        """Give an account."""
        account = self._accounts.get((slug, key))
        if account is None:
            account = Account(slug, key)
            for resource, seed in self._seeds.get(slug, ()):
                account.shelf(resource).add(Record(-account.next_number(), seed.names, seed.sent))
            account.counter = 0
            self._accounts[slug, key] = account
            if len(self._accounts) > ACCOUNTS_MAX:
                self._accounts.popitem(last=False)
        return account

    def clear(self) -> None:
        """Forget everything."""
        self._accounts.clear()
