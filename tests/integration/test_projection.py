"""The projector on a real Kafka and PostgreSQL: rows once, whatever is repeated or reordered."""

import asyncio
import contextlib
import random
import time

import orjson
import psycopg
import pytest
from confluent_kafka import Consumer
from msgspec.structs import replace

from control.projections.app import Projector
from control.projections.executions import Changes
from control.projections.reader import consumer_config
from control.projections.rebuild import rebuild
from control.projections.rows import write
from schemas import codec
from schemas.errors import DependencyDown
from schemas.events import (
    DeadLetter,
    Envelope,
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    Place,
    StepError,
    StepFinished,
)
from schemas.ids import execution_id
from schemas.topics import DEADLETTER, EVENTS, EXECUTIONS, RESULTS
from wire.bus import KafkaPublisher, MemoryBus, Record, publish_all
from wire.clock import mint
from wire.database import open_pool
from wire.tail import read_to_end

T0 = 1_760_000_000_000_000
READ_TABLES = ("executions", "steps", "event_outcomes", "dead_letters", "step_waits")


def story(workspace: str, number: int, *, failed: bool = False) -> list:
    """All facts of one two-step execution."""
    event_id, workflow = f"ev-{workspace}-{number}", "wf_" + "0" * 26
    name = execution_id(event_id, workflow, 1, 0)
    place, at = Place(EVENTS, number % 3, hash(workspace) % 10**6 + number), T0 + number * 1000
    head = (workspace, name, workflow, 1)

    def step(step_id: str, outcome: str = "succeeded") -> StepFinished:
        body = orjson.dumps({"ok": True, "text": 'a "quoted" \\ text'})
        error = (
            StepError("channel_not_found", "No such channel.") if outcome != "succeeded" else None
        )
        return StepFinished(
            *head,
            step_id=step_id,
            loop_index=0,
            effect_key=f"{number:040d}",
            provider="slack",
            action="send_message",
            outcome=outcome,
            output=Payload(body),
            output_cut=False,
            vendor_id="17.1",
            error=error,
            attempts=b'[{"number":1,"status":200}]',
            request=Payload(b'{"method":"POST"}'),
            response=Payload(b'{"status":200}'),
            connection_id="conn_1",
            from_ledger=False,
            command=Place("nhood.steps.slack.v1", 1, number),
            state=Payload(b"x" * 100),
            requested_at_us=at + 10,
            started_at_us=at + 20,
            finished_at_us=at + 30,
        )

    status = "failed" if failed else "succeeded"
    steps = orjson.dumps({"a": {"status": "succeeded"}, "b": {"status": status}})
    error = StepError("channel_not_found", "No such channel.", "step b") if failed else None
    return [
        EventOutcome(
            workspace, event_id, place, "matched", "", [name], "nhood.webhook", "/x", "test", at, at
        ),
        ExecutionStarted(*head, "Welcome", "test", "cust_1", event_id, place, 0, at, at + 5),
        step("a"),
        step("b", "rejected" if failed else "succeeded"),
        ExecutionFinished(*head, "test", status, error, steps, at + 40),
    ]


def record(fact) -> Record:
    key = getattr(fact, "execution_id", None) or fact.event_id
    topic = RESULTS if isinstance(fact, StepFinished) else EXECUTIONS
    envelope = Envelope(mint("ev"), "test", "/test", fact.workspace_id, T0)
    return Record(topic, key.encode(), codec.encode(fact), envelope.headers())


def rows_of(database: str, table: str, workspace: str, *, places: bool = True) -> list:
    columns = "*"
    if not places:
        columns = {
            "executions": "id, status, error, outcome, started_at, finished_at, user_id, event_id",
            "steps": "execution_id, step_id, status, outcome, output, error",
            "event_outcomes": 'partition, "offset", outcome, executions',
        }[table]
    with psycopg.connect(database) as connection:
        sql = f"SELECT {columns} FROM {table} WHERE workspace_id = %s ORDER BY 1, 2"
        return connection.execute(sql, (workspace,)).fetchall()


async def wait_for(condition, seconds: float = 90.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)
    return found


