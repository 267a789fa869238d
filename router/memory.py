"""What the router remembers of executions besides what rides in their commands.

Only executions with parallel branches, and cancelled ones, are here. The truth is the topic
`nhood.progress.v1`: partition by partition it goes with the results topic, and it is read to its
end before the first result of a partition is handled. Records are written once per key and form a
union, so a zombie's late write and a redelivery change nothing (ADR 0001).
"""

from collections.abc import Callable, Iterable, Mapping

import orjson

from router.core.state import StepResult, decode_result, encode_result
from schemas import codec
from schemas.events import CANCELLED, Envelope, Payload, StepRemembered
from schemas.topics import PROGRESS
from wire.bus import Record, Stored

_Known = dict[str, StepResult]


class Memory:
    """Remembered results by results partition and execution.

    Args:
        read: Gives every record that a partition of the progress topic holds now; blocks.
    """

    def __init__(self, read: Callable[[int], Iterable[Stored]]) -> None:
        self._read = read
        self._partitions: dict[int, dict[str, _Known]] = {}
        self._epoch = 0

    def has(self, partition: int) -> bool:
        """Say whether the partition was read."""
        return partition in self._partitions

    def restore(self, partition: int) -> None:
        """Read a partition; blocks, so call it on a thread.

        What was read across a rebalance is not kept: ask `has` again.
        """
        epoch = self._epoch
        found: dict[str, _Known] = {}
        for stored in self._read(partition):
            execution, _, step = (stored.key or b"").decode().partition("/")
            if stored.value is None:
                found.get(execution, {}).pop(step, None)
                continue
            record = codec.decode_as(StepRemembered, stored.value)
            result = decode_result(orjson.loads(record.result.data))
            found.setdefault(execution, {})[step] = result
        if epoch == self._epoch:
            self._partitions[partition] = {name: known for name, known in found.items() if known}

    def forget_partitions(self) -> None:
        """Drop everything: another router may write from now on, and we read again."""
        self._epoch += 1
        self._partitions.clear()

    def of(self, partition: int, execution_id: str) -> Mapping[str, StepResult]:
        """What is remembered of an execution."""
        return self._partitions[partition].get(execution_id, {})

    def remember(
        self, partition: int, record_of: "RecordOf", results: Mapping[str, StepResult]
    ) -> list[Record]:
        """Remember results; gives the records that make it durable."""
        known = self._partitions[partition].setdefault(record_of.execution_id, {})
        fresh = {name: result for name, result in results.items() if name not in known}
        known.update(fresh)
        return [record_of.remembered(partition, name, result) for name, result in fresh.items()]

    def drop(self, partition: int, name: str, steps: Iterable[str]) -> list[Record]:
        """Forget some of what is remembered under a name; gives the tombstones."""
        known = self._partitions[partition].get(name, {})
        gone = [step for step in steps if known.pop(step, None) is not None]
        if not known:
            self._partitions[partition].pop(name, None)
        return [
            Record(PROGRESS, f"{name}/{step}".encode(), None, partition=partition) for step in gone
        ]

    def forget(self, partition: int, execution_id: str) -> list[Record]:
        """Forget an execution; gives the tombstones, to be written after what it led to."""
        known = self._partitions[partition].pop(execution_id, {})
        return [
            Record(PROGRESS, f"{execution_id}/{name}".encode(), None, partition=partition)
            for name in known
            if name != CANCELLED
        ]


class RecordOf:
    """Builds the progress records of one execution."""

    def __init__(self, workspace_id: str, execution_id: str, at_us: int) -> None:
        self.workspace_id = workspace_id
        self.execution_id = execution_id
        self.at_us = at_us

    def remembered(self, partition: int, step_id: str, result: StepResult) -> Record:
        """Build the record of one result."""
        key = f"{self.execution_id}/{step_id}"
        body = StepRemembered(
            self.workspace_id,
            self.execution_id,
            step_id,
            Payload(orjson.dumps(encode_result(result))),
            self.at_us,
        )
        envelope = Envelope(key, "nhood.step.remembered", "/router", self.workspace_id, self.at_us)
        headers = envelope.headers()
        return Record(PROGRESS, key.encode(), codec.encode(body), headers, partition)
