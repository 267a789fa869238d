"""What is running, written to `.nhood/run.json` so that every other `nhood` command finds it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from nhood.embedded.server import Running, is_alive, make_folder
from schemas.errors import StackError


@dataclass(slots=True)
class Part:
    """A server or a stage.

    Attributes:
        kind: `server` (Kafka, PostgreSQL, Valkey) or `stage`.
        created: Birth of the process, so that a reused pid is not mistaken for it.
        url: Where its /readyz is, for stages.
        restarts: How often it was started again after it had died.
    """

    name: str
    kind: str
    pid: int
    created: float
    port: int
    url: str = ""
    restarts: int = 0

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return is_alive(self.pid, self.created)

    @classmethod
    def of(cls, server: Running) -> "Part":
        """Note an embedded server; its address holds a password and is not noted."""
        return cls(server.name, "server", server.pid, server.created, server.port)


@dataclass(slots=True)
class RunState:
    """All that runs.

    Attributes:
        env: The settings' environment of the stages; holds passwords, so the file is 0600.
        ready: Whether every stage answered that it is ready.
    """

    supervisor: Part | None = None
    parts: list[Part] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    gateway_url: str = ""
    sandbox_url: str = ""
    ready: bool = False
    started_at: float = 0.0

    @property
    def is_up(self) -> bool:
        """Whether a supervisor watches over it."""
        return self.supervisor is not None and self.supervisor.alive


def _file(state_dir: Path) -> Path:
    return state_dir / "run.json"


def read_state(state_dir: Path) -> RunState:
    """Read what is noted; nothing where there is no file or it is damaged."""
    try:
        body = json.loads(_file(state_dir).read_text())
        supervisor = Part(**body.pop("supervisor")) if body.get("supervisor") else None
        body.pop("supervisor", None)
        parts = [Part(**part) for part in body.pop("parts")]
        return RunState(supervisor=supervisor, parts=parts, **body)
    except (OSError, ValueError, TypeError, KeyError):
        return RunState()


def write_state(state_dir: Path, state: RunState) -> None:
    """Write it whole, readable by its owner only."""
    part = state_dir / f".run.json.{os.getpid()}"
    part.touch(mode=0o600)
    part.write_text(json.dumps(asdict(state), indent=1))
    part.replace(_file(state_dir))


def clear_state(state_dir: Path) -> None:
    """Nothing runs any more."""
    _file(state_dir).unlink(missing_ok=True)


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two `nhood up` do not start twice.

    Raises:
        StackError: Another command holds it.
    """
    make_folder(state_dir)
    with (state_dir / "lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"Another nhood command is at work in {state_dir}; wait for it, or see "
                "`nhood status`.",
                code="busy",
            ) from None
        yield