@contextlib.asynccontextmanager
async def projecting(settings, publisher=None):
    pool = await open_pool(settings.database_url.reveal(), max_size=3)
    dead = publisher or KafkaPublisher(settings.kafka_bootstrap_servers, "test-dead")
    if publisher is None:
        await dead.start()
    config = consumer_config(settings.kafka_bootstrap_servers, "test-projector")
    # A group of its own: tests of other modules share the broker.
    config["group.id"] = "projector-" + settings.database_url.reveal().rpartition("/")[2]
    projector = Projector(Consumer(config), pool, dead)
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        projector.stop()
        await task
        if publisher is None:
            await dead.close()
        await pool.close()


@pytest.fixture
async def publisher(settings):
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers, "test-writer")
    await publisher.start()
    yield publisher
    await publisher.close()


async def test_facts_become_rows_whatever_is_repeated_or_reordered(settings, database, publisher):
    workspace = mint("ws")
    facts = [fact for n in range(40) for fact in story(workspace, n, failed=n % 4 == 0)]
    shuffled = facts + random.Random(7).sample(facts, 60)
    random.Random(8).shuffle(shuffled)
    await publish_all(publisher, [record(fact) for fact in shuffled])
    async with projecting(settings) as projector:
        await wait_for(
            lambda: (
                len(rows_of(database, "steps", workspace)) == 80
                and sum(row[7] != "running" for row in rows_of(database, "executions", workspace))
                == 40
            )
        )
        assert projector.ready
    statuses = [row[1] for row in rows_of(database, "executions", workspace, places=False)]
    assert (statuses.count("succeeded"), statuses.count("failed")) == (30, 10)
    assert len(rows_of(database, "event_outcomes", workspace)) == 40
    steps = rows_of(database, "steps", workspace, places=False)
    assert {row[2] for row in steps} == {"succeeded", "failed"}
    assert steps[0][4] == {"ok": True, "text": 'a "quoted" \\ text'}


async def test_restart_goes_on_behind_the_last_rows(settings, database, publisher):
    workspace = mint("ws")
    await publish_all(publisher, [record(fact) for fact in story(workspace, 1)])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 1)
    with psycopg.connect(database) as connection:
        connection.execute("DELETE FROM executions WHERE workspace_id = %s", (workspace,))
    await publish_all(publisher, [record(fact) for fact in story(workspace, 2)])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 1)
    (row,) = rows_of(database, "executions", workspace, places=False)
    assert row[7] == f"ev-{workspace}-2"  # what was read before the restart was not read again


async def test_two_projectors_share_the_partitions_and_write_each_row_once(
    settings, database, publisher
):
    workspace = mint("ws")
    facts = [fact for n in range(60) for fact in story(workspace, n)]
    async with projecting(settings):
        await publish_all(publisher, [record(fact) for fact in facts[:150]])
        async with projecting(settings):
            await publish_all(publisher, [record(fact) for fact in facts[150:]])
            await wait_for(lambda: len(rows_of(database, "steps", workspace)) == 120)
    await publish_all(publisher, [record(fact) for fact in story(workspace, 99)])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 61)


async def test_broken_record_is_dead_lettered_and_the_others_go_on(settings, database, publisher):
    workspace = mint("ws")
    bad = Record(EXECUTIONS, b"bad", b"\xc3\x01rubbish", [("ce_workspace", workspace.encode())])
    good = record(story(workspace, 1)[1])
    (place, _) = await publish_all(publisher, [bad, replace(good, key=b"bad")])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 1)
        letter = await wait_for(lambda: rows_of(database, "dead_letters", workspace))
    assert letter[0][:4] == (EXECUTIONS, place.partition, place.offset, workspace)
    assert letter[0][4:7] == ("projector", "unknown_schema", "unknown_schema")
    letters = read_to_end(settings.kafka_bootstrap_servers, "test-dead-reader", DEADLETTER, 0)
    decoded = [codec.decode_as(DeadLetter, item.value) for item in letters]
    (mine,) = [item for item in decoded if item.original == place]
    assert mine.value == bad.value


async def test_content_that_postgres_cannot_hold_is_cleaned_and_kept(settings, database, publisher):
    workspace = mint("ws")
    facts = story(workspace, 1)
    facts[2] = replace(
        facts[2],
        output=Payload(b'{"text": "a\\u0000b", "lone": "\\ud800"}'),
        request=Payload(b"no json at all"),
        vendor_id="x\x00y",
    )
    facts[3] = replace(facts[3], output=Payload(b"secret", key_id="key_1"))
    await publish_all(publisher, [record(fact) for fact in facts])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "steps", workspace)) == 2)
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT step_id, output, request, vendor_id FROM steps WHERE workspace_id = %s"
            " ORDER BY step_id",
            (workspace,),
        ).fetchall()
    assert found[0][2:] == ("no json at all", "x\N{REPLACEMENT CHARACTER}y")
    assert found[1][1] == {"sealed": "key_1"}


