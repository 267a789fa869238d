"""Keys: the root that a provider keeps, and the rings of wrapped keys under it.

    root key            kept by a KeyProvider (a file in development), never in the database
      └─ workspace key  one a workspace, wrapped by the root
           └─ user key  one an end customer, wrapped by the workspace's; destroying it makes
                        everything sealed under it unreadable, wherever copies lie

Wrapped keys are rows of `vault_keys`. Unwrapped ones stay in memory for `CACHE_S`, so a destroyed
key is forgotten by every process within that time. Without a root key nothing starts.
"""

import base64
import binascii
import os
import stat
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

import structlog
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from schemas.errors import SecretUnavailable
from schemas.settings import Settings
from token_vault.core.envelope import (
    KEY_BYTES,
    NONCE_BYTES,
    Key,
    Place,
    key_id_of,
    open_sealed,
    seal,
)
from wire.clock import mint
from wire.database import Pool, connection

# How long an unwrapped key stays in memory, and how many of them.
CACHE_S: Final = 60.0
CACHED_KEYS_MAX: Final = 10_000

_WORKSPACE: Final = "workspace"
_USER: Final = "user"
_log = structlog.get_logger("vault")

Borrowed = AsyncConnection[TupleRow]


class KeyProvider(Protocol):
    """Keeps the root key and wraps others with it; the root itself need not be seen by us."""

    @property
    def key_id(self) -> str:
        """Name of the root key that wraps now."""

    async def wrap(self, material: bytes, place: Place) -> bytes:
        """Encrypt a key; the place is authenticated along with it."""

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Decrypt a key; raises SecretUnavailable where it cannot."""


class FileKeyProvider:
    """Keeps the root key in a file: 32 random bytes as base 64, readable by its owner only.

    For development: whoever reads the file and the database reads every secret.
    """

    def __init__(self, key: Key) -> None:
        self._key = key

    @property
    def key_id(self) -> str:
        """Name of the root key."""
        return self._key.id

    @classmethod
    def read(cls, path: Path) -> "FileKeyProvider":
        """Read the file.

        Raises:
            SecretUnavailable: It is missing, open to others or not a key; says how to mend it.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="ascii").strip()
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
        try:
            material = base64.b64decode(text, validate=True)
        except binascii.Error:
            material = b""
        if len(material) != KEY_BYTES:
            raise SecretUnavailable(
                f"The vault's root key {path} is not {KEY_BYTES} bytes written as base 64; it is"
                " damaged. Bring back a copy of it.",
                code="bad_master_key",
            )
        return cls(root_key(material))

    async def wrap(self, material: bytes, place: Place) -> bytes:
        """Encrypt a key with the root."""
        return seal(self._key, material, place, os.urandom(NONCE_BYTES))

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Decrypt a key with the root.

        Raises:
            SecretUnavailable: It was wrapped by another root key, or damaged.
        """
        if key_id_of(wrapped) != self._key.id:
            raise SecretUnavailable(
                "The vault's root key is not the one that this database's keys were wrapped with;"
                " bring back the right key file.",
                code="wrong_master_key",
                detail=f"wrapped with {key_id_of(wrapped)}, have {self._key.id}",
            )
        return open_sealed(self._key, wrapped, place)


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
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def master_key_path(settings: Settings) -> Path:
    """Say where the root key's file is."""
    return Path(settings.master_key_file or Path(settings.state_dir) / "master.key")


def open_provider(settings: Settings) -> KeyProvider:
    """Open the key provider that the settings name.

    Raises:
        SecretUnavailable: There is no usable root key; the service must not start.
    """
    path = master_key_path(settings)
    provider = FileKeyProvider.read(path)
    if settings.is_production:
        _log.warning(
            "vault.root_key_in_file",
            path=str(path),
            reason="meant for development: who reads this file and the database reads everything",
        )
    return provider


