"""The keys that sign access tokens: made here, sealed by the vault, changed by themselves.

A key signs for `LIFE_S` and verifies for a token's life longer. One that does not open (the vault's
root was changed and the old one is gone) is passed over and a new one made: access tokens live 15
minutes and are had anew by a refresh, so nobody has to log in again.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import orjson
import structlog
from joserfc.jwk import OKPKey

from control.core.tokens import ACCESS_S, ALGORITHM, LEEWAY_S
from control.store import signing
from control.store.query import Borrowed
from schemas.errors import SecretUnavailable
from schemas.settings import Secret
from wire.clock import mint, now
from wire.database import Pool, connection

LIFE_S: Final = 30 * 24 * 3600
# A retired key goes on verifying in other processes for so long.
KNOWN_S: Final = 10.0
# Tokens that name keys nobody knows make the database be asked no more often than this.
AGAIN_S: Final = 1.0
_FIELD: Final = "signing_key"
_log = structlog.get_logger()


class RootSealer(Protocol):
    """Keeps secrets of the platform itself; the vault is one."""

    async def seal_own(self, field: str, text: Secret) -> bytes:
        """Seal a secret that belongs to no workspace."""
        ...

    async def open_own(self, field: str, sealed: bytes) -> Secret:
        """Open what `seal_own` sealed under the same field."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with its name; `key` is private."""

    kid: str
    key: OKPKey
    created_at: datetime


class SigningKeys:
    """Gives the key that signs now and those that verify."""

    def __init__(self, pool: Pool, sealer: RootSealer, clock: Callable[[], datetime] = now) -> None:
        self._pool = pool
        self._sealer = sealer
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._loaded_s = 0.0
        self._loading = asyncio.Lock()

    async def current(self) -> SigningKey:
        """Give the key that signs, and make one where there is none.

        Raises:
            DependencyDown: The database is away.
            SecretUnavailable: The vault cannot seal.
        """
        await self._load(KNOWN_S)
        return self._newest() or await self._make()

    async def find(self, kid: str) -> SigningKey | None:
        """Give the key that a token names."""
        await self._load(KNOWN_S)
        if kid not in self._keys:
            await self._load(AGAIN_S)
        found = self._keys.get(kid)
        ends = timedelta(seconds=LIFE_S + ACCESS_S + LEEWAY_S)
        return found if found and found.created_at + ends > self._clock() else None

    def forget(self) -> None:
        """Ask the database again, since keys were changed here."""
        self._loaded_s = 0.0

    def _newest(self) -> SigningKey | None:
        young = self._clock() - timedelta(seconds=LIFE_S)
        able = [key for key in self._keys.values() if key.created_at > young]
        return max(able, key=lambda key: (key.created_at, key.kid), default=None)

    async def _load(self, older_s: float) -> None:
        if self._loaded_s and time.monotonic() < self._loaded_s + older_s:
            return
        async with self._loading:
            if self._loaded_s and time.monotonic() < self._loaded_s + older_s:
                return
            async with connection(self._pool) as on:
                await self._read(on)

    async def _read(self, on: Borrowed) -> None:
        begun = time.monotonic()
        since = self._clock() - timedelta(seconds=LIFE_S + ACCESS_S + LEEWAY_S)
        found: dict[str, SigningKey] = {}
        for row in await signing.live(on, since):
            known = self._keys.get(row["id"])
            key = known.key if known else await self._open(row["id"], bytes(row["sealed"]))
            if key is not None:
                found[row["id"]] = SigningKey(row["id"], key, row["created_at"])
        self._keys, self._loaded_s = found, begun

    async def _open(self, kid: str, sealed: bytes) -> OKPKey | None:
        try:
            text = await self._sealer.open_own(f"{_FIELD}/{kid}", sealed)
        except SecretUnavailable as error:
            _log.warning("signing.key_does_not_open", key=kid, code=error.code)
            return None
        return OKPKey.import_key(orjson.loads(text.reveal()))

    async def _make(self) -> SigningKey:
        async with self._loading, connection(self._pool) as on:
            await signing.lock(on)
            await self._read(on)  # another process may have made one
            there = self._newest()
            if there is not None:
                return there
            kid, created_at = mint("sig"), self._clock()
            key = OKPKey.generate_key(ALGORITHM, {"kid": kid}, private=True)
            text = Secret(orjson.dumps(key.as_dict(private=True)).decode())
            sealed = await self._sealer.seal_own(f"{_FIELD}/{kid}", text)
            await signing.insert(on, kid, sealed, created_at)
        made = SigningKey(kid, key, created_at)
        self._keys = {**self._keys, kid: made}
        _log.info("signing.key_made", key=kid)
        return made