async def test_database_that_is_away_is_waited_for(settings, database, publisher, stack):
    workspace = mint("ws")
    async with projecting(settings):
        await publish_all(publisher, [record(fact) for fact in story(workspace, 1)])
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 1)
        with psycopg.connect(stack.postgres, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (database.rpartition("/")[2],),
            )
        await publish_all(publisher, [record(fact) for fact in story(workspace, 2)])
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 2)


async def test_rebuild_brings_back_what_the_log_holds_and_a_projector_goes_on(
    settings, database, publisher
):
    workspace = mint("ws")
    facts = [fact for n in range(30) for fact in story(workspace, n, failed=n % 3 == 0)]
    await publish_all(publisher, [record(fact) for fact in facts])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "steps", workspace)) == 60)
        before = {table: rows_of(database, table, workspace) for table in READ_TABLES}
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE executions SET status = 'wrong'")
            connection.execute("DELETE FROM steps")
        told: list[tuple[int, int]] = []
        counts = await rebuild(settings, lambda read, total: told.append((read, total)))
        assert {table: rows_of(database, table, workspace) for table in READ_TABLES} == before
        assert counts["executions"] >= 30
        assert counts["steps"] >= 60
        assert counts["records"] == told[-1][0] == told[-1][1]
        await publish_all(publisher, [record(fact) for fact in story(workspace, 77)])
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 31)


async def test_rebuild_that_died_half_way_is_made_up_for_by_the_projector(
    settings, database, publisher
):
    workspace = mint("ws")
    await publish_all(publisher, [record(f) for n in range(5) for f in story(workspace, n)])
    async with projecting(settings):
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 5)
        with psycopg.connect(database) as connection:  # as a rebuild leaves it that just began
            connection.execute("TRUNCATE executions, steps, event_outcomes, dead_letters")
            connection.execute("DELETE FROM projection_offsets")
        await publish_all(publisher, [record(fact) for fact in story(workspace, 6)])
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 6)
        await wait_for(lambda: len(rows_of(database, "steps", workspace)) == 12)


async def test_order_of_batches_does_not_matter_for_the_rows(database):
    workspace = mint("ws")
    facts = story(workspace, 1, failed=True)
    pool = await open_pool(database)
    seen = set()
    for seed in range(30):
        rng = random.Random(seed)
        order = facts + rng.sample(facts, 3)
        rng.shuffle(order)
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM executions WHERE workspace_id = %s", (workspace,))
            await connection.execute("DELETE FROM steps WHERE workspace_id = %s", (workspace,))
            while order:
                changes = Changes()
                for fact in [order.pop() for _ in range(min(len(order), rng.randint(1, 4)))]:
                    changes.take(Place(EXECUTIONS, 0, facts.index(fact)), fact)
                await write(connection, changes)
        shown = [rows_of(database, t, workspace) for t in ("executions", "steps")]
        seen.add(repr(shown))
    await pool.close()
    assert len(seen) == 1, "seed decides what the tables say"


async def test_dead_letters_that_cannot_be_written_hold_the_projector_back(
    settings, database, publisher
):
    class Down(MemoryBus):
        down = True

        async def publish(self, records):
            if self.down:
                return [DependencyDown("Kafka is away.") for _ in records]
            return await super().publish(records)

    workspace = mint("ws")
    letters = Down({DEADLETTER: 1})
    (place,) = await publish_all(publisher, [Record(EXECUTIONS, b"bad", b"rubbish")])
    async with projecting(settings, letters) as projector:
        await wait_for(lambda: projector.ready)
        await publish_all(publisher, [record(f) for f in story(workspace, 1)])
        await asyncio.sleep(0)
        letters.down = False
        await wait_for(lambda: len(rows_of(database, "executions", workspace)) == 1)
        await wait_for(lambda: letters._logs)
    stored = await letters.read(DEADLETTER, 0, 0, 10)
    assert place in [codec.decode_as(DeadLetter, item.value).original for item in stored]
