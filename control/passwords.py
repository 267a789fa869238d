"""Hashes passwords with argon2id, off the event loop and not too many at a time.

Parameters: 19 MiB, 2 passes, 1 lane, the first choice of OWASP
(https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html); 33 ms on the
machine where this was written. A hash with other parameters is made anew at the next log-in.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.errors import DependencyDown

MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
# At a time: each takes a core and its memory.
HASHING_MAX: Final = 2
# Further ones are told to come back: 64 hashes are about a second of both.
WAITING_MAX: Final = 64
# What the password of nobody is held against, so that an unknown address costs what a known one
# does. It is the hash of random bytes that were thrown away.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$ZA6TCSwkDYU1qjEhNl57zg$"
    "IXs82mOCCZyJmWsiPCTE2OW3WT9YsDu6Z7439vKH3UQ"
)


class Passwords:
    """Hashes and checks."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(
            time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID
        )
        self._free = asyncio.Semaphore(HASHING_MAX)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Give the hash in PHC form.

        Raises:
            DependencyDown: `busy`; too many are being hashed.
        """
        async with self._turn():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, hashed: str | None, password: str) -> bool:
        """Check a password; takes the same time where there is nobody to check it for (None).

        Raises:
            DependencyDown: `busy`.
        """
        async with self._turn():
            good = await asyncio.to_thread(self._verify, hashed or _NOBODY, password)
        return good and hashed is not None

    def is_outdated(self, hashed: str) -> bool:
        """Say whether the hash has other parameters than those of now."""
        return self._hasher.check_needs_rehash(hashed)

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING_MAX:
            raise DependencyDown(
                "Too many people log in right now; try again in a moment.", code="busy"
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
