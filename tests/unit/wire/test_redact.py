"""Secrets in what others answer."""

import pytest

from wire.redact import bytes_without, without


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
