"""Keys and secrets: their form, and what is kept of them."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.access import (
    bearer_token,
    digest,
    looks_like_api_key,
    new_api_key,
    new_webhook_secret,
)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["live", "test"]))
def test_every_key_has_the_form_that_is_looked_up(randomness, mode):
    key = new_api_key(mode, randomness)
    text = key.text.reveal()
    assert looks_like_api_key(text)
    assert text.startswith(key.prefix)
    assert len(key.prefix) < len(text) - 32
    assert key.digest == digest(text) == hashlib.sha256(text.encode()).digest()
    assert text not in repr(key)


def test_webhook_secret_is_base_64_as_standard_webhooks_wants_it():
    text = new_webhook_secret(bytes(range(32))).reveal()
    assert text.startswith("whsec_")
    assert base64.b64decode(text.removeprefix("whsec_"), validate=True) == bytes(range(32))


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("abc", None),
        ("Bearer ", None),
        ("", None),
        (None, None),
    ],
)
def test_bearer_token_is_found_or_none(header, token):
    assert bearer_token(header) == token


@pytest.mark.parametrize(
    "text",
    ["", "nhood_sk_live_", "nhood_sk_prod_" + "a" * 43, "nhood_sk_live_" + "a" * 44, "é" * 57],
)
def test_what_has_not_the_form_of_a_key_is_never_looked_up(text):
    assert not looks_like_api_key(text)
