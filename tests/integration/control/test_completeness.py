"""Accepted events joined with what became of them, on a real PostgreSQL; the log is in memory."""

from datetime import timedelta

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from control import completeness, statements
from control.completeness import Wanted, Watch, check
from control.core.statements import check as check_documents
from control.projections.executions import Changes
from control.projections.rows import write
from schemas.events import EventOutcome, ExecutionFinished, ExecutionStarted
from schemas.ids import execution_id
from schemas.topics import EVENTS
from wire.bus import Record, publish_all
from wire.clock import now, now_us

WORKFLOW = "wf_" + "0" * 26


class Flow:
    """Accepts events and decides them as router and projector do."""

    def __init__(self, api):
        self.api, self.pool, self.log = api, api.ports.pool, api.bus
        self.workspace = api.workspace["workspace_id"]

    async def accept(self, count=1, workspace=None, key=b"k"):
        owner = workspace or self.workspace
        value = orjson.dumps({"workspace_id": owner, "type": "order.paid", "data": {}})
        return await publish_all(self.log, [Record(EVENTS, key, value)] * count)

    async def decide(self, *places, outcome="matched", started=True, finished=True, **more):
        changes, at = Changes(), now_us()
        workspace = more.get("workspace", self.workspace)
        for place in places:
            event = f"ev-{place}"
            name = execution_id(event, WORKFLOW, 1, 0)
            head = (workspace, name, WORKFLOW, 1)
            begun = [name] if outcome == "matched" else []
            facts = [
                EventOutcome(
                    workspace, event, place, outcome, "", begun, "order.paid", None, "test", at, at
                )
            ]
            if begun and started:
                facts.append(
                    ExecutionStarted(*head, "W", "test", None, event, place, 0, at, at + 1)
                )
            if begun and started and finished:
                facts.append(ExecutionFinished(*head, "test", "succeeded", None, b"{}", at + 2))
            for fact in facts:
                changes.take(place, fact)
        async with self.pool.connection() as on:
            await write(on, changes)

    async def check(self, workspace="own", grace_s=0, **more):
        owner = self.workspace if workspace == "own" else workspace
        at = now() + timedelta(seconds=1)
        return await check(self.pool, self.log, Wanted(owner, grace_s=grace_s, **more), at)

    async def sql(self, query, *values):
        async with self.pool.connection() as on:
            cursor = await on.execute(query, values)
            return await cursor.fetchall() if cursor.description else []


@pytest.fixture
async def flow(api):
    found = Flow(api)
    tables = "event_outcomes, executions, completeness_positions, completeness_gaps"
    await found.sql(f"TRUNCATE {tables}, completeness_hours, statements, statement_keys")
    return found


async def test_all_that_came_to_its_end_is_complete(flow):
    await flow.decide(*await flow.accept(5))
    await flow.decide(*await flow.accept(2), outcome="no_match")
    report = await flow.check()
    assert (report.complete, report.accepted, report.gaps) == (True, 7, [])
    assert report.outcomes == {"matched": 5, "no_match": 2}
    assert report.executions == {"succeeded": 5}


async def test_every_gap_is_named_with_its_kind(flow):
    places = await flow.accept(5)
    await flow.decide(places[0])
    await flow.decide(places[2], started=False)
    await flow.decide(places[3], finished=False)
    report = await flow.check()
    assert not report.complete
    assert report.accepted == 5
    found = {gap.place.offset: gap for gap in report.gaps}
    kinds = {offset: gap.kind for offset, gap in found.items()}
    first = places[0].offset
    assert kinds == {
        first + 1: "no_outcome",
        first + 2: "no_execution",
        first + 3: "not_finished",
        first + 4: "no_outcome",
    }
    assert found[first + 1].event_id.startswith("ev_")
    assert found[first + 1].workspace_id == flow.workspace
    assert found[first + 2].execution_id == execution_id(f"ev-{places[2]}", WORKFLOW, 1, 0)
    assert "no step has ended" in found[first + 3].why
    assert report.executions == {"succeeded": 1, "missing": 1, "running": 1}