class KeyRing:
    """Gives the keys of workspaces and end customers, making them when first needed."""

    def __init__(self, provider: KeyProvider, pool: Pool) -> None:
        self._provider = provider
        self._pool = pool
        self._kept: OrderedDict[tuple[str, str], tuple[float, Key]] = OrderedDict()
        self._newest: dict[tuple[str, str, str], tuple[float, str]] = {}

    async def workspace_key(self, workspace: str, on: Borrowed | None = None) -> Key:
        """Give the key that seals the workspace's own secrets.

        Args:
            workspace: It must be in the database (as seen by `on`).
            on: The caller's transaction, where the workspace was only just made in it.
        """
        return await self._current(workspace, _WORKSPACE, "", on)

    async def user_key(self, workspace: str, user_id: str, on: Borrowed | None = None) -> Key:
        """Give the key that seals what belongs to one end customer."""
        return await self._current(workspace, _USER, user_id, on)

    async def by_id(self, workspace: str, key_id: str, on: Borrowed | None = None) -> Key:
        """Give the key that a sealed secret names.

        Raises:
            SecretUnavailable: It was destroyed, or never was this workspace's.
        """
        kept = self._kept.get((workspace, key_id))
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        if on is not None:
            return await self._load(on, workspace, key_id)
        async with connection(self._pool) as borrowed:
            return await self._load(borrowed, workspace, key_id)

    async def destroy_user_key(self, workspace: str, user_id: str) -> int:
        """Destroy an end customer's keys: all that was sealed under them is lost for good.

        Returns:
            How many keys there were. Other processes forget them within `CACHE_S` seconds.
        """
        async with connection(self._pool) as borrowed:
            cursor = await borrowed.execute(
                "DELETE FROM vault_keys WHERE workspace_id = %s AND kind = %s AND user_id = %s"
                " RETURNING id",
                (workspace, _USER, user_id),
            )
            destroyed = [str(row[0]) for row in await cursor.fetchall()]
        for key_id in destroyed:
            self._kept.pop((workspace, key_id), None)
        self._newest.pop((workspace, _USER, user_id), None)
        return len(destroyed)

    async def _current(self, workspace: str, kind: str, user_id: str, on: Borrowed | None) -> Key:
        newest = self._newest.get((workspace, kind, user_id))
        if newest is not None and newest[0] > time.monotonic():
            return await self.by_id(workspace, newest[1], on)
        if on is not None:
            # The caller may still roll back: a key made here must not outlive that in memory.
            key, _ = await self._find_or_make(on, workspace, kind, user_id)
            return key
        async with connection(self._pool) as borrowed:
            key, wrapped_by = await self._find_or_make(borrowed, workspace, kind, user_id)
        self._keep(workspace, key)
        if len(self._newest) >= CACHED_KEYS_MAX:
            self._newest.clear()
        self._newest[workspace, kind, user_id] = (time.monotonic() + CACHE_S, key.id)
        _log.debug("vault.key_ready", key=key.id, kind=kind, wrapped_by=wrapped_by)
        return key

    async def _find_or_make(
        self, on: Borrowed, workspace: str, kind: str, user_id: str
    ) -> tuple[Key, str]:
        found = await self._find(on, workspace, kind, user_id)
        if found is None:
            # Two processes that both find none take turns, and the second finds the first's.
            await on.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                (f"vault_keys/{workspace}/{kind}/{user_id}",),
            )
            found = await self._find(on, workspace, kind, user_id)
        if found is not None:
            key_id, wrapped, wrapped_by = found
            return await self._unwrap(on, workspace, kind, key_id, wrapped), wrapped_by
        key = Key(mint("key"), os.urandom(KEY_BYTES))
        place = Place(workspace, key.id, kind)
        if kind == _WORKSPACE:
            wrapped, by = await self._provider.wrap(key.material, place), self._provider.key_id
        else:
            parent, _ = await self._find_or_make(on, workspace, _WORKSPACE, "")
            wrapped, by = seal(parent, key.material, place, os.urandom(NONCE_BYTES)), parent.id
        await on.execute(
            "INSERT INTO vault_keys (id, workspace_id, kind, user_id, wrapped, wrapped_by)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (key.id, workspace, kind, user_id, wrapped, by),
        )
        return key, by

    async def _find(
        self, on: Borrowed, workspace: str, kind: str, user_id: str
    ) -> tuple[str, bytes, str] | None:
        cursor = await on.execute(
            "SELECT id, wrapped, wrapped_by FROM vault_keys"
            " WHERE workspace_id = %s AND kind = %s AND user_id = %s AND retired_at IS NULL"
            " ORDER BY created_at DESC, id DESC LIMIT 1",
            (workspace, kind, user_id),
        )
        row = await cursor.fetchone()
        return (row[0], bytes(row[1]), row[2]) if row is not None else None

    async def _load(self, on: Borrowed, workspace: str, key_id: str) -> Key:
        cursor = await on.execute(
            "SELECT kind, wrapped FROM vault_keys WHERE workspace_id = %s AND id = %s",
            (workspace, key_id),
        )
        row = await cursor.fetchone()
        if row is None:
            raise SecretUnavailable(
                "The key of this secret was destroyed; what it sealed is gone for good.",
                code="key_destroyed",
                detail=f"{workspace} {key_id}",
            )
        return await self._unwrap(on, workspace, row[0], key_id, bytes(row[1]))

    async def _unwrap(
        self, on: Borrowed, workspace: str, kind: str, key_id: str, wrapped: bytes
    ) -> Key:
        place = Place(workspace, key_id, kind)
        if kind == _WORKSPACE:
            material = await self._provider.unwrap(wrapped, place)
        else:
            parent = await self.by_id(workspace, key_id_of(wrapped), on)
            material = open_sealed(parent, wrapped, place)
        key = Key(key_id, material)
        self._keep(workspace, key)
        return key

    def _keep(self, workspace: str, key: Key) -> None:
        self._kept[workspace, key.id] = (time.monotonic() + CACHE_S, key)
        self._kept.move_to_end((workspace, key.id))
        if len(self._kept) > CACHED_KEYS_MAX:
            self._kept.popitem(last=False)
