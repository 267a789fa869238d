"""Steps of a dead connection wait: nothing lost, nothing marked as done, in order afterwards."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from control.store import executions
from executors.runtime.driver import Driver
from executors.runtime.ledger import Ledger
from executors.runtime.parking import HEADER, Parking
from executors.runtime.releases import Releases
from executors.runtime.worker import Job, Ports, Worker
from schemas import codec
from schemas.events import Payload, RequestStep, StepFinished
from schemas.topics import RESULTS, steps_topic
from tests.integration.sandbox_parts import CATALOGUE
from tests.integration.vault_parts import Site, open_site
from wire.bus import MemoryBus, Record
from wire.calls import AiohttpCalls
from wire.clock import mint, now_us
from wire.consumer import Assignment, Taken
from wire.database import connection
from wire.http import allowed_by

STEPS = steps_topic("slack")
CHANNEL = CATALOGUE.get("slack").action("send_message").example.params["channel"]
HOUR_US = 3_600_000_000


class Counted:
    """Stands for the consumer: notes what was handled."""

    def __init__(self) -> None:
        self.handled: list[bool] = []

    def begin(self, _: Taken) -> bool:
        return True

    def done(self, _: Taken, *, handled: bool) -> None:
        self.handled.append(handled)


@dataclass
class Desk:
    """A worker with its table of waiting steps, and a log in memory."""

    site: Site
    bus: MemoryBus
    worker: Worker
    releases: Releases
    consumer: Counted
    numbers: Any = field(default_factory=count)
    read: int = 0

    async def command(self, text: str = "hi", **more: Any) -> Job:
        """Put a command onto the log and take it."""
        number = next(self.numbers)
        values: dict[str, Any] = {
            "workspace_id": self.site.workspace, "execution_id": mint("ex"), "workflow_id": "wf",
            "version": 1, "step_id": f"s{number}", "loop_index": 0, "effect_key": mint("ev"),
            "provider": "slack", "action": "send_message",
            "params": Payload(orjson.dumps({"channel": CHANNEL, "text": text})), "mode": "test",
            "user": "u1", "connection_id": None, "order_key": None, "max_attempts": 1,
            "retry_delay_ms": 1, "retry_max_delay_ms": 2, "timeout_ms": 5_000,
            "on_unknown": "fail", "state": Payload(b"{}"), "requested_at_us": now_us(),
        }  # fmt: skip
        command = RequestStep(**{**values, **more})
        headers = [("traceparent", b"00-aa-bb-01"), ("ce_workspace", self.site.workspace.encode())]
        await self.bus.publish([Record(STEPS, b"k", codec.encode(command), headers)])
        (job,) = await self.take()
        return job

    async def take(self) -> list[Job]:
        """Take what is new on the steps' topic."""
        found = await self.bus.read(STEPS, 0, self.read, 1_000)
        self.read += len(found)
        return [Job.read(Taken(stored, Assignment(), 0.0)) for stored in found]

    async def work(self, *jobs: Job) -> None:
        for job in jobs:
            await self.worker.handle(job)

    async def results(self) -> list[StepFinished]:
        stored = await self.bus.read(RESULTS, 0, 0, 1_000)
        return [codec.decode_as(StepFinished, item.value) for item in stored]

    async def waiting(self) -> list[tuple[str, str]]:
        return [
            tuple(row)
            for row in await self.site.sql(
                "SELECT step_id, reason FROM parked_steps WHERE workspace_id = %s ORDER BY id",
                self.site.workspace,
            )
        ]

    async def sent(self) -> list[str]:
        """What the vendor was asked to post."""
        items = await self.site.sandbox.received("slack")
        return [i["body"]["text"] for i in items if i["action"] == "send_message"]

    async def kill_connection(self) -> None:
        """Let the vendor take the grant back."""
        tokens = self.site.vault.tokens
        credential = await tokens.resolve(self.site.workspace, "test", "slack", "u1")
        token = credential.header_value.reveal().removeprefix("Bearer ")
        self.site.sandbox.app.world.grants.revoke_token(token)

    async def release(self) -> list[Job]:
        await self.releases.turn()
        return await self.take()


