"""Cursors come back as they went out, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.cursor import CURSOR_MAX, read_cursor, write_cursor
from schemas.errors import InvalidInput

AFTER = st.tuples(st.integers(0, 2**60), st.text(max_size=64).filter(lambda t: t.isprintable()))


@given(AFTER)
def test_cursor_comes_back_as_it_went_out(after):
    cursor = write_cursor("executions", {"status": "failed"}, after)
    assert read_cursor("executions", {"status": "failed"}, cursor) == after


def test_cursor_of_an_execution_fits_its_bound():
    assert len(write_cursor("executions", ["x" * 500], (2**60, "ex_" + "0" * 26))) <= CURSOR_MAX


@pytest.mark.parametrize(("kind", "filters"), [("workflows", [1]), ("executions", [2])])
def test_cursor_of_another_list_or_filters_is_refused(kind, filters):
    cursor = write_cursor("executions", [1], (1, "a"))
    with pytest.raises(InvalidInput) as caught:
        read_cursor(kind, filters, cursor)
    assert caught.value.code == "bad_cursor"


@given(st.text(max_size=100))
def test_whatever_somebody_types_is_refused_or_harmless(text):
    with pytest.raises(InvalidInput):
        read_cursor("executions", [1], text)
