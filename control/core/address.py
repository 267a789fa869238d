"""Where a request comes from, as far as it can be believed; pure."""

import functools
import ipaddress
from collections.abc import Sequence
from typing import Final

from schemas.errors import InvalidInput, Problem

# Whoever has one IPv6 address has the network of at least this size
# (https://www.rfc-editor.org/rfc/rfc6177).
_IPV6_PREFIX: Final = 64
# Hops that are looked at; an honest chain is far shorter.
_HOPS_MAX: Final = 20

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@functools.lru_cache(maxsize=8)
def networks(text: str) -> tuple[Network, ...]:
    """Read `10.0.0.0/8, 192.0.2.7`.

    Raises:
        InvalidInput: `bad_setting`; one of them is no address.
    """
    try:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return tuple(ipaddress.ip_network(part, strict=False) for part in parts)
    except ValueError as error:
        problem = Problem(
            "NHOOD_TRUSTED_PROXIES", str(error), "Give addresses or networks.", "bad_setting"
        )
        raise InvalidInput(
            f"NHOOD_TRUSTED_PROXIES: {error}.", problems=[problem], code="bad_setting"
        ) from None


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Tell who asks: the last one in the chain that is no proxy of ours.

    Args:
        peer: Who opened the connection.
        forwarded: `X-Forwarded-For` headers as they came; anybody can write anything into them.
        trusted: Our own proxies.
    """
    hops = [hop.strip() for line in forwarded for hop in line.split(",")][-_HOPS_MAX:]
    for hop in (peer, *reversed(hops)):
        address = _parsed(hop)
        if address is None:
            return peer  # what a proxy of ours wrote is no address: believe nothing of it
        if not any(address in network for network in trusted):
            return str(address)
    return peer


def grouped(address: str) -> str:
    """Give what limits are counted by: an IPv4 address, or the network of an IPv6 one."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
    return address


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