@pytest.fixture
async def desk(database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with (
        open_site(database, tmp_path) as site,
        AiohttpCalls(allowed_by(site.settings)) as calls,
    ):
        bus = MemoryBus({STEPS: 1, RESULTS: 1})
        ledger = Ledger(site.settings.database_url)
        await ledger.start()
        consumer = Counted()
        driver = Driver(calls, site.vault.tokens, site.settings)
        ports = Ports(site.vault.catalogue, ledger, driver, bus, Parking(site.pool))
        worker = Worker(ports, lambda: consumer)  # type: ignore[arg-type,return-value]
        await site.connect("slack")
        yield Desk(site, bus, worker, Releases(site.pool, bus), consumer)
        await ledger.close()
        await site.sql("DELETE FROM parked_steps")


async def test_step_of_a_vendor_that_was_shut_down_runs_in_tests_only(desk: Desk) -> None:
    await desk.site.connect("height")
    asked = {"provider": "height", "action": "get_workspace", "params": Payload(b"{}")}
    await desk.work(await desk.command(**asked), await desk.command(mode="live", **asked))
    ended = [
        (result.outcome, result.error.code if result.error else None)
        for result in await desk.results()
    ]
    assert ended == [("succeeded", None), ("rejected", "provider_shut_down")]


async def test_step_of_a_dead_connection_waits_and_goes_on_with_its_effect_key(desk: Desk) -> None:
    await desk.kill_connection()
    job = await desk.command("later")
    await desk.work(job)
    assert await desk.waiting() == [("s0", "needs_reauth")]
    assert await desk.results() == []  # nothing is marked
    assert desk.consumer.handled == [True]  # and the log may be committed: the row is
    assert await desk.sent() == ["later"]  # refused with 401
    assert await desk.release() == []  # still dead
    await desk.site.connect("slack")
    (again,) = await desk.release()
    assert isinstance(job.command, RequestStep)
    assert again.command == job.command
    assert again.taken.stored.headers["traceparent"] == b"00-aa-bb-01"
    assert await desk.waiting() == []
    await desk.work(again)
    (result,) = await desk.results()
    assert (result.outcome, result.effect_key) == ("succeeded", job.command.effect_key)
    assert not result.from_ledger
    assert await desk.release() == []


async def test_steps_come_out_in_the_order_in_which_they_came(desk: Desk) -> None:
    await desk.kill_connection()
    for number in range(30):
        await desk.work(await desk.command(f"n{number}"))
    assert len(await desk.waiting()) == 30
    await desk.site.connect("slack")
    await desk.work(*await desk.release())
    assert (await desk.sent())[-30:] == [f"n{number}" for number in range(30)]


async def test_newcomer_of_an_order_key_does_not_overtake_those_that_wait(desk: Desk) -> None:
    await desk.kill_connection()
    await desk.work(await desk.command("1", order_key="k"), await desk.command("2", order_key="k"))
    await desk.site.connect("slack")
    await desk.work(await desk.command("3", order_key="k"), await desk.command("x", order_key="o"))
    assert [reason for _, reason in await desk.waiting()] == [
        "needs_reauth", "in_order", "in_order",
    ]  # fmt: skip
    assert "x" in await desk.sent()  # another key goes its way
    await desk.work(*await desk.release())
    assert (await desk.sent())[-3:] == ["1", "2", "3"]


async def test_connection_that_dies_again_keeps_the_order(desk: Desk) -> None:
    await desk.kill_connection()
    await desk.work(await desk.command("1", order_key="k"), await desk.command("2", order_key="k"))
    await desk.site.connect("slack")
    jobs = await desk.release()
    await desk.kill_connection()
    await desk.work(await desk.command("3", order_key="k"))
    await desk.work(*jobs)
    assert [step for step, _ in await desk.waiting()] == ["s0", "s1", "s2"]
    await desk.site.connect("slack")
    await desk.work(*await desk.release())
    assert (await desk.sent())[-3:] == ["1", "2", "3"]
    assert len(await desk.results()) == 3


async def test_process_that_dies_while_sending_on_loses_and_repeats_nothing(desk: Desk) -> None:
    await desk.kill_connection()
    await desk.work(await desk.command("once"))
    await desk.site.connect("slack")
    taken_out = desk.releases._take_out

    async def dies(_: Any) -> None:
        raise ConnectionResetError

    desk.releases._take_out = dies  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        await desk.releases.turn()
    desk.releases._take_out = taken_out  # type: ignore[method-assign]
    await desk.work(*await desk.take())
    assert await desk.release() == []  # claimed for a while
    await desk.site.sql("UPDATE parked_steps SET claimed_until = now() - interval '1 s'")
    await desk.work(*await desk.release())
    assert [(r.outcome, r.from_ledger) for r in await desk.results()] == [
        ("succeeded", False),
        ("succeeded", True),
    ]
    assert (await desk.sent()).count("once") == 2  # the 401 and the one that worked


async def test_command_that_comes_again_while_it_waits_waits_once(desk: Desk) -> None:
    await desk.kill_connection()
    job = await desk.command()
    await desk.work(job, job)
    assert len(await desk.waiting()) == 1


async def test_step_that_waited_too_long_fails_clearly_and_for_good(desk: Desk) -> None:
    await desk.kill_connection()
    job = await desk.command()
    await desk.work(job)
    await desk.site.sql("UPDATE parked_steps SET deadline = now()")
    assert await desk.release() == []
    (result,) = await desk.results()
    assert result.error is not None
    assert (result.outcome, result.error.code) == ("rejected", "waited_too_long")
    assert "park_for_hours" in result.error.message
    assert result.command == job.taken.stored.place
    assert await desk.waiting() == []
    await desk.site.connect("slack")
    await desk.work(job)  # comes again: its end stands in the ledger
    assert [r.from_ledger for r in await desk.results()] == [False, True]


@pytest.mark.parametrize(("hours", "age_h", "waits"), [(0, 0, False), (2, 1, True), (2, 3, False)])
async def test_developer_sets_how_long_steps_wait(
    desk: Desk, hours: int, age_h: int, waits: bool
) -> None:
    settings = orjson.dumps({"park_for_hours": hours}).decode()
    await desk.site.sql(
        "UPDATE workspaces SET settings = %s::jsonb WHERE id = %s", settings, desk.site.workspace
    )
    await desk.kill_connection()
    await desk.work(await desk.command(requested_at_us=now_us() - age_h * HOUR_US))
    assert bool(await desk.waiting()) is waits
    if waits:
        ((left,),) = await desk.site.sql("SELECT deadline - now() FROM parked_steps")
        assert timedelta(minutes=58) < left < timedelta(minutes=62)
    else:
        (result,) = await desk.results()
        assert result.error is not None
        assert result.error.code == "needs_reauth"


async def test_step_waits_no_longer_than_its_own_deadline(desk: Desk) -> None:
    await desk.kill_connection()
    await desk.work(await desk.command(deadline_us=now_us() + HOUR_US))
    ((left,),) = await desk.site.sql("SELECT deadline - now() FROM parked_steps")
    assert timedelta(minutes=58) < left <= timedelta(minutes=60)


async def test_deleted_connection_ends_the_waiting_with_a_clear_failure(desk: Desk) -> None:
    await desk.kill_connection()
    await desk.work(await desk.command())
    (row,) = await desk.site.vault.store.find(desk.site.workspace, "test", "slack", "u1")
    await desk.site.vault.disconnect(desk.site.workspace, "test", row.id)
    await desk.work(*await desk.release())
    (result,) = await desk.results()
    assert result.error is not None
    assert result.error.code == "no_connection"


async def test_cancelled_execution_drops_its_waiting_steps(desk: Desk) -> None:
    await desk.kill_connection()
    first, second = await desk.command("1"), await desk.command("2")
    await desk.work(first, second)
    assert isinstance(first.command, RequestStep)
    async with connection(desk.site.pool) as on:
        told = await executions.waiting(on, desk.site.workspace, first.command.execution_id)
        assert [row["step_id"] for row in told] == ["s0"]
        await executions.drop_waiting(on, desk.site.workspace, [first.command.execution_id])
    assert isinstance(second.command, RequestStep)
    # One whose cancelling came while the step was on its way into the table.
    await desk.site.sql(
        "INSERT INTO executions (id, workspace_id, workflow_id, version, mode, status)"
        " VALUES (%s, %s, 'wf', 1, 'test', 'cancelled')",
        second.command.execution_id,
        desk.site.workspace,
    )
    await desk.site.connect("slack")
    assert await desk.release() == []
    assert await desk.waiting() == []
    assert await desk.results() == []


async def test_header_of_a_waiting_step_is_not_kept_twice(desk: Desk) -> None:
    await desk.kill_connection()
    await desk.work(await desk.command())
    await desk.site.connect("slack")
    (job,) = await desk.release()
    assert job.taken.stored.headers[HEADER].isdigit()
