"""HTTP out: a client that cannot be led astray, and what its failures mean.

    open_client         httpx over aiohttp's transport: many connections, kept open, bounded answers
    allowed_by          the private addresses that the settings allow (sandbox, provider overrides)
    map_http_failure    was a failed request never sent, or may it have arrived?

Addresses are checked where names become addresses, so a name that points into our own network is
refused whatever it looks like. Redirects are not followed, proxies of the environment are not
trusted, cookies are not kept (one client serves all tenants).

What the transport raises, told apart as in httpx's own tree:

    never sent          ConnectError (AddressRefused among them), ConnectTimeout, PoolTimeout,
                        UnsupportedProtocol
    may have arrived    ReadTimeout, ReadError, WriteError, RemoteProtocolError (AnswerTooLarge)

httpx-aiohttp 0.2 calls a reset before the answer a ConnectTimeout, which would make a POST look
unsent; so the cause that it keeps is translated here again.
"""

import asyncio
import functools
import ipaddress
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from schemas.settings import Settings

AllowPrivate = Callable[[str, int], bool]
Sent = Literal["never_sent", "may_have_arrived"]

# Longest wait for a free connection and for the connection itself, each.
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
# More calls at a time than one process can make use of; further ones wait.
MAX_CONNECTIONS: Final = 512
# Below the 75 s after which nginx and many vendors close an idle connection.
KEEPALIVE_S: Final = 50.0
# A vendor's answer, unpacked: far more than any action needs, little enough to hold in memory.
ANSWER_BYTES_MAX: Final = 10 * 1024 * 1024
DNS_CACHE_S: Final = 30
USER_AGENT: Final = "NeighbourHood/1 (+workflow automation)"

# RFC 6598 shared space and the NAT64 prefixes (RFC 6052, RFC 8215) can lead inside as well.
_REFUSED_NETWORKS: Final = tuple(
    ipaddress.ip_network(net) for net in ("100.64.0.0/10", "64:ff9b::/96", "64:ff9b:1::/48")
)


class AddressRefused(httpx.ConnectError):
    """The host is, or resolves to, an address that is not on the public internet."""


class AnswerTooLarge(httpx.RemoteProtocolError):
    """The answer is over the limit; it was read no further."""


class _RefusedError(OSError):
    """Raised in the resolver; comes back as AddressRefused."""


@functools.lru_cache(maxsize=4096)
def is_public(address: str) -> bool:
    """Say whether an IP address is one that a vendor may have.

    Private, loopback, link-local (cloud metadata among them), multicast, reserved and unspecified
    addresses are not, nor what hides an IPv4 address of that kind (v4-mapped, 6to4, Teredo).
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if hidden is not None and not is_public(str(hidden)):
            return False
    if any(ip in network for network in _REFUSED_NETWORKS if network.version == ip.version):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def nobody(_host: str, _port: int) -> bool:
    """Allow no private address at all."""
    return False


def allowed_by(settings: Settings) -> AllowPrivate:
    """Give the hosts that may be private because the operator named them: host and port must match.

    They are the sandbox and what `NHOOD_PROVIDER_<SLUG>_…_URL` set.
    """
    urls = [settings.sandbox_base]
    for override in settings.providers.values():
        urls += [override.base_url or "", override.authorize_url or "", override.token_url or ""]
    allowed = frozenset(_place(url) for url in urls if url)

    def allow(host: str, port: int) -> bool:
        return (host.lower(), port) in allowed

    return allow


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


class _PublicResolver(AbstractResolver):
    """Resolves names and gives out sockets, both to public or allowed addresses only."""

    def __init__(self, allow_private: AllowPrivate) -> None:
        self._allow_private = allow_private
        self._admitted: set[tuple[str, int]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        results = [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in found
        ]
        if self._allow_private(host, port):
            self._admitted.update((result["host"], port) for result in results)
            return results
        public = [result for result in results if is_public(result["host"])]
        if results and len(public) < len(results):
            raise _RefusedError(f"{host} resolves to an address that is not public")
        return public

    def open_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Look once more at the very address: a literal in strange spelling never was resolved."""
        family, kind, proto, _, (host, port, *_) = address
        place = (str(host), int(port))
        if not (is_public(place[0]) or place in self._admitted or self._allow_private(*place)):
            raise _RefusedError(f"{host} is not a public address")
        return socket.socket(family, kind, proto)

    async def close(self) -> None:
        """Nothing is held."""


