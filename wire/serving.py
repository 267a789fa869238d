"""Serves an ASGI app: a socket bound with a clear error, uvicorn without its signal handlers."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import uvicorn

from schemas.errors import StackError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# Requests under way may take this long after the stop; a long poll at most is cut.
DRAIN_S: Final = 10
_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Take an address.

    Args:
        host: Name or address of an interface.
        port: 0 takes a free one; `getsockname()[1]` tells which.
        setting: Where another port can be chosen, for the error.

    Raises:
        StackError: It is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            text = f"Port {port} on {host} is taken by another program; stop it or set {setting}."
            raise StackError(text, code="port_taken") from error
        raise StackError(
            f"Cannot listen on {host}:{port}: {error.strerror}.", code="bad_address"
        ) from error
    taken.setblocking(False)  # noqa: FBT003 - the standard library takes it so
    return taken


class Server(uvicorn.Server):
    """A server that leaves signals alone: uvicorn's own ends the process by the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def stop(self) -> None:
        """Finish what is under way and end."""
        self.should_exit = True


def build_server(app: "ASGIApp") -> Server:
    """Build the server; `await server.serve(sockets=[bind(…)])` runs it until `server.stop()`."""
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return Server(config)
