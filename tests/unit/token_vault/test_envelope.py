"""Sealed secrets open with their own key, in their own place, unchanged; and never otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SecretUnavailable
from token_vault.core.envelope import Key, Place, key_id_of, open_sealed, seal

KEY = Key("key_1", bytes(range(32)))
PLACE = Place("ws_a", "conn_1", "credential")
NONCE = b"\x07" * 12
SEALED = seal(KEY, b"xoxb-secret", PLACE, NONCE)


@given(st.binary(max_size=2000), st.binary(min_size=12, max_size=12))
def test_sealed_text_opens_as_it_was(plaintext: bytes, nonce: bytes) -> None:
    assert open_sealed(KEY, seal(KEY, plaintext, PLACE, nonce), PLACE) == plaintext


def test_sealed_text_names_its_key_and_hides_the_secret() -> None:
    assert key_id_of(SEALED) == "key_1"
    assert b"xoxb" not in SEALED
    assert "00" not in repr(KEY)
    assert "material" not in repr(KEY)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_one_changed_byte_does_not_open(at: int, change: int) -> None:
    damaged = bytearray(SEALED)
    damaged[at] ^= change
    with pytest.raises(SecretUnavailable):
        open_sealed(KEY, bytes(damaged), PLACE)


@given(st.integers(0, len(SEALED) - 1))
def test_cut_text_does_not_open(length: int) -> None:
    with pytest.raises(SecretUnavailable):
        open_sealed(KEY, SEALED[:length], PLACE)


@pytest.mark.parametrize(
    "place",
    [
        Place("ws_b", "conn_1", "credential"),
        Place("ws_a", "conn_2", "credential"),
        Place("ws_a", "conn_1", "verifier"),
        Place("ws_ac", "onn_1", "credential"),
        Place("ws_a", "conn_1c", "redential"),
    ],
)
def test_secret_moved_to_another_place_does_not_open(place: Place) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        open_sealed(KEY, SEALED, place)
    assert caught.value.code == "secret_damaged"


def test_another_key_does_not_open() -> None:
    with pytest.raises(SecretUnavailable) as caught:
        open_sealed(Key("key_2", KEY.material), SEALED, PLACE)
    assert caught.value.code == "wrong_key"
    with pytest.raises(SecretUnavailable) as caught:
        open_sealed(Key("key_1", b"\x01" * 32), SEALED, PLACE)
    assert caught.value.code == "secret_damaged"


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(SecretUnavailable):
        Key("key_1", b"short")
    with pytest.raises(SecretUnavailable):
        Key("", bytes(32))
    with pytest.raises(SecretUnavailable):
        seal(KEY, b"", PLACE, b"short")
    with pytest.raises(SecretUnavailable):
        seal(KEY, b"x" * (1024 * 1024 + 1), PLACE, NONCE)
