"""Secrets in what others answer."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.redact import Scrub, bytes_without, without


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad token xoxb-123/456", "bad token ***"),
        ("/x?token=xoxb-123%2F456", "/x?token=***"),
        ("twice xoxb-123/456xoxb-123/456", "twice ******"),
        ("nothing of it", "nothing of it"),
    ],
)
def test_secret_is_taken_out_however_it_is_written(text: str, shown: str) -> None:
    secrets = ("xoxb-123/456",)
    assert without(text, secrets) == shown
    assert bytes_without(text.encode(), secrets) == shown.encode()


def test_short_word_is_no_secret() -> None:
    assert without("the word the", ["the", ""]) == "the word the"
    assert bytes_without(b"\xff the", ["the"]) == b"\xff the"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.binary(max_size=30))
def test_secret_that_lies_across_pieces_is_taken_out(sizes, around):
    secret = "xoxb/1+2 secret"
    text = around + secret.encode() + around + quote(secret, safe="").encode() + around
    scrub, shown, at = Scrub([secret]), b"", 0
    for size in [*sizes, len(text)]:
        shown += scrub.feed(text[at : at + size])
        at += size
    shown += scrub.rest()
    assert shown == bytes_without(text, [secret])


def test_body_without_a_secret_passes_as_it_is():
    scrub = Scrub(["short"])
    assert scrub.feed(b"short") + scrub.rest() == b"short"