async def test_what_is_younger_than_the_grace_is_in_flight(flow):
    (place,) = await flow.accept()
    log = flow.log._logs[EVENTS, place.partition]
    log[-1] = replace(log[-1], time_ms=now_us() // 1000)
    report = await flow.check(grace_s=60)
    assert (report.complete, report.in_flight, report.accepted) == (True, 1, 1)
    assert not (await flow.check(grace_s=0)).complete


async def test_gap_of_another_workspace_is_not_told(flow, other):
    await flow.accept(2, workspace=other.workspace["workspace_id"])
    report = await flow.check()
    assert (report.complete, report.accepted) == (True, 0)
    assert len((await flow.check(workspace=None)).gaps) == 2


async def test_offset_that_is_no_record_is_no_gap(flow):
    """Marks of transactions take offsets: the log is asked before anything is called lost."""
    places = await flow.accept(3)
    await flow.decide(places[0], places[2])
    log = flow.log._logs[EVENTS, places[1].partition]

    class Holed:
        def __getattr__(self, name):
            return getattr(flow.log, name)

        async def read(self, topic, partition, offset, limit):
            found = [kept for kept in log[offset:] if kept.place != places[1]]
            return found[:limit]

    report = await check(flow.pool, Holed(), Wanted(flow.workspace, grace_s=0), now())
    assert report.complete


async def test_api_tells_the_same(flow):
    places = await flow.accept(2)
    await flow.decide(places[0])
    answer = await flow.api.call("GET", "/completeness", params={"grace_s": 0})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["complete"], body["accepted"], body["outcomes"]) == (False, 2, {"matched": 1})
    (gap,) = body["gaps"]
    assert gap["place"]["offset"] == places[1].offset
    assert gap["kind"] == "no_outcome"
    params = {"from": "0001-01-01T00:00:00Z", "to": "9999-01-01T00:00:00Z"}
    assert (await flow.api.call("GET", "/completeness", params=params)).status_code == 200
    params = {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    wrong = await flow.api.call("GET", "/completeness", params=params)
    assert wrong.json()["code"] == "bad_time_range"


class Time:
    """A clock that only goes on when told."""

    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


def shown(gauge):
    return next(iter(gauge.collect())).samples[0].value


async def test_watch_counts_what_has_no_outcome_in_time_and_forgets_what_gets_one(flow):
    clock = Time()
    watch = Watch(flow.pool, flow.log, after_s=60, monotonic=clock)
    places = await flow.accept(6)
    await flow.decide(*places[:3], *places[4:])
    await watch.tick()
    clock.at = 59
    await watch.tick()
    assert await flow.sql("SELECT * FROM completeness_gaps") == []  # it still has time
    clock.at = 61
    await watch.tick()
    assert shown(completeness.WITHOUT_OUTCOME) == 1
    rows = await flow.sql('SELECT "offset", workspace_id FROM completeness_gaps')
    assert rows == [(places[3].offset, flow.workspace)]
    await flow.decide(places[3])
    clock.at = 130
    await watch.tick()
    assert shown(completeness.WITHOUT_OUTCOME) == 0


async def test_watch_goes_on_where_another_one_ended(flow):
    clock = Time()
    await flow.decide(*await flow.accept(4))
    watch = Watch(flow.pool, flow.log, monotonic=clock)
    for clock.at in (0.0, 61.0):
        await watch.tick()
    before = dict(await flow.sql("SELECT partition, next_offset FROM completeness_positions"))
    assert sum(before.values()) == 4
    later = Time()
    next_watch = Watch(flow.pool, flow.log, monotonic=later)
    await flow.accept(1)
    await next_watch.tick()
    later.at = 61
    await next_watch.tick()
    after = dict(await flow.sql("SELECT partition, next_offset FROM completeness_positions"))
    assert sum(after.values()) == 5
    assert shown(completeness.WITHOUT_OUTCOME) == 1


@pytest.mark.parametrize("behind", [10_000])
async def test_watch_says_nothing_while_the_read_side_is_far_behind(flow, behind):
    clock = Time()
    watch = Watch(flow.pool, flow.log, behind=lambda: behind, monotonic=clock)
    await flow.accept(1)
    for clock.at in (0.0, 61.0):
        await watch.tick()
    assert await flow.sql("SELECT * FROM completeness_gaps") == []


async def pass_by(flow):
    """Let the watch pass all there is."""
    clock = Time()
    watch = Watch(flow.pool, flow.log, monotonic=clock)
    for clock.at in (0.0, 61.0):
        await watch.tick()


async def test_statements_are_issued_by_the_hour_chained_and_good(flow):
    ports = statements.Ports(flow.pool, flow.log, flow.api.ports.sealer)
    begin = now().replace(minute=30)
    assert await statements.issue(ports, begin) == 0  # notes where the hours begin
    places = await flow.accept(3)
    await flow.decide(*places[:2])
    hour = timedelta(hours=1)
    assert await statements.issue(ports, begin + hour) == 0  # the watch has not passed it
    await pass_by(flow)
    assert await statements.issue(ports, begin + hour) == 1
    assert await statements.issue(ports, begin + hour) == 0
    await flow.decide(*await flow.accept(4))
    await pass_by(flow)
    assert await statements.issue(ports, begin + 3 * hour) == 1  # nothing happened in one of both

    page = (await flow.api.call("GET", "/completeness/statements")).json()
    assert [item["sequence"] for item in page["items"]] == [2, 1]
    keys = (await flow.api.client.get("/api/v1/statement-keys")).json()["items"]
    assert [key["key_id"] for key in keys] == [page["items"][0]["key_id"]]
    verdict = check_documents(page["items"])
    assert verdict.good, verdict.problems
    first, second = (orjson.loads(item["statement"]) for item in page["items"][::-1])
    assert first["counts"]["accepted"] == 3
    assert first["counts"]["without_outcome"] == 1
    assert first["lost"] == [f"{places[2].partition}:{places[2].offset}"]
    assert first["executions"] == {"succeeded": 2}
    assert second["counts"] == {
        "accepted": 4, "matched": 4, "no_match": 0, "rejected": 0, "parked": 0, "duplicate": 0,
        "without_outcome": 0,
    }  # fmt: skip
    assert (await flow.api.call("GET", "/completeness/statements/9")).status_code == 404


async def test_private_key_is_sealed_and_a_new_one_made_where_it_does_not_open(flow):
    ports = statements.Ports(flow.pool, flow.log, flow.api.ports.sealer)
    begin = now().replace(minute=30)
    await statements.issue(ports, begin)
    for number in (1, 2):
        await flow.decide(*await flow.accept())
        await pass_by(flow)
        await statements.issue(ports, begin + timedelta(hours=number))
        ((sealed,),) = await flow.sql(
            "SELECT sealed FROM statement_keys ORDER BY created_at DESC LIMIT 1"
        )
        with pytest.raises(ValueError, match="bytes"):
            Ed25519PrivateKey.from_private_bytes(bytes(sealed))
        await flow.sql("UPDATE statement_keys SET sealed = '\\x00'")
    page = (await flow.api.call("GET", "/completeness/statements")).json()
    assert len({item["key_id"] for item in page["items"]}) == 2
    assert check_documents(page["items"]).good