class _BoundedStream(httpx.AsyncByteStream):
    """Reads an answer up to a limit, unpacking it, and translates what goes wrong on the way."""

    def __init__(self, inner: httpx.AsyncByteStream, limit: int, *, packed: bool) -> None:
        self._inner = inner
        self._limit = limit
        # 47 = any window size, gzip or zlib header told apart by itself
        self._unpacker = zlib.decompressobj(47) if packed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        try:
            async for chunk in self._inner:
                plain = self._unpack(chunk, self._limit - seen) if self._unpacker else chunk
                seen += len(plain)
                if seen > self._limit:
                    raise AnswerTooLarge(f"the answer is larger than {self._limit} bytes")
                yield plain
        except httpx.TransportError as error:
            if error.__cause__ is None:
                raise
            raise _translate(error) from error.__cause__

    def _unpack(self, chunk: bytes, room: int) -> bytes:
        assert self._unpacker is not None  # noqa: S101 - for the type checker
        try:
            return self._unpacker.decompress(chunk, room + 1)
        except zlib.error as error:
            raise httpx.RemoteProtocolError(f"the packed answer is damaged: {error}") from None

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Transport(AiohttpTransport):
    def __init__(self, allow_private: AllowPrivate, limits: httpx.Limits, body_limit: int) -> None:
        super().__init__(trust_env=False, limits=limits, client=self._open_session)
        self._allow_private = allow_private
        self._body_limit = body_limit

    def _open_session(self) -> aiohttp.ClientSession:
        """Open it on first use, when the event loop runs."""
        return open_session(
            self._allow_private,
            max_connections=self.limits.max_connections or 0,
            keepalive_s=self.limits.keepalive_expiry or KEEPALIVE_S,
            tls=self.ssl_context,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._check_literal(request)
        try:
            response = await super().handle_async_request(request)
        except httpx.TransportError as error:
            raise _translate(error, request) from error.__cause__
        except aiohttp.ClientError as error:
            raise httpx.RemoteProtocolError(_reason(error), request=request) from error
        packed = response.headers.pop("content-encoding", "").strip().lower()
        if packed not in ("", "identity", "gzip", "deflate", "x-gzip"):
            await response.aclose()
            raise httpx.RemoteProtocolError(f"the answer is packed as {packed[:40]!r}")
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - for the type checker
        is_packed = packed not in ("", "identity")
        if is_packed:
            response.headers.pop("content-length", None)
        response.stream = _BoundedStream(stream, self._body_limit, packed=is_packed)
        return response

    def _check_literal(self, request: httpx.Request) -> None:
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        check_literal(url.host, port, self._allow_private)


def check_literal(host: str, port: int, allow_private: AllowPrivate) -> None:
    """Check a host that is an address already: the resolver never sees it.

    Raises:
        AddressRefused: It is not public and not allowed.
    """
    if _is_literal(host) and not is_public(host) and not allow_private(host, port):
        raise AddressRefused(f"{host} is not a public address")


def open_session(
    allow_private: AllowPrivate,
    *,
    max_connections: int = MAX_CONNECTIONS,
    keepalive_s: float = KEEPALIVE_S,
    tls: ssl.SSLContext | bool = True,
) -> aiohttp.ClientSession:
    """Open the session under all calls: checked addresses, no cookies, nothing added by itself."""
    resolver = _PublicResolver(allow_private)
    connector = aiohttp.TCPConnector(
        limit=max_connections,
        keepalive_timeout=keepalive_s,
        resolver=resolver,
        socket_factory=resolver.open_socket,
        ttl_dns_cache=DNS_CACHE_S,
        ssl=tls,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


@functools.lru_cache(maxsize=4096)
def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


_CAUSES: Final[tuple[tuple[type[BaseException], type[httpx.TransportError]], ...]] = (
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientConnectionError, httpx.ReadError),
)


def _translate(
    error: httpx.TransportError, request: httpx.Request | None = None
) -> httpx.TransportError:
    cause = error.__cause__
    return error if cause is None else translate(cause, request)


def translate(cause: BaseException, request: httpx.Request | None = None) -> httpx.TransportError:
    """Say in httpx's words what aiohttp raised."""
    if isinstance(getattr(cause, "os_error", None), _RefusedError):
        return AddressRefused(str(cause.os_error), request=request)  # type: ignore[attr-defined]
    for kind, httpx_kind in _CAUSES:
        if isinstance(cause, kind):
            return httpx_kind(_reason(cause), request=request)
    return httpx.ReadError(_reason(cause), request=request)


def _reason(error: BaseException) -> str:
    return str(error)[:300] or type(error).__name__


def open_client(
    *,
    allow_private: AllowPrivate = nobody,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    read_timeout_s: float = READ_TIMEOUT_S,
    max_connections: int = MAX_CONNECTIONS,
    answer_bytes_max: int = ANSWER_BYTES_MAX,
) -> httpx.AsyncClient:
    """Open a client; close it with `aclose` or `async with`.

    Args:
        allow_private: Says which (host, port) may be a private address; see `allowed_by`.
        connect_timeout_s: For a free connection of the pool and for the connection.
        read_timeout_s: Between two pieces of an answer; give `timeout=` per call for another.
        max_connections: At a time, over all hosts.
        answer_bytes_max: Of an unpacked answer; a longer one raises `AnswerTooLarge`.
    """
    limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=KEEPALIVE_S)
    timeout = httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s)
    return httpx.AsyncClient(
        transport=_Transport(allow_private, limits, answer_bytes_max),
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"},
    )


