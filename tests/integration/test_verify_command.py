"""`nhood verify` as the operator types it, on a real Kafka, PostgreSQL and projector."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta

import orjson
import pytest

from control import statements
from control.completeness import Watch
from control.core.statements import document
from schemas.topics import EVENTS
from tests.integration.test_projection import projecting, record, rows_of, story, wait_for
from token_vault.vault import Vault
from wire.bus import KafkaLog, KafkaPublisher, Record, publish_all
from wire.clock import mint, now
from wire.database import open_pool


class Desk:
    """Accepts events, decides some of them, and types the command."""

    def __init__(self, settings, database, publisher):
        self.settings, self.database, self.publisher = settings, database, publisher
        self.workspace = mint("ws")
        self.env = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "DATABASE_URL": database,
            "NHOOD_STATE_DIR": settings.state_dir,
        }

    async def accept(self, count):
        value = orjson.dumps({"workspace_id": self.workspace, "type": "order.paid", "data": {}})
        records = [Record(EVENTS, self.workspace.encode(), value)] * count
        return await publish_all(self.publisher, records)

    async def decide(self, places):
        """Write the facts of a whole execution of each of these events."""
        facts = []
        for number, place in enumerate(places):
            outcome, started, *rest = story(self.workspace, number)
            facts += [
                type(outcome)(**{**_fields(outcome), "event": place}),
                type(started)(**{**_fields(started), "event": place}),
                *rest,
            ]
        await publish_all(self.publisher, [record(fact) for fact in facts])

    def knows(self, executions):
        """Whether the read side knows all of so many executions, each of two steps."""
        found = {
            table: rows_of(self.database, table, self.workspace, places=False)
            for table in ("steps", "event_outcomes", "executions")
        }
        ended = [row for row in found["executions"] if row[5] is not None]
        return (len(found["steps"]), len(found["event_outcomes"]), len(ended)) == (
            2 * executions, executions, executions,
        )  # fmt: skip

    async def nhood(self, *words, env=None):
        command = [sys.executable, "-m", "nhood", "verify", *words]
        return await asyncio.to_thread(
            subprocess.run, command, env=env or self.env, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip


def _fields(fact):
    return {name: getattr(fact, name) for name in fact.__struct_fields__}


@pytest.fixture
async def desk(settings, database):
    publisher = KafkaPublisher(settings.kafka_bootstrap_servers, "test-verify")
    await publisher.start()
    yield Desk(settings, database, publisher)
    await publisher.close()


async def test_operator_sees_that_nothing_is_missing_and_what_is(desk, settings, database):
    places = await desk.accept(5)
    await desk.decide(places[:4])
    async with projecting(settings):
        await wait_for(lambda: desk.knows(executions=4))
    mine = ("--workspace", desk.workspace)

    young = await desk.nhood(*mine, "--from", "1h")
    assert young.returncode == 0, young.stdout + young.stderr
    assert "in flight 1" in young.stdout
    assert "Complete." in young.stdout

    late = await desk.nhood(*mine, "--from", "1h", "--grace", "0", "--json")
    assert late.returncode == 1
    told = json.loads(late.stdout)
    assert (told["accepted"], told["outcomes"]) == (5, {"matched": 4})
    assert told["executions"] == {"succeeded": 4}
    (gap,) = told["gaps"]
    assert gap["kind"] == "no_outcome"
    assert gap["place"] == {
        "topic": EVENTS, "partition": places[4].partition, "offset": places[4].offset,
    }  # fmt: skip
    assert "GAP no_outcome" in (await desk.nhood(*mine, "--grace", "0")).stdout
    before = await desk.nhood(*mine, "--to", "1h", "--json")
    assert json.loads(before.stdout)["accepted"] == 0


async def test_statement_is_checked_without_any_server(desk, settings, database, tmp_path):
    places = await desk.accept(3)
    await desk.decide(places)
    async with projecting(settings):
        await wait_for(lambda: desk.knows(executions=3))
    pool = await open_pool(database, max_size=2)
    log = KafkaLog(settings.kafka_bootstrap_servers, "test-verify")
    vault = await Vault.open(settings, pool)
    at = {"now": 0.0}
    watch = Watch(pool, log, monotonic=lambda: at["now"])
    ports = statements.Ports(pool, log, vault)
    try:
        async with pool.connection() as on:
            await on.execute(
                "INSERT INTO workspaces (id, name, email, plan) VALUES (%s, 'A', 'a@b.c', 'free')",
                (desk.workspace,),
            )
        begin = now().replace(minute=0)
        await statements.issue(ports, begin)
        issued = 0
        for look in range(500):  # other tests' events stand before ours
            at["now"] = 61.0 * look
            await watch.tick()
            if issued := await statements.issue(ports, begin + timedelta(hours=1, minutes=5)):
                break
        assert issued == 1
        async with pool.connection() as on:
            cursor = await on.execute(
                "SELECT body, signature, public_key FROM statements JOIN statement_keys k"
                " ON k.id = key_id"
            )
            (row,) = await cursor.fetchall()
    finally:
        await vault.close()
        await pool.close()
    signed = document(*(bytes(part) for part in row))
    whole = tmp_path / "statement.json"
    whole.write_text(json.dumps(signed))
    nowhere = {k: v for k, v in desk.env.items() if "KAFKA" not in k and "DATABASE" not in k}
    key = ("--key", signed["public_key"])

    good = await desk.nhood("--statement", str(whole), *key, env=nowhere)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "accepted 3" in good.stdout
    bent = tmp_path / "bent.json"
    text = signed["statement"].replace('"accepted":3', '"accepted":2')
    bent.write_text(json.dumps(signed | {"statement": text}))
    bad = await desk.nhood("--statement", str(bent), *key, env=nowhere)
    assert bad.returncode == 1
    assert "was changed" in bad.stdout
    for wrong in (("--key", "abc"), ("--from", "1h")):
        refused = await desk.nhood("--statement", str(whole), *wrong, env=nowhere)
        assert refused.returncode == 1
        assert "error:" in refused.stderr


async def test_offsets_of_a_time_are_those_of_the_broker(desk):
    (first,) = await desk.accept(1)
    log = KafkaLog(desk.settings.kafka_bootstrap_servers, "test-verify")
    bounds = await log.bounds(EVENTS)
    assert bounds[first.partition][1] == first.offset + 1
    (stored,) = await log.read(EVENTS, first.partition, first.offset, 1)
    at = await log.offsets_at(EVENTS, stored.time_ms)
    assert at[first.partition] <= first.offset
    later = await log.offsets_at(EVENTS, stored.time_ms + 60_000)
    assert later[first.partition] == first.offset + 1
