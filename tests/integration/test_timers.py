"""Timers of a real router on a real broker, over kill -9."""

import time
from collections.abc import Iterator

import orjson
import pytest

from schemas.events import EventOutcome, ExecutionFinished, ExecutionStarted, StepWaiting
from schemas.ids import derived_id
from tests.integration.router_parts import Log, a_router


@pytest.fixture(autouse=True)
def _database(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)


@pytest.fixture
def log(kafka_topics: str) -> Iterator[Log]:
    found = Log(kafka_topics)
    yield found
    found.close()


def pause(**more: object) -> dict:
    return {
        "name": "Pause",
        "trigger": {"type": "webhook", "path": "/x"},
        "steps": [{"type": "delay", **more}],
    }


@pytest.mark.timeout(180)
def test_delay_outlives_a_router_that_is_killed_while_it_waits(log, kafka_topics, tmp_path):
    log.save(pause(duration="6s"))
    with a_router(kafka_topics, tmp_path):
        events = [log.post("nhood.webhook", {"n": n}, "/x") for n in range(20)]
        waiting = log.executions(StepWaiting, 20)
    assert len(events) == 20
    assert log.of(ExecutionFinished)(log.facts) == []
    with a_router(kafka_topics, tmp_path):
        ended = log.executions(ExecutionFinished, 20)
    assert {fact.status for fact in ended} == {"succeeded"}
    due = {fact.execution_id: fact.until_us for fact in waiting}
    assert all(fact.at_us >= due[fact.execution_id] for fact in ended)
    assert orjson.loads(ended[0].steps)["delay"]["status"] == "succeeded"


@pytest.mark.timeout(180)
def test_router_that_comes_later_publishes_what_became_due_meanwhile(log, kafka_topics, tmp_path):
    log.save(pause(until="{{at}}"))
    with a_router(kafka_topics, tmp_path):
        log.post("nhood.webhook", {"at": time.time() + 5}, "/x")
        (waiting,) = log.executions(StepWaiting, 1)
    while time.time_ns() // 1000 < waiting.until_us:
        time.sleep(0.05)
    with a_router(kafka_topics, tmp_path):
        (ended, *_) = log.executions(ExecutionFinished, 1)
    assert ended.execution_id == waiting.execution_id
    assert ended.status == "succeeded"


@pytest.mark.timeout(240)
def test_wait_is_woken_by_an_event_over_a_killed_router(log, kafka_topics, tmp_path):
    steps = [
        {"id": "w", "type": "wait_event", "event_type": "approved", "match": {"n": "{{n}}"}},
    ]
    log.save({"name": "W", "trigger": {"type": "webhook", "path": "/x"}, "steps": steps})
    with a_router(kafka_topics, tmp_path):
        for number in range(5):
            log.post("nhood.webhook", {"n": number}, "/x")
        log.executions(StepWaiting, 5)
        log.post("approved", {"n": 0})
        (first,) = log.executions(ExecutionFinished, 1)
    assert first.status == "succeeded"
    with a_router(kafka_topics, tmp_path):
        events = [log.post("approved", {"n": number}) for number in range(1, 5)]
        log.executions(ExecutionFinished, 5)
        told = log.wait_for(
            log.of(EventOutcome, event_id=events[-1]), "the outcome of the last event"
        )
    assert told[0].outcome == "matched"
    assert told[0].reason == f"Woke {told[0].executions[0]}/w."


@pytest.mark.timeout(240)
def test_schedule_of_each_second_misses_and_repeats_none_over_a_kill(log, kafka_topics, tmp_path):
    trigger = {"type": "schedule", "cron": "* * * * * *", "catch_up": "all"}
    steps = [{"type": "delay", "until": "2026-01-01T00:00:00Z"}]
    workflow_id = log.save({"name": "Tick", "trigger": trigger, "steps": steps})
    with a_router(kafka_topics, tmp_path):
        log.executions(ExecutionStarted, 4)
    with a_router(kafka_topics, tmp_path):
        log.executions(ExecutionStarted, 20)
    ended = {fact.execution_id for fact in log.of(ExecutionFinished)(log.facts)}
    assert ended
    seconds = {}
    first = time.time_ns() // 1_000_000_000 - 3_600
    names = {derived_id("ev", "schedule", workflow_id, s * 1_000_000): s
             for s in range(first, first + 7_200)}  # fmt: skip
    for fact in log.of(ExecutionStarted)(log.facts):
        seconds.setdefault(names[fact.event_id], set()).add(fact.execution_id)
    found = sorted(seconds)
    assert found == list(range(found[0], found[-1] + 1)), "a second is missing"
    assert all(len(executions) == 1 for executions in seconds.values())
