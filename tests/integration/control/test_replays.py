"""Replays over HTTP and the job that carries them out, on a real PostgreSQL; the log is in memory.

The vendors' side is `tests/e2e/test_replays.py`.
"""

import asyncio
from datetime import timedelta

import orjson
import pytest
from msgspec.structs import replace

from control import replay_job
from control.projections.executions import Changes
from control.projections.rows import write
from control.replay_job import Job
from nhood.replay_engine import RouterCore
from schemas import codec
from schemas.errors import DependencyDown
from schemas.events import (
    EventOutcome,
    ExecutionFinished,
    ExecutionStarted,
    Payload,
    Place,
    ReplayRequested,
    StepError,
    StepFinished,
)
from schemas.ids import derived_id, effect_key, execution_id
from schemas.lineage import REDRIVEN_HEADER
from schemas.topics import EVENTS, RESULTS
from tests.integration.test_projection import T0
from wire.bus import Record, publish_all
from wire.clock import now

STEPS = [
    {"id": "a", "provider": "slack", "action": "send_message",
     "config": {"channel": "#x", "text": "{{n}}"}},
    {"id": "c", "condition": "{{n}} > 10", "then": ["big"], "else": ["small"]},
    {"id": "big", "provider": "slack", "action": "send_message",
     "config": {"channel": "#big", "text": "{{steps.a.output.ts}}"}},
    {"id": "small", "provider": "slack", "action": "send_message",
     "config": {"channel": "#small", "text": "{{steps.a.output.ts}}"}},
]  # fmt: skip
WORKFLOW = {"name": "W", "trigger": {"type": "event", "event_type": "order.paid"}, "steps": STEPS}


