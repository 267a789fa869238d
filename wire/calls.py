"""The executors' hot path out: one call after the other over a shared aiohttp session.

The same checks and the same errors as `wire.http` (httpx), at a third of its cost: httpx builds a
request, a response, headers and a URL of its own for every call (docs/performance.md).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
from yarl import URL

from wire.http import (
    ANSWER_BYTES_MAX,
    CONNECT_TIMEOUT_S,
    USER_AGENT,
    AllowPrivate,
    AnswerTooLarge,
    check_literal,
    open_session,
    translate,
)

_GOOD: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers (repeated ones joined by commas), body unpacked."""

    status: int
    headers: Mapping[str, str]
    content: bytes


# Takes a good answer's body piece by piece and gives what stands for it.
Keep = Callable[[Mapping[str, str], AsyncIterator[bytes]], Awaitable[bytes]]
Content = bytes | AsyncIterator[bytes] | None


class Calls(Protocol):
    """Sends one request and gives its answer."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content,
        keep: Keep | None = None,
    ) -> Answer:
        """Send; the caller bounds the time.

        Args:
            method: HTTP's.
            url: Absolute.
            headers: With content-length where the content comes in pieces.
            content: The body.
            keep: Is given the body of an answer of status 200 to 299, however long it is.

        Raises:
            httpx.TransportError: No whole answer came (`wire.http.map_http_failure` reads it).
        """
        ...


class AiohttpCalls:
    """Calls over aiohttp; open it with `async with`."""

    def __init__(self, allow_private: AllowPrivate) -> None:
        self._allow_private = allow_private
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = open_session(self._allow_private)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content,
        keep: Keep | None = None,
    ) -> Answer:
        """Send one request (see `Calls.send`); redirects are not followed."""
        assert self._session is not None, "used before it was opened"  # noqa: S101
        address = URL(url, encoded=True)
        check_literal(address.host or "", address.port or 443, self._allow_private)
        try:
            async with self._session.request(
                method,
                address,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate", **headers},
                data=content,
                allow_redirects=False,
                timeout=self._timeout,
            ) as answer:
                told = _plain(answer.headers)
                if keep is not None and answer.status in _GOOD:
                    body = await keep(told, answer.content.iter_any())
                else:
                    body = await _bounded(answer)
        except (aiohttp.ClientError, OSError) as error:
            raise translate(error) from error
        return Answer(answer.status, told, body)


def _plain(headers: "Mapping[str, str]") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers.items():
        low = name.lower()
        found[low] = f"{found[low]}, {value}" if low in found else value
    return found


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """Read the unpacked body up to the limit."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise AnswerTooLarge(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
