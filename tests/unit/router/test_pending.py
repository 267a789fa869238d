"""Which timers are due, whatever the topic says and in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from router.core.pending import Due, Pending


def whole(*timers: Due) -> Pending:
    pending = Pending()
    for timer in timers:
        pending.put(timer)
    for partition in {timer.partition for timer in timers}:
        pending.read_whole(partition)
    return pending


def test_timers_are_due_in_the_order_of_their_times():
    pending = whole(Due(30, 0, 0, b"c"), Due(10, 1, 0, b"a"), Due(20, 0, 1, b"b"))
    assert pending.next_us() == 10
    assert [timer.key for timer in pending.take(25, 10)] == [b"a", b"b"]
    assert pending.take(29, 10) == []
    assert [timer.key for timer in pending.take(30, 10)] == [b"c"]
    assert pending.next_us() is None


def test_timer_is_not_due_before_its_partition_was_read_to_the_end():
    pending = Pending()
    pending.put(Due(10, 0, 0, b"a"))
    assert pending.take(99, 10) == []
    assert pending.next_us() is None
    pending.read_whole(0)
    assert len(pending.take(99, 10)) == 1


def test_tombstone_ends_a_timer_and_a_later_record_replaces_it():
    pending = whole(Due(10, 0, 0, b"a"), Due(10, 0, 1, b"b"))
    pending.end(0, b"a")
    pending.put(Due(50, 0, 2, b"b"))
    assert pending.take(49, 10) == []
    assert [timer.offset for timer in pending.take(50, 10)] == [2]


def test_partition_that_was_lost_leaves_nothing_behind():
    pending = whole(Due(10, 0, 0, b"a"), Due(10, 1, 0, b"b"))
    pending.forget([0])
    assert not pending.whole(0)
    assert [timer.key for timer in pending.take(10, 10)] == [b"b"]
    assert len(pending) == 0


def test_no_more_are_taken_than_asked_for():
    pending = whole(*(Due(n, n % 3, n, str(n).encode()) for n in range(20)))
    assert [timer.due_us for timer in pending.take(99, 5)] == [0, 1, 2, 3, 4]
    assert len(pending) == 15


def test_ended_timers_give_their_memory_back():
    pending = Pending()
    for number in range(10_000):
        pending.put(Due(10**9, 0, number, b"the same"))
    assert len(pending) == 1
    assert len(pending._partitions[0].heap) < 2_000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([b"a", b"b", b"c"]),
            st.one_of(st.none(), st.integers(0, 50)),
        ),
        max_size=60,
    ),
    st.integers(0, 50),
)  # fmt: skip
def test_what_is_due_is_what_the_log_says_last(writes, now):
    pending = Pending()
    last: dict[tuple[int, bytes], int | None] = {}
    for offset, (partition, key, due) in enumerate(writes):
        last[partition, key] = due
        if due is None:
            pending.end(partition, key)
        else:
            pending.put(Due(due, partition, offset, key))
    for partition in range(3):
        pending.read_whole(partition)
    expected = {place: due for place, due in last.items() if due is not None and due <= now}
    taken = pending.take(now, 1_000)
    assert {(timer.partition, timer.key): timer.due_us for timer in taken} == expected
    assert [timer.due_us for timer in taken] == sorted(timer.due_us for timer in taken)
