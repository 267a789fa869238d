"""Starts everything, watches over it, stops it in order.

    servers   Kafka, PostgreSQL, Valkey (those that the environment does not name)
    stages    sandbox (unless NHOOD_SANDBOX_URL names one), router, executors, projector, gateway:
              `nhood serve <stage>` each

What runs is noted in `.nhood/run.json` before anything else happens with it, so that nothing can be
left behind unknown: `nhood down` stops even what a killed supervisor had started.
"""

import base64
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil

from nhood.embedded import kafka, postgres, valkey
from nhood.embedded.server import Running, free_port, last_error, make_folder, spawn, stop_pid
from nhood.ports import choose_ports
from nhood.run_state import Part, RunState, clear_state, only_one, read_state, write_state
from schemas.errors import StackError
from schemas.provider import load_catalogue
from schemas.settings import Secret, Settings
from schemas.topics import concrete_topics, load_topics, topics_file
from wire.admin import ensure_topics
from wire.database import migrate

# In the order in which they start; they stop the other way round: first the door is closed.
STAGES = ("sandbox", "projector", "executors", "router", "gateway")
READY_S = 90.0  # until all stages answer; a slow machine with a cold cache
STAGE_STOP_S = 40.0  # a stage may let calls under way end
_LOOK_S = 0.5
_BACKOFF_MAX_S = 30.0
_PROGRESS_PARTS = 8  # sentences while jars are downloaded
_STEADY_S = 60.0  # a part that lived so long starts anew without delay
_STOP_SIGNAL = {"postgres": signal.SIGINT}  # "fast": end the connections, write all, go

Say = Callable[[str], None]


