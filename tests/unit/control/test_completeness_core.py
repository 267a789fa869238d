"""What is missing in a range, and what a signed statement is worth; nothing is opened."""

import base64

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control.core.completeness import clip, look, missing
from control.core.statements import (
    FORMAT,
    check,
    document,
    encode_body,
    hash_of,
    key_id,
    read_documents,
)
from schemas.errors import InvalidInput
from schemas.events import Place
from schemas.topics import EVENTS

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()


@given(st.sets(st.integers(0, 40)), st.integers(0, 40), st.integers(0, 40))
def test_missing_and_known_offsets_make_up_the_range(known, first, length):
    end = first + length
    inside = sorted(at for at in known if first <= at < end)
    gaps = list(missing(inside, first, end))
    assert sorted([*inside, *(at for a, b in gaps for at in range(a, b))]) == list(
        range(first, end)
    )
    assert all(a < b for a, b in gaps)


def test_range_is_cut_to_what_the_log_has():
    bounds = {0: (10, 50), 1: (0, 5), 2: (7, 7)}
    assert clip(bounds, {}, {}) == {0: (10, 50), 1: (0, 5), 2: (7, 7)}
    assert clip(bounds, {0: 3, 1: 9}, {0: 20, 1: 4}) == {0: (10, 20), 1: (5, 5), 2: (7, 7)}


def test_record_that_cannot_be_read_still_tells_when_it_came():
    seen = look(b"\xff", {}, Place(EVENTS, 0, 1), 5_000)
    assert (seen.workspace_id, seen.event_id, seen.accepted_ms) == (None, None, 5_000)


def statement(sequence=1, previous=None, first=0, end=10, key=KEY, **more):
    public = key.public_key().public_bytes_raw()
    body = encode_body(
        {
            "format": FORMAT, "workspace_id": "ws_1", "sequence": sequence, "previous": previous,
            "offsets": [{"partition": 0, "first": first, "end": end}],
            "counts": {"without_outcome": 0}, "key_id": key_id(public),
        } | more
    )  # fmt: skip
    return document(body, key.sign(body), public)


def chain():
    one = statement()
    two = statement(2, hash_of(one["statement"].encode()), 10, 30)
    return [one, two, statement(3, hash_of(two["statement"].encode()), 30, 31)]


def test_chain_as_it_was_signed_is_good_in_any_order():
    verdict = check(chain()[::-1], [PUBLIC])
    assert (verdict.good, verdict.count, verdict.problems) == (True, 3, ())


@pytest.mark.parametrize("part", ["statement", "signature", "public_key"])
def test_changed_statement_is_found(part):
    one = statement()
    raw = one[part].encode() if part == "statement" else base64.b64decode(one[part])
    for at in range(0, len(raw), 7):
        bent = bytearray(raw)
        bent[at] ^= 1
        text = bent.decode() if part == "statement" else base64.b64encode(bent).decode()
        assert not check([one | {part: text}]).good, at


def test_statement_of_a_key_that_nobody_trusts_is_found():
    forged = statement(key=Ed25519PrivateKey.generate())
    assert check([forged]).good  # whole in itself
    (problem,) = check([forged], [PUBLIC]).problems
    assert "not a key that you trust" in problem


def test_statement_left_out_or_exchanged_is_found():
    one, two, three = chain()
    assert "2 is not here" in check([one, three]).problems[0]
    other = statement(counts={"without_outcome": 1})
    assert "names another one before it" in check([other, two]).problems[0]
    gap = statement(2, hash_of(one["statement"].encode()), 12, 30)
    assert "leaves out offsets of partition 0" in check([one, gap]).problems[0]


def test_file_may_hold_one_a_list_or_a_page():
    one = statement()
    for whole in (one, [one], {"items": [one], "next_cursor": None}):
        assert read_documents(orjson.dumps(whole)) == [one]
    for wrong in (b"no", b"[]", b"[1]", b'{"statement": "x"}'):
        with pytest.raises(InvalidInput) as caught:
            read_documents(wrong)
        assert caught.value.code == "bad_statement"
