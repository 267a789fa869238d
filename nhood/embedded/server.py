"""What the three embedded servers have in common: a process, its port, its log, its end."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from schemas.errors import StackError

START_S = 60.0  # until a server answers; a cold start on a slow disk takes some 10 s
STOP_S = 20.0  # from asking to killing
_LOOK_S = 0.05
_LOG_LINES = 200
_BIRTH_S = 2.0  # clocks of the kernel and of a program's own notes differ by their rounding


# Children of this process: kept so that their end can be noticed and reaped.
_children: "dict[int, subprocess.Popen[bytes]]" = {}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        address: What clients connect to: `127.0.0.1:9092`, `postgresql://…`, `redis://…`.
        created: When the process began (psutil), so that a reused pid is not mistaken for it.
    """

    name: str
    pid: int
    created: float
    port: int
    address: str


def package_folder(name: str) -> Path:
    """Find an installed package's folder without importing it.

    Raises:
        StackError: It is not installed.
    """
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        return Path(folder)
    raise StackError(f"The package {name} is not installed: run `pip install {name}`.")


def free_port() -> int:
    """Ask the system for a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a port can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def keep_port(folder: Path, name: str) -> int:
    """Give the port that this state folder used before, or another where that one is taken."""
    file = folder / f"{name}.port"
    kept = file.read_text().strip() if file.exists() else ""
    if kept.isdigit() and port_is_free(int(kept)):
        return int(kept)
    port = free_port()
    file.write_text(f"{port}\n")
    return port


def make_folder(folder: Path) -> Path:
    """Make a folder of the state.

    Raises:
        StackError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StackError(
            f"The state folder {folder} cannot be written ({error.strerror}): free some room, mend "
            "its rights, or set NHOOD_STATE_DIR to another place.",
            code="state_unusable",
        ) from error
    return folder


def spawn(
    command: Sequence[str], log: Path, env: Mapping[str, str], *, cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a process of its own session that writes to a log file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - commands are built by us
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    _children[process.pid] = process
    return process


def wait_until(
    name: str,
    process: "subprocess.Popen[bytes]",
    answers: Callable[[], bool],
    log: Path,
    deadline_s: float = START_S,
) -> None:
    """Wait until a server answers.

    Raises:
        StackError: It ended or stayed silent; quotes the last error of its log.
    """
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if answers():
            return
        if process.poll() is not None:
            break
        time.sleep(_LOOK_S)
    if process.poll() is None:
        process.kill()
        process.wait()
    raise StackError(
        f"{name} did not start. {last_error(log)} See {log}; `nhood doctor` may know more.",
        code="server_not_started",
    )


def last_error(log: Path) -> str:
    """Quote the line of a log that most probably says what went wrong."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    marks = ("No space left", "Address already in use", "FATAL", "ERROR", "Exception", "# ")
    for mark in marks:
        found = [line for line in lines if mark in line]
        if found:
            return f"Its log says: {found[-1].strip()[:300]}"
    return f"Its log ends: {lines[-1].strip()[:300]}" if lines else ""


def running(name: str, process: "subprocess.Popen[bytes]", port: int, address: str) -> Running:
    """Note a process that answers."""
    created = psutil.Process(process.pid).create_time()
    return Running(name, process.pid, created, port, address)


def is_alive(pid: int, created: float) -> bool:
    """Say whether this very process still runs (a reused pid has another birth)."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < _BIRTH_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop(server: Running, *, number: int = signal.SIGTERM, grace_s: float = STOP_S) -> bool:
    """End a process: ask, wait, kill.

    Returns:
        Whether it ended by itself.
    """
    return stop_pid(server.pid, server.created, number=number, grace_s=grace_s)


def stop_pid(pid: int, created: float, *, number: int, grace_s: float) -> bool:
    """End this very process; see `stop`."""
    with contextlib.suppress(ProcessLookupError):
        if is_alive(pid, created):
            os.kill(pid, number)
    if _gone(pid, created, grace_s):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _gone(pid, created, 5)
    return False


def _gone(pid: int, created: float, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        child = _children.get(pid)
        if child is not None and child.poll() is not None:
            del _children[pid]
        if not is_alive(pid, created):
            return True
        time.sleep(_LOOK_S)
    return False
