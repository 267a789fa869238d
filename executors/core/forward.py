"""What of a request and of an answer the proxy passes on, and where a path may lead; pure.

The path stays on the provider's own address and below it: absolute addresses, `//host`, dots that
climb (plain or percent-encoded, however often) and backslashes are refused, so that neither another
host nor another account of the same host can be named.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from schemas.errors import InvalidInput
from schemas.provider import ProviderSpec

Pairs = list[tuple[str, str]]

PATH_CHARS_MAX: Final = 8_000
_HOP: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "proxy-authenticate", "proxy-authorization"),
    )
)
# What is meant for us, tells of our callers, or would be a second credential.
_NOT_SENT: Final = _HOP | {
    *("authorization", "cookie", "host", "content-length", "accept-encoding", "expect"),
    *("forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
    *("x-forwarded-port", "x-forwarded-prefix", "origin", "referer"),
}
# What would set something up for our host in a vendor's name, or shows credentials.
_NOT_SHOWN: Final = _HOP | {
    *("set-cookie", "set-cookie2", "www-authenticate", "authentication-info", "authorization"),
    *("content-length", "content-encoding", "strict-transport-security", "alt-svc", "server"),
    *("public-key-pins", "content-security-policy", "clear-site-data", "service-worker-allowed"),
    *("x-content-type-options", "date"),
}
_OURS: Final = "nhood-"
_CORS: Final = "access-control-"
_BAD_CHARACTER: Final = re.compile(r"[\x00-\x20\x7f\\#]")
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_PARAMETER: Final = re.compile(r"\$\{[^}]*\}")
_UNQUOTED_MAX: Final = 3
_CHOOSERS: Final = {"connection_id": "nhood-connection-id", "user_id": "nhood-user-id"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose account is meant, and the query that is left for the vendor.

    Attributes:
        query: As it came, without what chose.
    """

    connection_id: str | None
    user_id: str | None
    query: str


def choose(headers: Pairs, query: str) -> Choice:
    """Find out whose account is meant.

    `Nhood-Connection-Id` and `Nhood-User-Id` choose; where neither is sent, `connection_id` and
    `user_id` in the query do, and these are taken out of it.
    """
    sent = {name.lower(): value for name, value in headers}
    named = {key: sent.get(header) or None for key, header in _CHOOSERS.items()}
    if any(named.values()):
        return Choice(named["connection_id"], named["user_id"], query)
    kept = []
    for part in query.split("&") if query else []:
        name = part.partition("=")[0]
        if name in _CHOOSERS:
            named[name] = next(iter(parse_qsl(part)), (name, None))[1]
        else:
            kept.append(part)
    return Choice(named["connection_id"], named["user_id"], "&".join(kept))


def address(base: str, path: str, query: str) -> str:
    """Give the address of a path at a provider.

    Args:
        base: The provider's, for this account, without a slash at the end.
        path: As it came, percent-encoded, without a slash at the beginning.
        query: As it came.

    Raises:
        InvalidInput: `bad_proxy_path`.
    """
    if len(path) + len(query) > PATH_CHARS_MAX:
        raise _bad(f"it is longer than {PATH_CHARS_MAX} characters")
    if _ABSOLUTE.match(path) or path.startswith("/"):
        raise _bad("it names a host; give what follows the provider's own address")
    if _BAD_CHARACTER.search(path) or _BAD_CHARACTER.search(query) or not path.isascii():
        raise _bad("it has a character that does not belong into an address")
    plain = path
    for _ in range(_UNQUOTED_MAX):
        _check_dots(plain)
        plain = unquote(plain)
    _check_dots(plain)
    found = f"{base}/{path}" + (f"?{query}" if query else "")
    ours, theirs = urlsplit(base), urlsplit(found)
    if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
        raise _bad("it leads to another host")
    return found


def _check_dots(path: str) -> None:
    segments = path.replace("\\", "/").split("/")
    if any(segment.partition(";")[0].strip() in (".", "..") for segment in segments):
        raise _bad("`.` and `..` would lead elsewhere")


def _bad(why: str) -> InvalidInput:
    return InvalidInput(f"This path cannot be called: {why}.", code="bad_proxy_path")


def sent(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Give the headers of a request that go to the vendor; names in lower case."""
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_SENT | _named_in_connection(pairs)
    return {
        name: value
        for name, value in pairs
        if name not in dropped and not name.startswith((_OURS, "sec-", "x-forwarded-"))
    }


def shown(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Give the headers of an answer that come back; names in lower case."""
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_SHOWN | _named_in_connection(pairs)
    return [
        (name, value)
        for name, value in pairs
        if name not in dropped and not name.startswith((_OURS, _CORS))
    ]


def _named_in_connection(pairs: Pairs) -> set[str]:
    return {
        word.strip().lower()
        for name, value in pairs
        if name == "connection"
        for word in value.split(",")
    }


Patterns = list[tuple[str, re.Pattern[str], str]]


def patterns_of(spec: ProviderSpec) -> Patterns:
    """Give method, path and id of the provider's actions, for `action_of`."""
    found = []
    for action in spec.actions.values():
        if action.request is not None:
            parts = _PARAMETER.split(action.request.path.source.lstrip("/"))
            pattern = "[^/]+".join(re.escape(part) for part in parts)
            found.append((action.request.method, re.compile(pattern), action.id))
    # What is written out goes before what has parameters.
    return sorted(found, key=lambda item: "[^/]+" in item[1].pattern)


def action_of(patterns: Patterns, method: str, path: str) -> str:
    """Say which action's limits a call falls under; `proxy` where it is none's."""
    for verb, pattern, name in patterns:
        if verb == method and pattern.fullmatch(path):
            return name
    return "proxy"
