"""Turns: nobody starves, every bound holds, an order is kept."""

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.core.fair import Bounds, Fair, LineKey
from executors.core.room import Room

FREE = Bounds(25, 10, 1)


def key(
    tenant: str, customer: str | None = None, provider: str = "slack", name: str = ""
) -> LineKey:
    return LineKey(provider, tenant, customer, name.encode())


def fair(turns: int = 128, **bounds: Bounds) -> Fair[str]:
    return Fair(turns, lambda tenant: bounds.get(tenant, Bounds(500, 500, 1)))


def queue(into: Fair[str], count: int, which: LineKey, *, ordered: bool = False) -> None:
    for number in range(count):
        into.add(into.line(which, ordered=ordered), f"{which.tenant}/{number}")


def served(of: Fair[str], count: int) -> list[str]:
    """Serve one after the other: each ends before the next is taken."""
    found = []
    for _ in range(count):
        taken = of.take()
        if taken is None:
            break
        line, item = taken
        found.append(item)
        of.leave(line)
        of.end(line)
    return found


def all_taken(of: Fair[str]) -> list[tuple]:
    found = []
    while (taken := of.take()) is not None:
        found.append(taken)
    return found


def test_ten_steps_of_one_workspace_pass_a_hundred_thousand_of_another():
    one = fair()
    queue(one, 100_000, key("greedy"))
    queue(one, 10, key("small"))
    first = served(one, 20)
    assert sum(name.startswith("small") for name in first) == 10


def test_newcomer_finds_a_free_turn_while_all_others_hang():
    one = fair()
    for number in range(6):
        queue(one, 1_000, key(f"greedy{number}"))
    hanging = all_taken(one)
    assert len(hanging) < 128
    queue(one, 1, key("small"))
    queue(one, 1, key("another", provider="zoom"))
    assert {item for _, item in all_taken(one)} >= {"small/0", "another/0"}


@pytest.mark.parametrize(("greedy", "each"), [(1, 100), (2, 53), (3, 36), (6, 19)])
def test_share_of_the_turns_that_greedy_workspaces_get(greedy, each):
    one = fair()
    for number in range(greedy):
        queue(one, 1_000, key(f"greedy{number}"))
    counts = Counter(line.key.tenant for line, _ in all_taken(one))
    assert max(counts.values()) == each
    assert min(counts.values()) >= each - 1


def test_vendor_that_hangs_leaves_turns_to_the_others():
    one = fair()
    for number in range(50):
        queue(one, 100, key(f"t{number}", provider="hangs"))
    all_taken(one)
    queue(one, 1, key("t0", provider="works"))
    line, _ = one.take()
    assert line.key.provider == "works"


@pytest.mark.parametrize(
    ("bounds", "customers", "most"),
    [
        (Bounds(25, 10, 1), 10, 25),
        (Bounds(100, 25, 2), 10, 100),
        (Bounds(25, 10, 1), 1, 10),
        (Bounds(500, 100, 4), 1, 100),
        (Bounds(500, 100, 4), 10, 500),
    ],
)
def test_plan_bounds_the_calls_of_a_workspace_and_of_a_customer(bounds, customers, most):
    one = fair(1_000, t=bounds)
    for number in range(customers):
        queue(one, 600, key("t", f"user{number}"))
    first = all_taken(one)
    assert len(first) == most
    one.leave(first[0][0])
    one.end(first[0][0])
    assert len(all_taken(one)) == 1


def test_weights_share_a_busy_executor():
    one = fair(1, small=Bounds(25, 25, 1), large=Bounds(500, 500, 4))
    queue(one, 1_000, key("small"))
    queue(one, 1_000, key("large"))
    counts = Counter(name.split("/")[0] for name in served(one, 500))
    assert counts == {"large": 400, "small": 100}


def test_customers_of_a_workspace_take_turns():
    one = fair(1)
    queue(one, 100, key("t", "many"))
    queue(one, 2, key("t", "few"))
    order = [line.key.customer for line, _ in _each(one, 4)]
    assert order.count("few") == 2


def _each(of: Fair[str], count: int):
    for _ in range(count):
        line, item = of.take()
        yield line, item
        of.leave(line)
        of.end(line)


def test_ordered_line_waits_for_the_one_that_waits():
    one = fair()
    queue(one, 3, key("t", "u", name="order"), ordered=True)
    line, first = one.take()
    one.leave(line)  # it waits for a retry and holds no turn
    assert one.take() is None
    one.again(line, first)
    again, item = one.take()
    assert (again, item) == (line, first)
    one.leave(line)
    one.end(line)
    assert one.take()[1] == "t/1"


def test_step_that_comes_again_goes_ahead_of_its_line():
    one = fair(1)
    queue(one, 3, key("t"))
    line, first = one.take()
    one.leave(line)
    one.again(line, first)
    assert one.take()[1] == first


