"""Which ports the stages listen on: as configured, else the usual one, else a free one."""

from collections.abc import Mapping
from dataclasses import replace

from nhood.embedded.server import free_port, port_is_free
from schemas.errors import StackError
from schemas.settings import Settings


def choose_ports(settings: Settings, env: Mapping[str, str]) -> Settings:
    """Settle the gateway's and the sandbox's ports.

    Args:
        settings: As read.
        env: Tells whether a port was asked for or is only the default.

    Raises:
        StackError: A port that was asked for is taken.
    """
    return replace(
        settings,
        port=_choose(settings.port, settings.host, "NHOOD_PORT", env),
        sandbox_port=_choose(settings.sandbox_port, settings.host, "NHOOD_SANDBOX_PORT", env),
    )


def _choose(port: int, host: str, name: str, env: Mapping[str, str]) -> int:
    if port_is_free(port, host):
        return port
    if name in env:
        raise StackError(
            f"Port {port} is taken by another program: set {name} to a free one, or leave it out "
            "and nhood takes one that is free.",
            code="port_busy",
        )
    return free_port()
