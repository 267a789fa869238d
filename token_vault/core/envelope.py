"""What a secret looks like at rest: AES-256-GCM with its key's name in front; pure.

    1 byte   version of this layout (1)
    1 byte   algorithm (1 = AES-256-GCM here; 2 = Vault's transit engine, 3 = AWS KMS)
    1 byte   length of the key id
    n bytes  key id, ASCII
    12 bytes nonce (AES-256-GCM only)
    rest     ciphertext and its 16-byte tag; of 2 and 3, what the service gave

Everything in front of the ciphertext is authenticated, and so is the place where the secret belongs
(workspace, connection, field): a row that is copied to another tenant or column does not open.
There is no form without encryption.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import SecretUnavailable

VERSION: Final = 1
AES_256_GCM: Final = 1
VAULT_TRANSIT: Final = 2
AWS_KMS: Final = 3
_ALGORITHMS: Final = frozenset((AES_256_GCM, VAULT_TRANSIT, AWS_KMS))
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = 3
# Of a key id; one byte says how long it is.
KEY_ID_BYTES_MAX: Final = 255
# No secret of ours is near this; AES-GCM itself ends at 64 GB.
PLAINTEXT_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret belongs; it opens nowhere else.

    Attributes:
        workspace: `ws_…`
        owner: What it belongs to: a connection, a state, or `-` for the workspace itself.
        field: Which of the owner's secrets it is.
    """

    workspace: str
    owner: str
    field: str

    def encoded(self) -> bytes:
        """Give the bytes that are authenticated; lengths in front, so nothing can shift."""
        parts = (self.workspace.encode(), self.owner.encode(), self.field.encode())
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class Key:
    """A 256-bit key with its name; the key itself is never shown."""

    id: str
    material: bytes = field(repr=False)
    _cipher: AESGCM = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            SecretUnavailable: The key is not 32 bytes, or its name cannot be written down.
        """
        if len(self.material) != KEY_BYTES:
            raise SecretUnavailable(
                f"The key {self.id!r} has {len(self.material)} bytes; AES-256 needs {KEY_BYTES}.",
                code="bad_key",
            )
        if not (self.id.isascii() and 0 < len(self.id) <= KEY_ID_BYTES_MAX):
            raise SecretUnavailable("A key needs a short ASCII name.", code="bad_key")
        object.__setattr__(self, "_cipher", AESGCM(self.material))

    @property
    def cipher(self) -> AESGCM:
        """The cipher, set up once."""
        return self._cipher


def seal(key: Key, plaintext: bytes, place: Place, nonce: bytes) -> bytes:
    """Encrypt.

    Args:
        key: The key; its id goes into the result.
        plaintext: At most `PLAINTEXT_BYTES_MAX` bytes.
        place: Where the secret belongs.
        nonce: 12 fresh random bytes: never twice the same with one key.

    Raises:
        SecretUnavailable: The sizes are wrong.
    """
    if len(nonce) != NONCE_BYTES or len(plaintext) > PLAINTEXT_BYTES_MAX:
        raise SecretUnavailable("The secret cannot be sealed.", code="bad_secret")
    head = bytes((VERSION, AES_256_GCM, len(key.id))) + key.id.encode() + nonce
    return head + key.cipher.encrypt(nonce, plaintext, head + place.encoded())


def open_sealed(key: Key, sealed: bytes, place: Place) -> bytes:
    """Decrypt.

    Raises:
        SecretUnavailable: Another key or place, changed bytes, or a layout that is not known.
    """
    head_bytes = _head_bytes(sealed)
    if sealed[_HEAD_BYTES : head_bytes - NONCE_BYTES] != key.id.encode():
        raise SecretUnavailable(
            "A stored secret was sealed with another key.",
            code="wrong_key",
            detail=f"sealed with {key_id_of(sealed)}, tried {key.id}",
        )
    head = sealed[:head_bytes]
    nonce = head[-NONCE_BYTES:]
    try:
        return key.cipher.decrypt(nonce, sealed[head_bytes:], head + place.encoded())
    except InvalidTag:
        raise SecretUnavailable(
            "A stored secret does not open: it was changed, or moved from where it belongs.",
            code="secret_damaged",
            detail=f"{place.workspace} {place.owner} {place.field}, key {key.id}",
        ) from None


def key_id_of(sealed: bytes) -> str:
    """Name the key that opens it.

    Raises:
        SecretUnavailable: The layout is not known.
    """
    if len(sealed) < _HEAD_BYTES or sealed[0] != VERSION or sealed[1] not in _ALGORITHMS:
        raise _unreadable()
    end = _HEAD_BYTES + sealed[2]
    if not sealed[2] or len(sealed) <= end:
        raise _unreadable()
    try:
        return sealed[_HEAD_BYTES:end].decode("ascii")
    except UnicodeDecodeError:
        raise _unreadable() from None


def wrapped_elsewhere(algorithm: int, key_id: str, ciphertext: bytes) -> bytes:
    """Write down what another service encrypted, in front of it how and with which key.

    Args:
        algorithm: `VAULT_TRANSIT` or `AWS_KMS`.
        key_id: Of the service's key, its version included where it has versions.
        ciphertext: As the service gave it; it authenticated the place.

    Raises:
        SecretUnavailable: The key's name cannot be written down.
    """
    if not (key_id.isascii() and 0 < len(key_id) <= KEY_ID_BYTES_MAX):
        raise SecretUnavailable("The root key needs a short ASCII name.", code="bad_key")
    return bytes((VERSION, algorithm, len(key_id))) + key_id.encode() + ciphertext


def ciphertext_of(wrapped: bytes, algorithm: int) -> bytes:
    """Give what `wrapped_elsewhere` wrote down.

    Raises:
        SecretUnavailable: Another root wrapped it: the vault was set up for another provider.
    """
    key_id = key_id_of(wrapped)
    if wrapped[1] != algorithm:
        raise wrong_root(key_id)
    return wrapped[_HEAD_BYTES + wrapped[2] :]


def wrong_root(wrapped_by: str, have: str = "") -> SecretUnavailable:
    """Say that the root key in force is not the one that wrapped what is stored."""
    return SecretUnavailable(
        "The vault's root key is not the one that this database's keys were wrapped with; bring"
        " back the right one.",
        code="wrong_master_key",
        detail=f"wrapped with {wrapped_by}" + (f", have {have}" if have else ""),
    )


def _head_bytes(sealed: bytes) -> int:
    if len(sealed) < _HEAD_BYTES or sealed[0] != VERSION or sealed[1] != AES_256_GCM:
        raise _unreadable()
    head_bytes = _HEAD_BYTES + sealed[2] + NONCE_BYTES
    if not sealed[2] or len(sealed) < head_bytes + _TAG_BYTES:
        raise _unreadable()
    return head_bytes


def _unreadable() -> SecretUnavailable:
    return SecretUnavailable(
        "A stored secret cannot be read: it is not in a form that this version knows.",
        code="secret_damaged",
    )
