"""A product under load, what is done to it meanwhile, and the verifier that counts afterwards.

The vendors (the sandbox) run outside of the stack and live on, so what they received tells what was
lost and what was repeated. Each event becomes one Slack message (a vendor without idempotency keys)
and one Zendesk ticket (a vendor that takes them).
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import psycopg

from nhood.embedded.server import free_port
from nhood.run_state import Part
from nhood.supervisor import is_ready
from tests.product import ROOT, Product, Workspace, wait_for

# Short in `make test`, long in `make soak`.
LONG = os.environ.get("NHOOD_SOAK") == "1"
SEED = int(os.environ.get("NHOOD_FAULTS_SEED", "0")) or random.randrange(1, 1 << 31)
LOAD_S = 30.0 if LONG else 3.0
RATE = 40
AWAY_S = LOAD_S + 60.0  # how long at most the load goes on while nothing takes it
# How long everything may take to end after the load: outages are waited for with growing pauses.
SETTLE_S = 240
_RETRY = {"max_attempts": 12, "delay": "200ms", "max_delay": "2s"}
WORKFLOW: dict[str, Any] = {
    "name": "Two effects",
    "trigger": {"type": "webhook", "path": "/faults"},
    "steps": [
        {"id": "message", "provider": "slack", "action": "send_message", "retry": _RETRY,
         "timeout": "5s", "config": {"channel": "#general", "text": "{{name}}"}},
        {"id": "ticket", "provider": "zendesk", "action": "create_ticket", "retry": _RETRY,
         "timeout": "5s", "config": {"subject": "{{name}}", "comment": "x"}},
    ],
}  # fmt: skip


@dataclass
class Row:
    """One line of the matrix.

    Attributes:
        refused: Posts that got no 2xx: the sender knows, and would send again.
        without_outcome: Accepted events without an outcome record.
        lost: Effects that no vendor ever received.
        repeated: Effects received twice by the vendor that takes no keys.
        repeated_keyed: Tickets made twice by the vendor that takes keys.
        progress_s: From the last time something was broken to the first effect of an event that
            was posted after it; None: nothing was ended, paused or cut.
        settled_s: From the end of the load to the last end.
    """

    name: str
    accepted: int = 0
    refused: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    without_outcome: int = 0
    lost: int = 0
    repeated: int = 0
    repeated_keyed: int = 0
    progress_s: float | None = None
    settled_s: float = 0.0

    def line(self) -> str:
        """Give it as a line of a Markdown table."""
        ended = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()))
        progress = "" if self.progress_s is None else f"{self.progress_s:.1f}"
        return (
            f"| {self.name} | {self.accepted} | {self.refused} | {ended} | {self.without_outcome} |"
            f" {self.lost} | {self.repeated} | {self.repeated_keyed} | {progress} |"
            f" {self.settled_s:.1f} |"
        )


HEAD = (
    "| fault, under load | accepted | refused | executions ended | without outcome | effects lost |"
    " repeated, vendor without keys | repeated, vendor with keys | s to first progress |"
    " s to settle |\n|---|---|---|---|---|---|---|---|---|---|"
)


class Field:
    """The running product, a workspace in it, and the vendors outside."""

    def __init__(self, product: Product, sandbox: str) -> None:
        self.product = product
        self.sandbox = httpx.Client(base_url=sandbox, timeout=30)
        self.random = random.Random(SEED)
        self._broken_at: float | None = None  # the last time, by the wall clock
        self._posted: dict[str, float] = {}
        self.workspace = Workspace.make(product)
        self.workspace.save(WORKFLOW)
        self.workspace.connect("slack")
        self.workspace.connect("zendesk", subdomain="acme")

    def close(self) -> None:
        self.workspace.client.close()
        self.sandbox.close()

    # What can be done to it.

    def part(self, name: str) -> Part:
        """Give a part as it is now; waits while it is being started again."""

        def alive() -> Part | None:
            parts = self.product.state.parts
            return next((part for part in parts if part.name == name and part.alive), None)

        found: Part = wait_for(alive, f"the {name}", 60)
        return found

    def end(self, name: str, number: int) -> None:
        """Send a part a signal and wait until that process is gone."""
        part = self.part(name)
        self._broken_at = time.time()
        os.kill(part.pid, number)
        wait_for(lambda: not part.alive, f"the end of the {name}", 60)

    def pause(self, name: str, seconds: float) -> None:
        """Stop a part where it is, and let it go on later."""
        process = psutil.Process(self.part(name).pid)
        stopped = [process, *process.children(recursive=True)]
        for one in stopped:
            one.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._broken_at = time.time()
        for one in stopped:
            one.send_signal(signal.SIGCONT)

    def cut_database(self) -> None:
        """End every connection to PostgreSQL."""
        self._broken_at = time.time()
        with psycopg.connect(self.product.state.env["DATABASE_URL"]) as on:
            on.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    def fill_disk(self, seconds: float) -> None:
        """Let PostgreSQL refuse every write to the busiest tables as it does on a full disk."""
        tables = ("effects", "executions", "event_outcomes", "token_uses")
        with psycopg.connect(self.product.state.env["DATABASE_URL"], autocommit=True) as on:
            on.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE EXCEPTION 'could not extend file: No space left on device'"
                " USING ERRCODE = 'disk_full'; END $$"
            )
            try:
                for table in tables:
                    on.execute(
                        f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table}"
                        " FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
                    )
                time.sleep(seconds)
            finally:
                self._broken_at = time.time()
                on.execute("DROP FUNCTION full_disk CASCADE")

    @contextlib.contextmanager
    def another(self, stage: str) -> Iterator[None]:
        """Let a second process of a stage join, and leave by SIGTERM."""
        port = free_port()
        env = {**os.environ, **self.product.state.env, "NHOOD_OPS_PORT": str(port)}
        path = self.product.folder / "logs" / f"second-{stage}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "nhood", "serve", stage],
                env=env, stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        joined = Part(stage, "stage", process.pid, 0.0, port, f"http://127.0.0.1:{port}")
        try:
            wait_for(lambda: is_ready(joined), f"the second {stage}", 60)
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0, path.read_text()[-3000:]

    def vendors(self, fault: dict[str, Any], times: int) -> None:
        """Let the next calls of both vendors go wrong."""
        for provider, action in (("slack", "send_message"), ("zendesk", "create_ticket")):
            script = {"provider": provider, "action": action, "times": times, "fault": fault}
            self.sandbox.post("/_sandbox/faults", json=script).raise_for_status()

    # The load and the verifier.

    def run(self, name: str, act: Callable[["Field"], None]) -> Row:
        """Do something to it under load, then wait for every end and count."""
        wait_for(self._ready, "everything to run", 60)
        self.sandbox.delete("/_sandbox/received").raise_for_status()
        row, mark = Row(name), f"{name[:20]}-{time.monotonic_ns()}"
        self._broken_at, self._posted = None, {}
        accepted: dict[str, str] = {}
        stop = threading.Event()
        load = threading.Thread(target=self._load, args=(mark, accepted, row, stop))
        load.start()
        try:
            time.sleep(0.5)
            act(self)
        finally:
            stop.set()
            load.join()
        self.sandbox.delete("/_sandbox/faults").raise_for_status()
        begun = time.monotonic()
        wait_for(lambda: self._all_ended(accepted), f"the ends of {name}", SETTLE_S, 0.3)
        row.settled_s = time.monotonic() - begun
        row.accepted = len(accepted)
        row.ended = self._ended(accepted)
        row.without_outcome = len(accepted) - self._outcomes(accepted)
        self._count_effects(row, set(accepted.values()))
        return row

    def _ready(self) -> bool:
        """Say whether all parts run: what was broken before must not count here."""
        parts = self.product.state.parts
        return all(part.alive for part in parts) and all(
            is_ready(part) for part in parts if part.kind == "stage"
        )

    def _load(self, mark: str, accepted: dict[str, str], row: Row, stop: threading.Event) -> None:
        """Post at a steady rate while something is being done or nothing takes it, or `LOAD_S`."""
        begun, number = time.monotonic(), 0
        with httpx.Client(base_url=self.product.url, timeout=20) as client:
            while (
                not stop.is_set()
                or time.monotonic() - begun < LOAD_S
                or self._away(accepted, time.monotonic() - begun)
            ):
                number += 1
                name = f"{mark}-{number}"
                self._posted[name] = time.time()
                try:
                    answer = client.post(
                        f"/webhooks/{self.workspace.id}/faults", json={"name": name}
                    )
                    taken = answer.status_code == 202
                except httpx.HTTPError:
                    taken = False
                if taken:
                    accepted[answer.json()["event_id"]] = name
                else:
                    row.refused += 1
                time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
                if number > 10_000:
                    raise AssertionError("the load does not end")

    def _away(self, accepted: dict[str, str], seconds: float) -> bool:
        """Say whether nothing was accepted since the last break: the load goes on, for a while."""
        broken_at = self._broken_at
        if broken_at is None or seconds > AWAY_S:
            return False
        return not any(self._posted[name] > broken_at for name in list(accepted.values())[-1:])

    def _query(self, text: str, ids: list[str]) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.product.state.env["DATABASE_URL"], connect_timeout=5) as on:
            return on.execute(text, (self.workspace.id, ids)).fetchall()

    def _ended(self, accepted: dict[str, str]) -> Counter[str]:
        rows = self._query(
            "SELECT status, count(*) FROM executions"
            " WHERE workspace_id = %s AND event_id = ANY(%s) GROUP BY status",
            list(accepted),
        )
        return Counter(dict(rows))

    def _all_ended(self, accepted: dict[str, str]) -> bool:
        try:
            ended = self._ended(accepted)
        except psycopg.OperationalError:  # it is being started again
            return False
        return sum(n for status, n in ended.items() if status != "running") >= len(accepted)

    def _outcomes(self, accepted: dict[str, str]) -> int:
        return len(
            self._query("SELECT DISTINCT event_id FROM event_outcomes WHERE workspace_id = %s"
                " AND event_id = ANY(%s)",
                        list(accepted))
        )  # fmt: skip

    def _count_effects(self, row: Row, names: set[str]) -> None:
        messages: Counter[str] = Counter()
        tickets: dict[str, set[Any]] = {}
        after = 0
        while True:
            page = self.sandbox.get(
                "/_sandbox/received", params={"since": after, "limit": 1000}
            ).json()["items"]
            if not page:
                break
            after = page[-1]["number"]
            for entry in page:
                if not _was_done(entry):
                    continue
                if entry["action"] == "send_message":
                    messages[entry["body"]["text"]] += 1
                    self._note_progress(row, entry)
                elif entry["action"] == "create_ticket":
                    made = tickets.setdefault(entry["body"]["ticket"]["subject"], set())
                    made.add(entry["effect_key"])
        done = {status for status in row.ended if status == "succeeded"}
        if done and set(row.ended) == done:
            row.lost = len(names - set(messages)) + len(names - set(tickets))
        row.repeated = sum(count - 1 for name, count in messages.items() if name in names)
        row.repeated_keyed = sum(len(made) - 1 for name, made in tickets.items() if name in names)

    def _note_progress(self, row: Row, entry: dict[str, Any]) -> None:
        """Note how long after the break this effect of an event came that was posted after it."""
        broken_at = self._broken_at
        if broken_at is None or self._posted.get(entry["body"]["text"], 0) < broken_at:
            return
        took = entry["at"] - broken_at
        row.progress_s = took if row.progress_s is None else min(row.progress_s, took)


def _was_done(entry: dict[str, Any]) -> bool:
    """Say whether the vendor did it, whatever became of its answer."""
    if entry["fault"] in ("reset after", "truncate"):
        return True
    return entry["status"] is not None and entry["status"] < 400