def map_http_failure(error: Exception) -> tuple[Sent, str, str]:
    """Say what a failed request means.

    Args:
        error: What a client of `open_client` raised.

    Returns:
        Whether the request was never sent or may have arrived (so that only the first may be
        repeated at will), a stable code, and one sentence for people.
    """
    for kind, sent, code, message in _MEANINGS:
        if isinstance(error, kind):
            return sent, code, message
    return "may_have_arrived", "connection_failed", "The connection failed while it was in use."


_MEANINGS: Final[tuple[tuple[type[Exception], Sent, str, str], ...]] = (
    (
        AddressRefused,
        "never_sent",
        "address_refused",
        "The host is not on the public internet, so it is not called.",
    ),
    (
        httpx.PoolTimeout,
        "never_sent",
        "pool_timeout",
        "No connection became free in time.",
    ),
    (
        httpx.ConnectTimeout,
        "never_sent",
        "connect_timeout",
        "The host did not accept a connection in time.",
    ),
    (
        httpx.ConnectError,
        "never_sent",
        "connect_failed",
        "The host could not be reached.",
    ),
    (
        httpx.UnsupportedProtocol,
        "never_sent",
        "bad_url",
        "The address cannot be called.",
    ),
    (httpx.InvalidURL, "never_sent", "bad_url", "The address cannot be called."),
    (
        httpx.LocalProtocolError,
        "never_sent",
        "bad_request",
        "The request could not be written down.",
    ),
    (
        AnswerTooLarge,
        "may_have_arrived",
        "answer_too_large",
        f"The answer is larger than {ANSWER_BYTES_MAX // 2**20} MB.",
    ),
    (
        httpx.ReadTimeout,
        "may_have_arrived",
        "read_timeout",
        "The host did not answer in time.",
    ),
    (
        httpx.WriteTimeout,
        "may_have_arrived",
        "write_timeout",
        "The request could not be sent in time.",
    ),
    (
        httpx.RemoteProtocolError,
        "may_have_arrived",
        "broken_answer",
        "The host broke the connection off before its answer was whole.",
    ),
    (
        httpx.ReadError,
        "may_have_arrived",
        "connection_lost",
        "The connection broke before the answer came.",
    ),
    (
        httpx.WriteError,
        "may_have_arrived",
        "connection_lost",
        "The connection broke while the request was sent.",
    ),
    (
        httpx.TimeoutException,
        "may_have_arrived",
        "timeout",
        "The call took too long.",
    ),
)
