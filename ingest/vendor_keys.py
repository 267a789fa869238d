"""Fetches vendors' public keys and certificates, from their own hosts only, and keeps them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

import httpx

from ingest.core.vendor_request import VendorRequest
from schemas.errors import InvalidInput
from schemas.triggers import SignatureSpec

KNOWN_US: Final = 3_600_000_000
KEYS_MAX: Final = 100
TIMEOUT_S: Final = 5.0


class VendorKeys:
    """Gives what stands at a scheme's `keys` address.

    Args:
        client: For the vendors' hosts; refuses private addresses.
        clock: UTC, microseconds.
    """

    def __init__(self, client: httpx.AsyncClient, clock: Callable[[], int]) -> None:
        self._client = client
        self._clock = clock
        self._kept: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    async def get(self, scheme: SignatureSpec, request: VendorRequest) -> bytes | None:
        """Give the keys; None where there are none to be had."""
        url = _address(scheme, request)
        if url is None:
            return None
        kept = self._kept.get(url)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        found = await self._fetched(url)
        if found is None:
            return kept[1] if kept is not None else None
        self._kept[url] = (self._clock() + KNOWN_US, found)
        if len(self._kept) > KEYS_MAX:
            self._kept.popitem(last=False)
        return found

    async def _fetched(self, url: str) -> bytes | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.get(url)
        except (TimeoutError, httpx.HTTPError):
            return None
        return answer.content if answer.status_code == httpx.codes.OK else None


def _address(scheme: SignatureSpec, request: VendorRequest) -> str | None:
    """Give the address: a fixed one, or one that the request names on a host of the vendor's."""
    if scheme.keys is None:
        return None
    try:
        url = scheme.keys.text(request.roots())
    except InvalidInput:
        return None
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.username is not None:
        return None
    host = parts.hostname or ""
    ours = not scheme.keys.paths or any(fnmatchcase(host, pattern) for pattern in scheme.hosts)
    return url if ours else None
