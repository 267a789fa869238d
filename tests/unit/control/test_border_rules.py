"""What is refused of a body before any route sees it."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from control.api.border import DEPTH_MAX, Malformed, check_json
from schemas.errors import InvalidInput
from wire.problems import place_of, suggest

JSON = Headers({"content-type": "application/json; charset=utf-8"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=30,
)


@given(VALUES)
def test_json_is_taken_unless_it_holds_a_nul(value):
    body = orjson.dumps(value)
    if "\x00" in str(value) or b"\\u0000" in body:
        return
    check_json(body, JSON)


@given(st.integers(0, 50), st.booleans())
def test_nul_is_found_however_deep(depth, as_name):
    value = {"a\x00": 1} if as_name else "a\x00"
    for _ in range(depth):
        value = [value, "\\u0000"]
    with pytest.raises(InvalidInput) as caught:
        check_json(orjson.dumps(value), JSON)
    assert caught.value.code == "nul_character"


def test_text_that_only_looks_like_a_nul_is_taken():
    check_json(orjson.dumps({"text": "\\u0000"}), JSON)


@pytest.mark.parametrize(("levels", "fits"), [(DEPTH_MAX, True), (DEPTH_MAX + 2, False)])
def test_nesting_is_bounded(levels, fits):
    body = b"[" * levels + b"]" * levels
    if fits:
        check_json(body, JSON)
    else:
        with pytest.raises(InvalidInput) as caught:
            check_json(body, JSON)
        assert caught.value.code == "too_deep"


def test_wide_but_flat_json_is_not_called_deep():
    check_json(orjson.dumps([{"a": [1]}] * 1000), JSON)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/xml"])
def test_other_content_types_are_refused(kind):
    with pytest.raises(Malformed) as caught:
        check_json(b"{}", Headers({"content-type": kind}))
    assert caught.value.response.status_code == 415


def test_places_read_as_people_write_them():
    assert place_of(("steps", 2, "config", "channel")) == "steps[2].config.channel"
    assert place_of(()) == ""


def test_suggestion_is_the_nearest_name_or_the_known_ones():
    assert suggest("nmae", ["name", "email"]) == "Did you mean 'name'?"
    assert suggest("zzz", ["name", "email"]) == "Known here: name, email."
    assert suggest("zzz", []) == "Remove it."