@dataclass(slots=True)
class Supervisor:
    """One run of the stack.

    Args:
        settings: As read from the environment.
        env: The environment.
        say: Told what happens, a sentence each.
    """

    settings: Settings
    env: Mapping[str, str]
    say: Say
    state: RunState = field(default_factory=RunState)
    _stop: threading.Event = field(default_factory=threading.Event)
    _kill: threading.Event = field(default_factory=threading.Event)
    _born: dict[str, float] = field(default_factory=dict)
    _told: int = 0

    @property
    def folder(self) -> Path:
        """Where the state is kept."""
        return Path(self.settings.state_dir).absolute()

    def run(self, ready: Callable[[RunState], None]) -> None:
        """Start all, watch until a signal comes, stop all.

        Args:
            ready: Called once when everything is ready.

        Raises:
            StackError: Something does not start; what did is stopped again.
        """
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        with only_one(self.folder):
            stop_strays(self.folder, self.say)
            me = psutil.Process()
            self.state.supervisor = Part("supervisor", "supervisor", me.pid, me.create_time(), 0)
            self.state.started_at = time.time()
            try:
                self._start()
                self.state.ready = True
                self._note()
                ready(self.state)
                self._watch()
            finally:
                self._stop_all()

    def _on_signal(self, *_: object) -> None:
        if self._stop.is_set():
            self._kill.set()
        self._stop.set()

    def _note(self) -> None:
        write_state(self.folder, self.state)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StackError("Stopped before everything was ready.", code="stopped")

    def _start(self) -> None:
        self._note()
        self.settings = _with_key(choose_ports(self.settings, self.env), self.folder)
        self._start_servers()
        self._check_stop()
        self.say("Setting up topics and tables")
        declared = load_topics(topics_file().read_text())
        slugs = [spec.slug for spec in load_catalogue()]
        report = ensure_topics(
            self.settings.kafka_bootstrap_servers,
            concrete_topics(declared, slugs),
            partitions=self.settings.topic_partitions,
            replication=self.settings.replication_factor,
        )
        for sentence in report.drift:
            self.say(f"Note: {sentence}")
        migrate(self.settings.database_url.reveal())
        self.state.env = self.settings.to_env()
        self.state.gateway_url = self.settings.gateway_url
        self.state.sandbox_url = self.settings.sandbox_base
        for name in STAGES:
            self._check_stop()
            if name != "sandbox" or not self.settings.sandbox_url:
                self._start_stage(name)
        self._wait_ready()

    def _start_servers(self) -> None:
        settings = self.settings
        if not settings.kafka_bootstrap_servers:
            self.say("Starting Kafka")
            server = kafka.start(self.folder, settings, self.env, progress=self._progress)
            settings = replace(settings, kafka_bootstrap_servers=self._noted(server))
        if not settings.database_url:
            self._check_stop()
            self.say("Starting PostgreSQL")
            address = self._noted(postgres.start(self.folder, self.env))
            settings = replace(settings, database_url=Secret(address))
        if not settings.redis_url:
            self._check_stop()
            self.say("Starting Valkey")
            address = self._noted(valkey.start(self.folder, self.env))
            settings = replace(settings, redis_url=Secret(address))
        self.settings = settings

    def _noted(self, server: Running) -> str:
        self.state.parts.append(Part.of(server))
        self._born[server.name] = time.monotonic()
        self._note()
        return server.address

    def _progress(self, there: int, total: int) -> None:
        part = there * _PROGRESS_PARTS // total
        if part <= self._told:
            return
        self._told = part
        self.say(f"Downloading Kafka: {there >> 20} of {total >> 20} MB")

    def _start_stage(self, name: str, restarts: int = 0) -> None:
        settings = self.settings
        port = {"gateway": settings.port, "sandbox": settings.sandbox_port}.get(name, 0)
        ops_port = port if name == "gateway" else free_port()
        env = {**self.env, **settings.to_env(), "NHOOD_OPS_PORT": str(ops_port)}
        process = spawn(
            [sys.executable, "-m", "nhood", "serve", name],
            self.folder / "logs" / f"{name}.log",
            env,
        )
        born = psutil.Process(process.pid).create_time()
        url = f"http://{settings.host}:{ops_port}"
        self.state.parts.append(
            Part(name, "stage", process.pid, born, port or ops_port, url, restarts)
        )
        self._born[name] = time.monotonic()
        self._note()

    def _wait_ready(self) -> None:
        self.say("Waiting for the stages")
        until = time.monotonic() + READY_S
        waiting = [part for part in self.state.parts if part.kind == "stage"]
        while waiting:
            self._check_stop()
            for part in list(waiting):
                if is_ready(part):
                    waiting.remove(part)
                elif not part.alive or time.monotonic() > until:
                    raise self._not_ready(part)
            self._stop.wait(0.1)

    def _not_ready(self, part: Part) -> StackError:
        log = self.folder / "logs" / f"{part.name}.log"
        what = "does not become ready" if part.alive else "ended at once"
        return StackError(
            f"The {part.name} {what}. {last_error(log)} See {log}.", code="stage_not_ready"
        )

    def _watch(self) -> None:
        """Start again what dies; ends when a signal came."""
        while not self._stop.wait(_LOOK_S):
            for part in list(self.state.parts):
                if not part.alive:
                    self._restart(part)

    def _restart(self, part: Part) -> None:
        lived = time.monotonic() - self._born.get(part.name, 0.0)
        restarts = 0 if lived > _STEADY_S else part.restarts
        pause = min(_BACKOFF_MAX_S, 0.25 * 2**restarts) if restarts else 0.0
        if lived < pause:
            return
        self.say(f"The {part.name} has died; starting it again")
        self.state.parts.remove(part)
        if part.kind == "stage":
            self._start_stage(part.name, restarts + 1)
            return
        try:
            server = self._start_server(part)
        except StackError as error:
            self.say(error.public)
            self.state.parts.append(replace(part, restarts=restarts + 1))
            self._born[part.name] = time.monotonic()
            return
        self._noted(server)

    def _start_server(self, part: Part) -> Running:
        if part.name == "kafka":
            return kafka.start(self.folder, self.settings, self.env, port=part.port)
        if part.name == "postgres":
            return postgres.start(self.folder, self.env, port=part.port)
        return valkey.start(self.folder, self.env, port=part.port)

    def _stop_all(self) -> None:
        """Close the door first, then let each stage end; a second signal kills."""
        order = {name: number for number, name in enumerate((*STAGES[::-1],))}
        parts = sorted(self.state.parts, key=lambda part: order.get(part.name, len(order)))
        for part in parts:
            if part.alive:
                self.say(f"Stopping {part.name}")
            self._stop_part(part)
        clear_state(self.folder)

    def _stop_part(self, part: Part) -> None:
        grace = 0.0 if self._kill.is_set() else STAGE_STOP_S
        ended = threading.Thread(target=_stop_one, args=(part, grace), daemon=True)
        ended.start()
        while ended.is_alive():
            ended.join(_LOOK_S)
            if self._kill.is_set():
                with contextlib.suppress(ProcessLookupError):
                    if part.alive:
                        os.kill(part.pid, signal.SIGKILL)


