"""The typed view of `topics.yaml`: what a topic holds, how long, who writes and who reads it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

EVENTS = "nhood.events.v1"
DEFINITIONS = "nhood.definitions.v1"
RESULTS = "nhood.results.v1"
PROGRESS = "nhood.progress.v1"
EXECUTIONS = "nhood.executions.v1"
TIMERS = "nhood.timers.v1"
WAITS = "nhood.waits.v1"
CANCELLATIONS = "nhood.cancellations.v1"
CONNECTIONS = "nhood.connections.v1"
DEADLETTER = "nhood.deadletter.v1"
_STEPS = "nhood.steps.{provider}.v1"

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as declared.

    Attributes:
        name: Full name; a per-provider topic still holds `{provider}`.
        records: Names of the Avro records that its values may be.
        retention_ms: How long a record is kept, -1 for ever.
    """

    name: str
    about: str
    records: tuple[str, ...]
    json: bool
    key: str
    partitions: int
    retention_ms: int
    cleanup: str
    max_message_bytes: int
    compression: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    same_partition_as: str | None
    segment_bytes: int | None = None

    def config(self) -> dict[str, str]:
        """The broker's settings of this topic, as Kafka names them."""
        found = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "compression.type": self.compression,
        }
        if self.segment_bytes is not None:
            found["segment.bytes"] = str(self.segment_bytes)
        return found


def topics_file() -> Path:
    """Where the file is: beside this module in a wheel, at the root in a checkout."""
    packaged = Path(__file__).with_name("topics.yaml")
    return packaged if packaged.exists() else Path(__file__).parent.parent / "topics.yaml"


def load_topics(text: str) -> dict[str, Topic]:
    """Parse the file's text.

    Returns:
        Topics by declared name (`nhood.steps.{provider}.v1` is one entry).
    """
    document = yaml.safe_load(text)
    defaults = document["defaults"]
    return {name: _topic(name, defaults | body) for name, body in document["topics"].items()}


def _topic(name: str, body: dict[str, Any]) -> Topic:
    hours = body["retention_hours"]
    return Topic(
        name=name,
        about=body["about"],
        records=(body["schema"], *body.get("also", ())),
        json=body.get("json", False),
        key=body["key"],
        partitions=body["partitions"],
        retention_ms=-1 if hours < 0 else hours * MS_PER_HOUR,
        cleanup=body["cleanup"],
        max_message_bytes=body["max_message_bytes"],
        compression=body["compression"],
        writers=tuple(body["writers"]),
        readers=tuple(body["readers"]),
        same_partition_as=body.get("same_partition_as"),
        segment_bytes=body.get("segment_bytes"),
    )


def steps_topic(slug: str) -> str:
    """Name the command topic of a provider: `google_drive` gives `nhood.steps.google-drive.v1`."""
    return _STEPS.format(provider=slug.replace("_", "-"))


def concrete_topics(declared: dict[str, Topic], slugs: Iterable[str]) -> list[tuple[str, Topic]]:
    """List every topic that must exist on a broker, one per provider where the name says so."""
    known = sorted(slugs)
    names: list[tuple[str, Topic]] = []
    for topic in declared.values():
        if "{provider}" in topic.name:
            names.extend((steps_topic(slug), topic) for slug in known)
        else:
            names.append((topic.name, topic))
    return names
