"""What the three embedded servers have in common: a process, its port, its log, its end."""

import contextlib
import importlib.util
import os
import secrets
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
_LOG_BYTES_MAX = 16 * 1024 * 1024  # a longer log is put aside when its program starts again
_PID_FILE = "process.pid"
_START_MARK = "--- starting "
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


def keep_password(folder: Path) -> str:
    """Give the server's own password: random, made once, readable by its owner only."""
    file = folder / "password"
    if not (file.exists() and file.stat().st_size):  # empty: killed while it was written
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return file.read_text().strip()


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
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str],
    *,
    cwd: Path | None = None,
    owned: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a process of its own session that writes to a log file.

    Args:
        command: Program and arguments.
        log: Grows over several starts; a line marks each.
        env: The whole environment.
        cwd: Where it runs.
        owned: The folder that it alone may use (`claim_folder`); a server's, not a stage's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if owned is not None:
        _mark_start(log, Path(command[0]).name)
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
    if owned is not None:
        created = psutil.Process(process.pid).create_time()
        (owned / _PID_FILE).write_text(f"{process.pid} {created}\n")
    return process


def _mark_start(log: Path, program: str) -> None:
    if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
        log.replace(log.with_suffix(".old.log"))
    with log.open("a") as out:
        out.write(f"{_START_MARK}{program}\n")


def claim_folder(folder: Path) -> Path:
    """Make a server's folder, and end what a killed program had left running on it.

    Returns:
        The folder as an absolute path.

    Raises:
        StackError: It cannot be made or written.
    """
    file = make_folder(folder).absolute() / _PID_FILE
    words = file.read_text().split() if file.exists() else []
    with contextlib.suppress(ValueError):
        pid, created = (float(word) for word in words)
        # All three servers end in good order on this signal, PostgreSQL without waiting for others.
        stop_pid(int(pid), created, number=signal.SIGINT, grace_s=STOP_S)
    file.unlink(missing_ok=True)
    return file.parent


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
    try:
        while time.monotonic() < until:
            # Asked in this order: an answer may be another program's that holds the port.
            if answers() and process.poll() is None:
                return
            if process.poll() is not None:
                break
            time.sleep(_LOOK_S)
    except BaseException:
        _kill(process)
        raise
    _kill(process)
    raise StackError(
        f"{name} did not start. {last_error(log)} See {log}; `nhood doctor` may know more.",
        code="server_not_started",
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def last_error(log: Path) -> str:
    """Quote the line of a log's last start that most probably says what went wrong."""
    if not log.exists():
        return ""
    text = log.read_text(errors="replace")
    _, mark, latest = text.rpartition(_START_MARK)
    lines = latest.splitlines()[1 if mark else 0 :][-_LOG_LINES:]
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