def _stop_one(part: Part, grace_s: float) -> None:
    number = _STOP_SIGNAL.get(part.name, signal.SIGTERM)
    stop_pid(part.pid, part.created, number=number, grace_s=grace_s)


def is_ready(part: Part) -> bool:
    """Ask a stage's /readyz."""
    try:
        return httpx.get(f"{part.url}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _with_key(settings: Settings, folder: Path) -> Settings:
    """Make the vault's root key for development, once."""
    file = Path(settings.master_key_file or folder / "master.key")
    if not file.exists() and not settings.is_production:
        make_folder(file.parent)
        file.touch(mode=0o600)
        file.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    return replace(settings, master_key_file=str(file), state_dir=str(folder))


def stop_strays(folder: Path, say: Say) -> int:
    """Stop what a supervisor that is gone has left behind.

    Returns:
        How many processes were stopped.
    """
    parts = [part for part in read_state(folder).parts if part.alive]
    for part in sorted(parts, key=lambda part: part.kind, reverse=True):
        say(f"Stopping {part.name}, which was left behind")
        _stop_one(part, STAGE_STOP_S)
    clear_state(folder)
    return len(parts)


def bring_down(folder: Path, say: Say) -> None:
    """Stop everything that belongs to this folder; nothing running is fine too."""
    state = read_state(folder)
    supervisor = state.supervisor
    if supervisor is not None and supervisor.alive:
        stop_pid(
            supervisor.pid,
            supervisor.created,
            number=signal.SIGTERM,
            grace_s=STAGE_STOP_S * len(STAGES),
        )
    stop_strays(folder, say)


def detach(settings: Settings, env: Mapping[str, str], say: Say) -> RunState:
    """Start a supervisor in the background and wait until everything is ready.

    Raises:
        StackError: It did not come up; the sentence is the supervisor's.
    """
    folder = make_folder(Path(settings.state_dir).absolute())
    log = folder / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = log.stat().st_size if log.exists() else 0
    process = spawn([sys.executable, "-m", "nhood", "up"], log, dict(env))
    told = start
    while True:
        told = _tell_new(log, told, say)
        state = read_state(folder)
        if state.ready and state.supervisor is not None and state.supervisor.pid == process.pid:
            return state
        if process.poll() is not None:
            _tell_new(log, told, say)
            raise StackError(_last_line(log, start), code="not_started")
        time.sleep(0.1)


def _tell_new(log: Path, start: int, say: Say) -> int:
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole, newline, _ = text.rpartition(b"\n")
    for line in whole.decode(errors="replace").splitlines():
        if line and not line.startswith("error: "):
            say(line)
    return start + len(whole) + len(newline)


def _last_line(log: Path, start: int) -> str:
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line.removeprefix("error: ") for line in text.splitlines() if "error: " in line]
    return lines[-1] if lines else f"The stack did not start; see {log}."