class Past:
    """Executions that ran, as the projector and the executors left them."""

    def __init__(self, api):
        self.api, self.pool, self.log = api, api.ports.pool, api.bus
        self.workspace = api.workspace["workspace_id"]
        self.workflow = ""
        self.count = 0

    async def save(self, steps=None, version=None):
        body = WORKFLOW | ({"steps": steps} if steps else {})
        if self.workflow:
            answer = await self.api.call("PUT", f"/workflows/{self.workflow}", body)
        else:
            answer = await self.api.call("POST", "/workflows", body)
        assert answer.status_code in (200, 201), answer.text
        self.workflow = answer.json()["workflow_id"]

    async def run(self, n=1, failed=None, ledger=True, outcome="unavailable", status=None):
        """One execution: steps a and small; `failed` names the one that failed."""
        self.count += 1
        event = derived_id("ev", self.workspace, self.count)
        value = orjson.dumps(
            {"workspace_id": self.workspace, "type": "order.paid", "id": event, "data": {"n": n}}
        )
        (place,) = await publish_all(self.log, [Record(EVENTS, self.workspace.encode(), value)])
        name, at = execution_id(event, self.workflow, 1, 0), T0 + self.count * 1_000_000
        head = (self.workspace, name, self.workflow, 1)
        ended = status or ("failed" if failed else "succeeded")
        facts = [
            EventOutcome(
                self.workspace, event, place, "matched", "", [name], "order.paid", None, "test",
                at, at,
            ),
            ExecutionStarted(*head, "W", "test", "cust_1", event, place, 0, at, at),
        ]  # fmt: skip
        if ended != "running":
            facts.append(ExecutionFinished(*head, "test", ended, None, b"{}", at + 9))
        for step in ("a", "small"):
            good = step != failed
            facts.append(self.step(head, event, step, "succeeded" if good else outcome, at))
            if ledger:
                await self.effect(facts[-1])
            if not good:
                break
        changes = Changes()
        for fact in facts:
            changes.take(place, fact)
        async with self.pool.connection() as on:
            await write(on, changes)
        return name, place

    def key(self, event, step, version=1):
        return effect_key(self.workspace, f"{event}#0", f"{self.workflow}@{version}", step, 0)

    def step(self, head, event, step, outcome, at):
        good = outcome == "succeeded"
        return StepFinished(
            *head, step_id=step, loop_index=0, effect_key=self.key(event, step), provider="slack",
            action="send_message", outcome=outcome, output=Payload(b'{"ts":"17.1"}' * good),
            output_cut=False, vendor_id="17.1" if good else None,
            error=None if good else StepError("down", "Slack is down."), attempts=b"[{}]",
            request=Payload(b"{}"), response=Payload(b"{}"), connection_id=None, from_ledger=False,
            command=Place("nhood.steps.slack.v1", 0, self.count), state=Payload(b""),
            requested_at_us=at, started_at_us=at, finished_at_us=at + 1,
        )  # fmt: skip

    async def effect(self, finished):
        await self.sql(
            "INSERT INTO effects (effect_key, workspace_id, status, result, done_at)"
            " VALUES (%s, %s, 'done', %s, now())",
            finished.effect_key, self.workspace, codec.encode(finished),
        )  # fmt: skip

    async def sql(self, query, *values):
        async with self.pool.connection() as on:
            cursor = await on.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    async def ask(self, mode="dry", **more):
        selection = more.pop("selection", {"since": "2020-01-01T00:00:00Z"})
        body = {"mode": mode, "selection": selection, "rate_per_s": 500} | more
        answer = await self.api.call("POST", "/replays", body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def job(self, **more):
        ports = {
            "pool": self.pool, "publisher": self.log, "log": self.log, "engine": RouterCore(),
        } | more  # fmt: skip
        return Job(replay_job.Ports(**ports))

    async def replay(self, mode="dry", **more):
        """Ask, carry out, and look."""
        made = await self.ask(mode, **more)
        while await self.job().once():
            pass
        return (await self.api.call("GET", f"/replays/{made['replay_id']}")).json()

    async def items(self, replay):
        answer = await self.api.call("GET", f"/replays/{replay['replay_id']}/items")
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    def requests(self):
        """What was asked of the router."""
        found = []
        for partition in range(3):
            for stored in self.log._logs[RESULTS, partition]:
                record = codec.decode(stored.value)
                if isinstance(record, ReplayRequested):
                    assert stored.key == record.execution_id.encode()
                    found.append(record)
        return sorted(found, key=lambda record: (record.generation, record.event_time_us))


@pytest.fixture
async def past(api):
    found = Past(api)
    await found.sql("TRUNCATE executions, steps, event_outcomes, effects, replays CASCADE")
    await found.save()
    return found


async def test_dry_replay_calls_nobody_and_tells_what_it_would_do(past):
    good, _ = await past.run()
    broken, _ = await past.run(failed="small")
    done = await past.replay()
    assert (done["status"], done["total"], done["items"]) == ("finished", 2, {"reported": 2})
    assert done["executions"] == {}
    assert past.requests() == []
    items = {item["execution_id"]: item["report"] for item in await past.items(done)}
    assert items[good]["would_call"] == 0
    assert items[good]["status"] == "succeeded"
    told = items[broken]["steps"]
    assert told["a"]["answer"] == "recorded"
    assert told["small"]["answer"] == "would_call"
    assert told["small"]["last_error"]["message"] == "Slack is down."
    assert told["small"]["request"] == {"channel": "#small", "text": "17.1"}
    assert told["big"]["status"] == "skipped"
    assert items[broken]["changes"] == []


async def test_repair_asks_for_what_is_missing_under_the_same_effect_keys(past):
    good, _ = await past.run()
    broken, place = await past.run(failed="small")
    done = await past.replay("repair")
    assert done["items"] == {"sent": 1, "skipped": 1}
    (asked,) = past.requests()
    assert (asked.replays, asked.event, asked.user) == (broken, place, "cust_1")
    assert (asked.effect_version, asked.effect_generation) == (1, 0)
    assert asked.execution_id != broken
    assert orjson.loads(asked.input.data) == {"n": 1}
    assert orjson.loads(asked.results.data) == {
        "a": {"s": "succeeded", "o": {"ts": "17.1"}, "i": "17.1"}
    }
    items = {item["execution_id"]: item for item in await past.items(done)}
    assert items[good]["reason"] == "Nothing of it is missing."
    assert items[broken]["new_execution_id"] == asked.execution_id
    keys = {key for (key,) in await past.sql("SELECT effect_key FROM effects")}
    failed = past.key(asked.event_id, "small")
    assert failed not in keys  # it may be tried again
    assert past.key(asked.event_id, "a") in keys


async def test_repairing_again_after_a_success_asks_for_nothing_more(past):
    broken, place = await past.run(failed="small")
    await past.replay("repair")
    (asked,) = past.requests()
    # The repair succeeds: the executor records the effect under the same key.
    head = (past.workspace, asked.execution_id, past.workflow, 1)
    finished = past.step(head, asked.event_id, "small", "succeeded", T0)
    await past.effect(finished)
    changes = Changes()
    started = ExecutionStarted(
        *head, "W", "test", None, asked.event_id, place, asked.generation, T0, T0,
        asked.replays, asked.replay_id, 1, 0,
    )  # fmt: skip
    for fact in (started, finished, ExecutionFinished(*head, "test", "succeeded", None, b"{}", T0)):
        changes.take(place, fact)
    async with past.pool.connection() as on:
        await write(on, changes)
    second = await past.replay("repair", selection={"execution_id": broken})
    (again,) = past.requests()[1:]
    # The first one failed, so it is run again: with every result there, nothing is left to call.
    assert orjson.loads(again.results.data).keys() == {"a", "small"}
    assert second["items"] == {"sent": 1}
    third = await past.replay("repair", selection={"execution_id": asked.execution_id})
    assert third["items"] == {"skipped": 1}


async def test_read_that_the_ledger_does_not_keep_is_taken_from_the_read_side(past):
    await past.run(failed="small", ledger=False)
    await past.replay("repair")
    (asked,) = past.requests()
    assert orjson.loads(asked.results.data).keys() == {"a"}


async def test_unknown_effect_stays_begun_so_that_the_step_decides(past):
    await past.run(failed="small", outcome="unknown")
    await past.replay("repair")
    (asked,) = past.requests()
    rows = await past.sql(
        "SELECT status, result FROM effects WHERE effect_key = %s",
        past.key(asked.event_id, "small"),
    )
    assert rows == [("started", None)]


async def test_force_needs_the_token_of_the_first_call(past):
    await past.run()
    made = await past.ask("force")
    path = f"/replays/{made['replay_id']}/confirm"
    assert (made["status"], made["total"]) == ("awaiting_confirmation", 1)
    assert not await past.job().once()
    wrong = await past.api.call("POST", path, {"confirmation": "x"})
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_confirmation")
    shown = await past.api.call("GET", f"/replays/{made['replay_id']}")
    assert shown.json()["confirmation"] is None
    good = await past.api.call("POST", path, {"confirmation": made["confirmation"]})
    assert good.json()["status"] == "running"
    assert await past.job().once()
    (asked,) = past.requests()
    assert asked.effect_generation == asked.generation >= 1_000_000_000
    assert orjson.loads(asked.results.data) == {}
    again = await past.api.call("POST", path, {"confirmation": made["confirmation"]})
    assert again.json()["code"] == "replay_status"


async def test_confirmation_that_comes_too_late_is_refused(past):
    await past.run()
    made = await past.ask("force")
    await past.sql("UPDATE replays SET confirm_until = %s", now() - timedelta(seconds=1))
    body = {"confirmation": made["confirmation"]}
    late = await past.api.call("POST", f"/replays/{made['replay_id']}/confirm", body)
    assert late.json()["code"] == "wrong_confirmation"


async def confirmed(past, **more):
    made = await past.ask("force", **more)
    body = {"confirmation": made["confirmation"]}
    answer = await past.api.call("POST", f"/replays/{made['replay_id']}/confirm", body)
    assert answer.status_code == 200, answer.text
    while await past.job().once():
        pass
    return made


async def test_force_from_a_step_keeps_the_results_before_it(past):
    name, _ = await past.run()
    await confirmed(past, selection={"execution_id": name}, from_step="small")
    (asked,) = past.requests()
    assert orjson.loads(asked.results.data).keys() == {"a"}


async def test_edited_input_takes_the_place_of_the_event(past):
    name, _ = await past.run(failed="small")
    await past.replay("repair", selection={"execution_id": name}, input={"n": 99})
    (asked,) = past.requests()
    assert orjson.loads(asked.input.data) == {"n": 99}


async def test_chosen_version_runs_with_the_effect_keys_of_the_first(past):
    name, _ = await past.run(failed="small")
    await past.save([{**STEPS[0]}, {**STEPS[3], "id": "small"}])
    await past.replay("repair", version="current", selection={"execution_id": name})
    (asked,) = past.requests()
    assert (asked.version, asked.effect_version) == (2, 1)


async def test_dry_replay_by_another_version_tells_what_changes(past):
    name, _ = await past.run()
    changed = [dict(step) for step in STEPS]
    changed[0] = {**STEPS[0], "config": {"channel": "#x", "text": "new {{n}}"}}
    changed[1] = {**STEPS[1], "condition": "{{n}} > 0"}
    await past.save(changed)
    selection = {"execution_id": name}
    one = await past.replay(selection=selection)
    two = await past.replay(selection=selection, version="current")
    (item,) = await past.items(two)
    changes = {(each["step"], each["kind"]): each for each in item["report"]["changes"]}
    assert changes["a", "request"]["paths"] == ["request.text"]
    assert changes["c", "branch"]["before"] == "false"
    assert changes["c", "branch"]["after"] == "true"
    assert changes["small", "status"]["after"] == "skipped"

    path = f"/replays/{one['replay_id']}/diff"
    diff = (await past.api.call("GET", path, params={"with": two["replay_id"]})).json()
    assert (diff["compared"], diff["equal"]) == (1, 0)
    kinds = {(each["step"], each["kind"]) for each in diff["differing"][0]["changes"]}
    assert {("a", "request"), ("c", "branch"), ("small", "status"), ("big", "status")} <= kinds
    same = (await past.api.call("GET", path, params={"with": one["replay_id"]})).json()
    assert (same["equal"], same["differing"]) == (1, [])


async def test_selection_by_range_status_workflow_and_offsets(past):
    names = [await past.run(failed="small" if n % 2 else None) for n in range(4)]
    at = "2025-10-09T08:53:2{}Z"  # T0 is 08:53:20

    async def chosen(**selection):
        made = await past.ask(selection=selection)
        return [item["execution_id"] for item in await past.items(made)]

    everything = [name for name, _ in names]
    assert await chosen(since=at.format(0)) == everything
    assert await chosen(since=at.format(0), statuses=["failed"]) == [names[1][0], names[3][0]]
    assert await chosen(since=at.format(2), until=at.format(4)) == [names[1][0], names[2][0]]
    assert await chosen(since=at.format(0), workflow_id="wf_" + "0" * 26) == []
    place = names[2][1]
    one = {"partition": place.partition, "first": place.offset, "end": place.offset + 1}
    assert await chosen(offsets=[one]) == [names[2][0]]


async def test_running_execution_and_lost_event_are_skipped_with_the_reason(past):
    await past.run(status="running")
    running = await past.sql("SELECT id FROM executions")
    done = await past.replay("repair", selection={"execution_id": running[0][0]})
    assert (await past.items(done))[0]["reason"] == "It is still running."
    await past.run(failed="small")
    for log in past.log._logs.values():
        log[:] = [kept for kept in log if kept.place.topic != EVENTS]
    done = await past.replay("repair")
    assert "no more" in (await past.items(done))[0]["reason"]


async def test_event_that_started_nothing_is_matched_anew(past):
    value = orjson.dumps({"workspace_id": past.workspace, "type": "x", "data": 1})
    (place,) = await publish_all(past.log, [Record(EVENTS, b"k", value)])
    outcome = EventOutcome(
        past.workspace, "ev_x", place, "no_match", "", [], "x", None, None, T0, T0
    )
    changes = Changes()
    changes.take(place, outcome)
    async with past.pool.connection() as on:
        await write(on, changes)
    selection = {"since": "2020-01-01T00:00:00Z", "unmatched": True}
    await past.replay("repair", selection=selection, version="current")
    stored = past.log._logs[EVENTS, place.partition][-1]
    assert stored.value == value
    assert stored.headers[REDRIVEN_HEADER] == f"{EVENTS}:{place.partition}:{place.offset}".encode()


async def test_paused_replay_goes_on_where_it_was_and_a_cancelled_one_does_not(past):
    for _ in range(3):
        await past.run(failed="small")
    made = await past.ask("repair")
    path = f"/replays/{made['replay_id']}"
    paused = await past.api.call("POST", f"{path}/pause")
    assert paused.json()["status"] == "paused"
    assert not await past.job().once()
    assert (await past.api.call("POST", f"{path}/pause")).status_code == 409
    await past.api.call("POST", f"{path}/resume")
    assert await past.job().once()
    assert len(past.requests()) == 3

    other = await past.ask("repair")
    ended = await past.api.call("POST", f"/replays/{other['replay_id']}/cancel")
    assert ended.json()["items"] == {"cancelled": 3}
    assert not await past.job().once()
    assert (await past.api.call("POST", f"/replays/{other['replay_id']}/resume")).status_code == 409
    assert len(past.requests()) == 3


class Stops:
    """A bus that stops after some records, as if its process were killed."""

    def __init__(self, bus, after):
        self.bus, self.left, self.stopped = bus, after, asyncio.Event()

    async def publish(self, records):
        if self.left == 0:
            self.stopped.set()
            await asyncio.Event().wait()
        self.left -= 1
        return await self.bus.publish(records)


async def test_replay_of_a_dead_process_is_carried_on_by_another(past):
    for _ in range(4):
        await past.run(failed="small")
    made = await past.ask("repair")
    bus = Stops(past.log, 2)
    dead = asyncio.create_task(past.job(publisher=bus).once())
    await asyncio.wait_for(bus.stopped.wait(), 30)
    assert not await past.job().once()  # the lease holds
    await past.sql("UPDATE replays SET lease_until = now() - interval '1 second'")
    assert await past.job().once()
    shown = (await past.api.call("GET", f"/replays/{made['replay_id']}")).json()
    assert (shown["status"], shown["items"]) == ("finished", {"sent": 4})
    assert len({record.execution_id for record in past.requests()}) == 4
    dead.cancel()
    await asyncio.wait([dead], timeout=5)


async def test_item_done_twice_asks_for_the_same_execution(past):
    """Killed between the record and its note: the id is made of what caused it."""
    await past.run(failed="small")
    made = await past.ask("repair")
    await past.job().once()
    await past.sql("UPDATE replay_items SET status = 'pending'")
    await past.sql("UPDATE replays SET status = 'running'")
    await past.job().once()
    one, two = past.requests()
    assert replace(one, requested_at_us=0) == replace(two, requested_at_us=0)
    assert made["total"] == 1


async def test_kafka_that_is_away_leaves_the_item_for_later(past):
    await past.run(failed="small")
    made = await past.ask("repair")

    class Away:
        async def publish(self, records):
            return [DependencyDown("Kafka is away.", code="kafka_down") for _ in records]

    with pytest.raises(DependencyDown):
        await past.job(publisher=Away()).once()
    shown = (await past.api.call("GET", f"/replays/{made['replay_id']}")).json()
    assert (shown["status"], shown["items"]) == ("running", {"pending": 1})
    assert await past.job().once()


async def test_replay_is_its_workspaces_and_modes(past, other):
    made = await past.ask()
    assert (await other.call("GET", f"/replays/{made['replay_id']}")).status_code == 404
    live = {"Authorization": f"Bearer {past.api.workspace['api_key']}"}
    path = f"/replays/{made['replay_id']}"
    assert (await past.api.call("GET", path, headers=live)).status_code == 404
    assert (await past.api.call("GET", "/replays")).json()["items"][0]["replay_id"] == made[
        "replay_id"
    ]


@pytest.mark.parametrize("name", ["%00", "rpl_%00", "nonsense", "ex_" + "0" * 26])
async def test_what_is_no_replay_is_not_found(past, name):
    assert (await past.api.call("GET", f"/replays/{name}")).status_code == 404
    assert (await past.api.call("POST", f"/replays/{name}/pause")).status_code == 404


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"selection": {}}, "names no range"),
        ({"selection": {"workflow_id": "wf_x"}}, "names no range"),
        ({"selection": {"execution_id": "ex_1", "unmatched": True}}, "leave the other fields out"),
        ({"input": 1}, "for one execution only"),
        ({"mode": "repair", "from_step": "a"}, "is for force and dry"),
        ({"version": "newest"}, "pinned, current, or a number"),
        ({"version": "3"}, "pinned, current, or a number"),
        ({"version": "²", "selection": {"execution_id": "ex_1"}}, "pinned, current, or a number"),
        ({"selection": {"since": "2020-01-01T00:00:00Z", "unmatched": True}}, "version current"),
    ],
)
async def test_wrong_replay_is_refused_with_a_sentence(past, more, sentence):
    body = {"mode": "dry", "selection": {"since": "2020-01-01T00:00:00Z"}} | more
    answer = await past.api.call("POST", "/replays", body)
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["detail"]
