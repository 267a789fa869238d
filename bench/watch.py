"""What a stack of processes costs: CPU seconds and memory, by part."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

SAMPLE_S = 4.0  # a look costs some 100 ms of CPU: the kernel walks every page table
_STAGES = ("gateway", "router", "executors", "projector", "sandbox")
_PROGRAMS = {
    "java": "kafka",
    "postgres": "postgres",
    "valkey-server": "valkey",
    "redis-server": "valkey",
}


@dataclass(slots=True)
class Memory:
    """The most that was seen, in bytes.

    Attributes:
        parts: By part; pages that several processes share are counted once (PSS).
        whole: All parts at the same moment.
        resident: As `ps` adds it up: shared pages counted for each process.
    """

    parts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    whole: int = 0
    resident: int = 0


_names: dict[tuple[int, float], str] = {}


def part_of(process: psutil.Process) -> str:
    """Name the part of the stack that a process is."""
    birth = (process.pid, process.create_time())
    if birth not in _names:
        _names[birth] = _look_at(process)
    return _names[birth]


def _look_at(process: psutil.Process) -> str:
    with process.oneshot():
        name = process.name()
        words = process.cmdline()
    for program, part in _PROGRAMS.items():
        if name.startswith(program) or (words and words[0].startswith(f"{program}:")):
            return part
    if "serve" in words:
        rest = words[words.index("serve") + 1 :]
        return next((word for word in rest if word in _STAGES), "other")
    if words and "bench.floor" in words:
        return "floor"
    return "supervisor"


def tree(roots: list[int]) -> list[psutil.Process]:
    """List these processes and all their children."""
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        try:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def cpu_seconds(processes: list[psutil.Process]) -> dict[str, float]:
    """Sum user and system time by part.

    A process that ended is counted by its parent: PostgreSQL's backends come and go.
    """
    sums: dict[str, float] = defaultdict(float)
    for process in processes:
        try:
            part, times = part_of(process), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        sums[part] += times.user + times.system
        if part == "postgres":
            sums[part] += times.children_user + times.children_system
    return dict(sums)


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Subtract, part by part."""
    return {part: max(0.0, after[part] - before.get(part, 0.0)) for part in sorted(after)}


def memory_now(processes: list[psutil.Process]) -> tuple[dict[str, int], int]:
    """Give bytes by part (PSS), and what `ps` would add up."""
    parts: dict[str, int] = defaultdict(int)
    resident = 0
    for process in processes:
        try:
            memory = process.memory_full_info()
            part = part_of(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        parts[part] += getattr(memory, "pss", memory.uss)
        resident += memory.rss
    return dict(parts), resident


class MemoryWatch:
    """Looks at memory every few seconds on a thread of its own."""

    def __init__(self, processes: Callable[[], list[psutil.Process]]) -> None:
        self._processes = processes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = Memory()
        self.cpu_s = 0.0

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            before = time.thread_time()
            self._look()
            self.cpu_s += time.thread_time() - before
            self._stop.wait(SAMPLE_S)

    def _look(self) -> None:
        parts, resident = memory_now(self._processes())
        for part, size in parts.items():
            self.peak.parts[part] = max(self.peak.parts[part], size)
        self.peak.whole = max(self.peak.whole, sum(parts.values()))
        self.peak.resident = max(self.peak.resident, resident)