def test_waiting_steps_of_a_line_are_bounded():
    one = fair(t=FREE)
    queue(one, 100, key("t", "u"))
    begun = 0
    while (taken := one.take()) is not None:
        one.leave(taken[0])  # all of them are throttled
        begun += 1
    assert begun == 2 * FREE.customer_turns


def test_nothing_is_kept_of_those_that_are_gone():
    one = fair()
    for number in range(1_000):
        queue(one, 2, key(f"t{number}", f"u{number}"))
    served(one, 2_000)
    assert one.take() is None
    assert not one._lines
    assert not one._tenants
    assert not one._customers
    assert not one._ring


BOUNDS = {"a": Bounds(3, 2, 1), "b": Bounds(9, 9, 3), "c": Bounds(1, 1, 2)}


class Schedule:
    """Any order of coming, going and waiting; `check` says that every bound holds."""

    def __init__(self) -> None:
        self.fair: Fair[int] = fair(8, **BOUNDS)
        self.expected: dict[LineKey, deque] = {}
        self.going: list[tuple] = []
        self.away: list[tuple] = []
        self.number = 0

    def add(self, tenant, user, provider, ordered) -> None:
        which = key(tenant, user, provider, "o" if ordered else "")
        self.number += 1
        self.fair.add(self.fair.line(which, ordered=ordered), self.number)
        self.expected.setdefault(which, deque()).append(self.number)

    def take(self, *_) -> None:
        taken = self.fair.take()
        if taken is not None:
            self.going.append(taken)

    def end(self, *_) -> None:
        if self.going:
            line, item = self.going.pop(self.number % len(self.going))
            self.fair.leave(line)
            self.fair.end(line)
            self.expected[line.key].remove(item)

    def wait(self, *_) -> None:
        if self.going:
            self.away.append(self.going.pop())
            self.fair.leave(self.away[-1][0])

    def back(self, *_) -> None:
        if self.away:
            line, item = self.away.pop()
            self.fair.again(line, item)

    def check(self) -> None:
        assert self.fair.running == len(self.going) <= 8
        turns = Counter(line.key.tenant for line, _ in self.going)
        assert all(count <= BOUNDS[tenant].turns for tenant, count in turns.items())
        users = Counter((line.key.tenant, line.key.customer) for line, _ in self.going)
        assert all(count <= BOUNDS[who[0]].customer_turns for who, count in users.items() if who[1])
        ordered = [taken for taken in (*self.going, *self.away) if taken[0].key.name]
        assert len({line.key for line, _ in ordered}) == len(ordered)
        assert all(self.expected[line.key][0] == item for line, item in ordered)

    def finish(self) -> None:
        while self.away:
            self.back()
        while any(self.expected.values()):
            before = self.number, sum(map(len, self.expected.values()))
            for _ in range(8):
                self.take()
            while self.going:
                self.end()
            after = self.number, sum(map(len, self.expected.values()))
            assert after != before, "somebody waits, turns are free, and nobody goes"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "add", "add", "take", "take", "end", "wait", "back"]),
            st.tuples(
                st.sampled_from("abc"),
                st.sampled_from(["u", "v", None]),
                st.sampled_from(["p", "q"]),
                st.booleans(),
            ),
        ),
        max_size=120,
    )
)
def test_any_schedule_keeps_every_bound_and_serves_everything(moves):
    schedule = Schedule()
    for name, details in moves:
        getattr(schedule, name)(*details)
        schedule.check()
    schedule.finish()
    assert not schedule.fair._lines


def test_new_plan_is_in_force_at_once():
    one = fair(1_000, t=Bounds(25, 10, 1))
    for number in range(10):
        queue(one, 100, key("t", f"user{number}"))
    assert len(all_taken(one)) == 25
    one.set_bounds("t", Bounds(100, 25, 2))
    assert len(all_taken(one)) == 75


def admitted(room: Room, tenant: str, line: object, size: int = 1_000, most: int = 10_000) -> int:
    count = 0
    while count < most and room.admits(tenant, line):
        room.add(tenant, line, size)
        count += 1
    return count


def test_room_is_left_for_whoever_comes_next():
    room = Room()
    assert admitted(room, "greedy", "line") == 667
    assert admitted(room, "greedy", "other line") == 333
    assert admitted(room, "second", "line 2") == 333
    assert admitted(room, "small", "line 3") > 100
    for number in range(500):
        assert admitted(room, f"t{number}", f"line {number}", most=1) == 1


def test_room_is_bounded_by_bytes_as_well():
    room = Room()
    assert admitted(room, "greedy", "line", size=1024 * 1024) == 32
    assert admitted(room, "small", "other", size=1024 * 1024) > 10


def test_room_counts_back_to_nothing():
    room = Room()
    for _ in range(10):
        room.add("t", "line", 7)
    for _ in range(10):
        room.remove("t", "line", 7)
    assert room == Room()
