"""Processes that the bench starts, and ends by their id."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """Ask the system for a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """A process of ours, in a session of its own."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self._log = log
        with contextlib.ExitStack() as stack:
            sink = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
            self._process = subprocess.Popen(
                command, env=env, stdout=sink, stderr=sink, cwd=ROOT, start_new_session=True
            )

    @classmethod
    def module(cls, name: str, *words: object) -> "Child":
        """Run one of our modules."""
        return cls([sys.executable, "-m", name, *map(str, words)])

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace") if self._log else ""

    def stop(self, seconds: float = 5) -> None:
        """Ask it to end; kill it where it does not."""
        if not self.alive:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
