"""A router as a process of its own, spoken to over Kafka alone."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer

from nhood.embedded.server import free_port
from schemas import codec
from schemas.errors import CorruptEvent
from schemas.events import Envelope, Event, Payload, WorkflowVersion
from schemas.ids import new_id
from schemas.topics import DEFINITIONS, EVENTS, EXECUTIONS

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


@contextmanager
def a_router(bootstrap: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `nhood serve router`; ended with -9."""
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "NHOOD_STATE_DIR": str(folder),
        "NHOOD_OPS_PORT": str(free_port()),
    }
    with (folder / "router.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nhood", "serve", "router"], env=env, stderr=log, cwd=ROOT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


@dataclass
class Log:
    """Writes workflows and events, and collects the facts of one workspace."""

    bootstrap: str
    workspace: str = field(default_factory=lambda: new_id("ws", 0, os.urandom(10)))
    facts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._producer = Producer(
            {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"}
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"test-{self.workspace}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._consumer.subscribe([EXECUTIONS])

    def close(self) -> None:
        self._consumer.close()

    def save(self, document: dict[str, Any], version: int = 1, workflow_id: str = "") -> str:
        """Publish a workflow's version as its current one."""
        workflow_id = workflow_id or new_id("wf", 0, os.urandom(10))
        record = WorkflowVersion(
            self.workspace, workflow_id, version, "test", str(document["name"]), "active",
            orjson.dumps(document), time.time_ns() // 1000,
        )  # fmt: skip
        for key in (f"{workflow_id}@{version}", workflow_id):
            self.write(DEFINITIONS, key, codec.encode(record), [])
        return workflow_id

    def post(self, type_: str, payload: Any, subject: str | None = None) -> str:
        """Publish an event; its id."""
        name = new_id("ev", 0, os.urandom(10))
        envelope = Envelope(
            name, type_, "/t", self.workspace, time.time_ns() // 1000, subject=subject
        )
        event = Event(Payload(orjson.dumps(payload)), mode="test")
        self.write(EVENTS, name, codec.encode(event), envelope.headers())
        return name

    def write(
        self, topic: str, key: str, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        self._producer.produce(topic, key=key.encode(), value=value, headers=headers)
        assert self._producer.flush(30) == 0

    def wait_for(self, look: Callable[[list[Any]], Any], what: str) -> Any:
        """Read facts until `look` finds something in them."""
        until = time.monotonic() + DEADLINE_S
        while not (found := look(self.facts)):
            if time.monotonic() > until:
                raise AssertionError(f"waited {DEADLINE_S} s for {what}; saw {self.facts}")
            message = self._consumer.poll(0.2)
            if message is None or message.error() is not None or message.value() is None:
                continue
            try:
                fact = codec.decode(message.value())
            except CorruptEvent:
                continue  # another test's
            if getattr(fact, "workspace_id", None) == self.workspace:
                self.facts.append(fact)
        return found

    def of(self, kind: type, **fields: Any) -> Callable[[list[Any]], Any]:
        """Look for the facts of a kind with these fields."""

        def look(facts: list[Any]) -> list[Any]:
            return [
                fact
                for fact in facts
                if isinstance(fact, kind)
                and all(getattr(fact, name) == value for name, value in fields.items())
            ]

        return look

    def executions(self, kind: type, count: int) -> list[Any]:
        """Wait until so many executions have a fact of this kind."""

        def look(facts: list[Any]) -> list[Any] | None:
            found = self.of(kind)(facts)
            return found if len({fact.execution_id for fact in found}) >= count else None

        return self.wait_for(look, f"{count} executions with {kind.__name__}")
