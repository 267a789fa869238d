"""Committing never passes a record that is not done."""

from hypothesis import given
from hypothesis import strategies as st

from wire.offsets import Offsets


@given(st.permutations(range(20)), st.integers(0, 20), st.integers(0, 1000))
def test_committable_is_the_lowest_unfinished_offset(order, count, first):
    offsets = Offsets()
    for number in range(20):
        offsets.take(first + number)
    finished = set(order[:count])
    for number in order[:count]:
        offsets.done(first + number)
    lowest = next((n for n in range(20) if n not in finished), 20)
    assert offsets.committable == first + lowest
    assert offsets.unfinished == 20 - count


def test_nothing_taken_gives_nothing_to_commit():
    assert Offsets().committable == -1
