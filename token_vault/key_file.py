"""The root key in a file, for development: whoever reads it and the database reads every secret.

The file holds one key a line: 32 random bytes as base 64, readable by its owner only. The last one
wraps, all of them unwrap, so a root key is changed by adding a line (`nhood keys rotate --layer
root`) and the old one is taken out when nothing needs it (`nhood keys drop-root`). Running
processes look at the file each time they need the root, which is rarely.
"""

import base64
import binascii
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

from schemas.errors import Conflict, NotFound, SecretUnavailable
from schemas.settings import Settings
from token_vault.core.envelope import (
    KEY_BYTES,
    NONCE_BYTES,
    Key,
    Place,
    key_id_of,
    open_sealed,
    seal,
    wrong_root,
)

# A ring that grows longer than this was never tidied.
KEYS_MAX: Final = 32
_FILE_BYTES_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class _Ring:
    """The file's keys, the newest last; `stamp` tells whether the file changed since."""

    keys: tuple[Key, ...]
    stamp: tuple[int, int, int]


class FileKeyProvider:
    """Wraps with the last key of the file."""

    def __init__(self, path: Path, ring: _Ring) -> None:
        self._path = path
        self._ring = ring

    @classmethod
    def read(cls, path: Path) -> "FileKeyProvider":
        """Read the file.

        Raises:
            SecretUnavailable: It is missing, open to others or not a key; says how to mend it.
        """
        return cls(path, _read(path))

    async def current(self) -> str:
        """Name the last key of the file."""
        return self._fresh().keys[-1].id

    async def wrap(self, material: bytes, place: Place) -> bytes:
        """Encrypt a key with the root."""
        return seal(self._fresh().keys[-1], material, place, os.urandom(NONCE_BYTES))

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Decrypt a key with the root that it names.

        Raises:
            SecretUnavailable: It was wrapped by a key that is not in the file, or damaged.
        """
        name = key_id_of(wrapped)
        keys = self._fresh().keys
        for key in keys:
            if key.id == name:
                return open_sealed(key, wrapped, place)
        raise wrong_root(name, ", ".join(key.id for key in keys))

    async def renew(self) -> str:
        """Add a new key to the file."""
        self._ring = _change(self._path, lambda keys: (*keys, _new_key()))
        return self._ring.keys[-1].id

    async def drop(self, key_id: str) -> None:
        """Take a key out of the file; the caller has seen that nothing is wrapped by it.

        Raises:
            NotFound: It is not in the file.
            Conflict: It is the one that wraps.
        """
        keys = self._fresh().keys
        if key_id not in {key.id for key in keys}:
            raise NotFound(f"There is no root key {key_id[:80]!r} in {self._path}.")
        if key_id == keys[-1].id:
            raise Conflict(
                f"The root key {key_id} is the one that wraps; make another one first.",
                code="root_in_force",
            )
        self._ring = _change(
            self._path, lambda keys: tuple(key for key in keys if key.id != key_id)
        )

    def names(self) -> list[str]:
        """List the keys of the file, the newest last."""
        return [key.id for key in self._fresh().keys]

    def _fresh(self) -> _Ring:
        try:
            changed = _stamp(self._path) != self._ring.stamp
        except OSError:
            # Gone while we run: what is in memory still opens; a start anew will tell.
            return self._ring
        if changed:
            self._ring = _read(self._path)
        return self._ring


def root_key(material: bytes) -> Key:
    """Name a root key by what it is: the name tells nothing, but two keys never share one."""
    check = seal(Key("file", material), b"", Place("-", "-", "name"), bytes(NONCE_BYTES))
    return Key(f"file:{check[-8:].hex()}", material)


def create_key_file(path: Path) -> None:
    """Make a new root key, readable by its owner only; an existing file is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "wb") as file:
        file.write(_written((_new_key(),)))
        file.flush()
        os.fsync(file.fileno())


def master_key_path(settings: Settings) -> Path:
    """Say where the root key's file is."""
    return Path(settings.master_key_file or Path(settings.state_dir) / "master.key")


def _new_key() -> Key:
    return root_key(os.urandom(KEY_BYTES))


def _written(keys: tuple[Key, ...]) -> bytes:
    return b"".join(base64.b64encode(key.material) + b"\n" for key in keys)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _change(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> _Ring:
    """Put another file in the place of this one, whole or not at all; one process at a time."""
    with Path(f"{path}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        keys = change(_read(path).keys)
        if len(keys) > KEYS_MAX:
            raise Conflict(
                f"{path} holds {KEYS_MAX} root keys; drop those that nothing needs.",
                code="too_many_root_keys",
            )
        beside = Path(f"{path}.new")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            owner = path.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(_written(keys))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return _read(path)


def _read(path: Path) -> _Ring:
    try:
        stamp = _stamp(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii")[:_FILE_BYTES_MAX]
    except FileNotFoundError:
        raise SecretUnavailable(
            f"The vault has no root key: {path} is not there. `nhood up` makes one; by hand:"
            f" `(umask 077; openssl rand -base64 32 > {path})`. If secrets were stored before,"
            " bring back the file that they were sealed with: a new one does not open them.",
            code="no_master_key",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(
            f"The vault's root key {path} cannot be read: {type(error).__name__}.",
            code="bad_master_key",
        ) from None
    if mode & 0o077:
        raise SecretUnavailable(
            f"The vault's root key {path} can be read by other users; say `chmod 600 {path}`.",
            code="master_key_exposed",
        )
    keys = tuple(_parse(path, line) for line in text.split())
    if not keys:
        raise _damaged(path)
    return _Ring(keys, stamp)


def _parse(path: Path, line: str) -> Key:
    try:
        material = base64.b64decode(line, validate=True)
    except binascii.Error:
        raise _damaged(path) from None
    if len(material) != KEY_BYTES:
        raise _damaged(path)
    return root_key(material)


def _damaged(path: Path) -> SecretUnavailable:
    return SecretUnavailable(
        f"The vault's root key {path} is not {KEY_BYTES} bytes written as base 64; it is damaged."
        " Bring back a copy of it.",
        code="bad_master_key",
    )
