"""Whose step goes next: turns that nobody can keep for themselves; pure.

    provider ─▶ workspace ─▶ line ─▶ step

Each level takes turns: providers one by one, workspaces by the weight of their plan (weighted round
robin; a step costs one, each further attempt one more), the lines of a workspace one by one. A line
holds what must not overtake each other, or merely belongs together: the steps of one order key, or
those of one end customer at one provider.

A turn is a place for one call. Who waits (for a retry, a rate limit, a breaker) gives it back and
comes again, ahead of its line. Bounds on the turns held at a time:

    all together      `turns`
    a workspace       its plan's, and at most `SHARE` times what is free
    a provider        at most `SHARE` times what is free
      a workspace there    as much as is left of the provider's
    an end customer   its plan's
    a line            1 where the order has to be kept; else STARTED times its customer's (begun and
                      not ended, waiting ones too: a throttled account keeps no more open)

Of 128 turns a vendor that hangs takes 112 at most, one workspace 100 of these, two 53 each, six 19
each: a newcomer finds a free turn and need not wait until somebody's slow call ends.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

SHARE: Final = 7
STARTED: Final = 2

Item = TypeVar("Item")


class Bounds(NamedTuple):
    """What a workspace's plan gives it.

    Attributes:
        turns: Held at a time.
        customer_turns: Of these, by one end customer.
        weight: Steps in a row.
    """

    turns: int
    customer_turns: int
    weight: int


@dataclass(slots=True, eq=False)
class _Tenant:
    bounds: Bounds
    running: int = 0
    lines: int = 0
    queues: "dict[str, _Queue]" = field(default_factory=dict)
    held: "list[_Queue]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Customer:
    turns: int
    running: int = 0
    lines: int = 0
    held: "list[Line]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Vendor:
    running: int = 0
    listed: bool = False
    queues: "deque[_Queue]" = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class _Queue:
    """The lines of one workspace at one provider that have something to start."""

    vendor: _Vendor
    tenant: _Tenant
    running: int = 0
    credit: int = 0
    listed: bool = False
    ready: "deque[Line]" = field(default_factory=deque)


class LineKey(NamedTuple):
    """Names a line.

    Attributes:
        provider: Its slug, or its topic.
        tenant: The workspace.
        customer: The end customer; None: the workspace itself.
        name: Tells lines of one customer apart.
    """

    provider: str
    tenant: str
    customer: str | None
    name: bytes


@dataclass(slots=True, eq=False)
class Line:
    """One line; made and forgotten by `Fair`.

    Attributes:
        started_max: Begun and not ended, at a time.
        started: Begun and not ended.
        listed: It stands in its queue, or is held until its customer has a turn to spare.
    """

    key: LineKey
    started_max: int
    queue: _Queue
    customer: _Customer
    started: int = 0
    listed: bool = False
    items: "deque[object]" = field(default_factory=deque)
    back: "deque[object]" = field(default_factory=deque)

    @property
    def can_go(self) -> bool:
        """Whether it has something that may start, as far as the line itself says."""
        if self.back:
            return True
        return bool(self.items) and self.started < self.started_max


class Fair(Generic[Item]):
    """Gives turns; every call takes a few microseconds, however much waits.

    Args:
        turns: Calls at a time.
        bounds_of: What a workspace's plan gives it; asked when the workspace comes.
    """

    def __init__(self, turns: int, bounds_of: Callable[[str], Bounds]) -> None:
        self._turns = turns
        self._bounds_of = bounds_of
        self._running = 0
        self._lines: dict[LineKey, Line] = {}
        self._vendors: dict[str, _Vendor] = {}
        self._tenants: dict[str, _Tenant] = {}
        self._customers: dict[tuple[str, str | None], _Customer] = {}
        self._ring: deque[_Vendor] = deque()

    @property
    def running(self) -> int:
        """Turns that are held."""
        return self._running

    def line(self, key: LineKey, *, ordered: bool) -> Line:
        """Give a line, for `add`."""
        found = self._lines.get(key)
        return self._new(key, ordered) if found is None else found

    def add(self, line: Line, item: Item) -> None:
        """Queue a step."""
        line.items.append(item)
        if not line.listed and line.can_go:
            self._list(line)

    def again(self, line: Line, item: Item) -> None:
        """Queue the rest of a step that has begun and gave its turn back: ahead of its line."""
        line.back.append(item)
        if not line.listed:
            self._list(line)

    def take(self) -> tuple[Line, Item] | None:
        """Give the next one that may start, with a turn; None: there is none, or no turn."""
        free = self._turns - self._running
        if free <= 0:
            return None
        for _ in range(len(self._ring)):
            vendor = self._ring[0]
            left = SHARE * free - vendor.running
            if left > 0:
                line = self._of_vendor(vendor, free, left)
                if line is not None:
                    self._ring.rotate(-1)
                    return line, self._start(line)
                if not vendor.queues:
                    vendor.listed = False
                    self._ring.popleft()
                    continue
            self._ring.rotate(-1)
        return None

    def leave(self, line: Line) -> None:
        """Give a turn back."""
        queue, customer = line.queue, line.customer
        tenant = queue.tenant
        self._running -= 1
        queue.running -= 1
        queue.vendor.running -= 1
        tenant.running -= 1
        customer.running -= 1
        if customer.held:
            self._release(customer)
        if tenant.held:
            self._release_queues(tenant)

    def end(self, line: Line) -> None:
        """Note the end of a step that has begun; its turn was given back before."""
        line.started -= 1
        if line.listed:
            return
        if line.can_go:
            self._list(line)
        elif not line.started and not line.items:
            self._forget(line)

    def set_bounds(self, name: str, bounds: Bounds) -> None:
        """Note that a workspace's plan is another one; turns that are held stay."""
        tenant = self._tenants.get(name)
        if tenant is None or tenant.bounds == bounds:
            return
        tenant.bounds = bounds
        for key, line in self._lines.items():
            if key.tenant == name:
                turns = bounds.turns if key.customer is None else bounds.customer_turns
                line.customer.turns = turns
                line.started_max = 1 if line.started_max == 1 else STARTED * turns
                if line.customer.held:
                    self._release(line.customer)
                if not line.listed and line.can_go:
                    self._list(line)
        self._release_queues(tenant)

    def drain(self) -> list[Item]:
        """Take out all that has not begun."""
        found: list[Item] = []
        for line in self._lines.values():
            found.extend(line.items)  # type: ignore[arg-type]  # what `add` put in
            line.items.clear()
        return found

    def _release(self, customer: _Customer) -> None:
        held, customer.held = customer.held, []
        for line in held:
            line.listed = False
            if line.can_go:
                self._list(line)

    def _release_queues(self, tenant: _Tenant) -> None:
        held, tenant.held = tenant.held, []
        for queue in held:
            self._list_queue(queue)

    def _start(self, line: Line) -> Item:
        if line.back:
            item = line.back.popleft()
        else:
            item = line.items.popleft()
            line.started += 1
        self._running += 1
        queue = line.queue
        queue.running += 1
        queue.vendor.running += 1
        queue.tenant.running += 1
        line.customer.running += 1
        if line.can_go:
            self._list(line)
        return item  # type: ignore[return-value]  # what `add` put in

    def _of_vendor(self, vendor: _Vendor, free: int, left: int) -> Line | None:
        queues = vendor.queues
        for _ in range(len(queues)):
            queue = queues[0]
            tenant = queue.tenant
            if tenant.running >= tenant.bounds.turns:
                queues.popleft()  # still listed: it comes back by `leave`
                tenant.held.append(queue)
                continue
            if tenant.running >= SHARE * free or queue.running >= left:
                queues.rotate(-1)
                continue
            line = self._of_queue(queue)
            if line is None:
                queues.popleft()
                queue.listed = False
                continue
            queue.credit -= 1
            if queue.credit <= 0:
                queue.credit = tenant.bounds.weight
                queues.rotate(-1)
            return line
        return None

    def _of_queue(self, queue: _Queue) -> Line | None:
        while queue.ready:
            line = queue.ready.popleft()
            if line.customer.running >= line.customer.turns:
                line.customer.held.append(line)  # still listed: it comes back by `leave`
                continue
            line.listed = False
            if line.can_go:
                return line
        return None

    def _list(self, line: Line) -> None:
        line.listed = True
        line.queue.ready.append(line)
        if not line.queue.listed:
            self._list_queue(line.queue)

    def _list_queue(self, queue: _Queue) -> None:
        queue.listed = True
        queue.credit = queue.tenant.bounds.weight
        vendor = queue.vendor
        vendor.queues.append(queue)
        if not vendor.listed:
            vendor.listed = True
            self._ring.append(vendor)

    def _new(self, key: LineKey, ordered: bool) -> Line:  # noqa: FBT001 - `line` names it
        vendor = self._vendors.get(key.provider)
        if vendor is None:
            vendor = self._vendors[key.provider] = _Vendor()
        tenant = self._tenants.get(key.tenant)
        if tenant is None:
            tenant = self._tenants[key.tenant] = _Tenant(self._bounds_of(key.tenant))
        bounds = tenant.bounds
        turns = bounds.turns if key.customer is None else bounds.customer_turns
        customer = self._customers.get((key.tenant, key.customer))
        if customer is None:
            customer = self._customers[key.tenant, key.customer] = _Customer(turns)
        queue = tenant.queues.get(key.provider)
        if queue is None:
            queue = tenant.queues[key.provider] = _Queue(vendor, tenant)
        tenant.lines += 1
        customer.lines += 1
        started_max = 1 if ordered else STARTED * turns
        line = self._lines[key] = Line(key, started_max, queue, customer)
        return line

    def _forget(self, line: Line) -> None:
        key = line.key
        del self._lines[key]
        line.customer.lines -= 1
        if not line.customer.lines:
            del self._customers[key.tenant, key.customer]
        tenant = line.queue.tenant
        tenant.lines -= 1
        if not tenant.lines:
            del self._tenants[key.tenant]
