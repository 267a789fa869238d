"""Deliveries that come twice: one starts something, the others say which one they repeat."""

import asyncio
import os
import time
from collections.abc import Iterator

import orjson
import pytest

from router.deliveries import Deliveries, delivery_key, key_of, repeated
from schemas import codec
from schemas.events import Envelope, Event, EventOutcome, ExecutionStarted, Payload, Place
from schemas.ids import new_id
from schemas.lineage import REDRIVEN_HEADER, place_name
from schemas.settings import Secret
from schemas.topics import EVENTS
from tests.integration.router_parts import Log, a_router
from wire.bus import Stored

WS = new_id("ws", 0, os.urandom(10))


@pytest.fixture
async def deliveries(database: str):
    found = Deliveries(Secret(database))
    yield found
    await found.close()


def fresh() -> str:
    return new_id("ev", 0, os.urandom(10))


def event(name: str, offset: int, partition: int = 0, **more: object) -> Stored:
    """An event as ingest writes it."""
    mode, body = str(more.pop("mode", "live")), more.pop("body", b"{}")
    headers = more.pop("headers", {})
    envelope = Envelope(name, "order.paid", "/t", WS, 1, **more)
    value = codec.encode(Event(Payload(body), mode=mode))
    place = Place(EVENTS, partition, offset)
    return Stored(place, b"k", value, {**dict(envelope.headers()), **headers})


async def test_first_place_on_the_log_wins_whoever_asks(deliveries, database):
    first, again, other = event("ev_x", 3), event("ev_x", 9), event("ev_y", 4)
    assert await repeated(deliveries, [first, again, other]) == {again.place: first.place}
    second_router = Deliveries(Secret(database))
    later = event("ev_x", 2, partition=5)
    assert await repeated(second_router, [later, first]) == {later.place: first.place}
    await second_router.close()


async def test_event_that_is_read_again_finds_its_own_place_and_is_handled_again(deliveries):
    stored = event(fresh(), 1)
    assert await repeated(deliveries, [stored]) == {}
    assert await repeated(deliveries, [stored]) == {}


async def test_event_that_is_redriven_is_the_one_that_it_was(deliveries):
    name = fresh()
    stored = event(name, 1)
    assert await repeated(deliveries, [stored]) == {}
    note = {REDRIVEN_HEADER: place_name(stored.place).encode()}
    assert await repeated(deliveries, [event(name, 7, headers=note)]) == {}


async def test_same_id_of_another_mode_is_another_delivery(deliveries):
    name = fresh()
    assert await repeated(deliveries, [event(name, 1), event(name, 2, mode="test")]) == {}


@pytest.mark.parametrize(
    "stored",
    [
        event(fresh(), 1, minted=True),
        event(fresh(), 1, generation=1_000_000_000),
        event(fresh(), 1, body=b"{broken"),
        Stored(Place(EVENTS, 0, 1), None, b"no event", {}),
        Stored(
            Place(EVENTS, 0, 1), None, orjson.dumps({"workspace_id": WS, "type": "a", "data": {}})
        ),
    ],
    ids=["minted", "replayed", "bad body", "unreadable", "named by its place"],
)
def test_what_nothing_can_repeat_is_never_looked_up(stored):
    assert key_of(stored) is None


async def test_many_routers_that_note_the_same_at_once_agree(database):
    routers = [Deliveries(Secret(database)) for _ in range(4)]
    keys = [delivery_key(WS, "live", fresh()) for _ in range(200)]
    answers = await asyncio.gather(
        *(
            router.first_places((key, Place(EVENTS, number, offset))
                                for offset, key in enumerate(keys))
            for number, router in enumerate(routers)
        )
    )  # fmt: skip
    assert all(answer == answers[0] for answer in answers)
    for router in routers:
        await router.close()


@pytest.fixture
def log(kafka_topics: str, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setenv("DATABASE_URL", database)
    found = Log(kafka_topics)
    yield found
    found.close()


def send(log: Log, name: str) -> None:
    envelope = Envelope(
        name, "nhood.webhook", "/t", log.workspace, time.time_ns() // 1000, subject="/x"
    )
    value = codec.encode(Event(Payload(b"{}"), mode="test"))
    log.write(EVENTS, name, value, envelope.headers())


def waiting(step: str) -> dict:
    steps = [{"id": step, "type": "delay", "duration": "1h"}]
    return {"name": "W", "trigger": {"type": "webhook", "path": "/x"}, "steps": steps}


@pytest.mark.timeout(240)
def test_deliveries_start_once_over_killed_routers_and_a_new_version(log, kafka_topics, tmp_path):
    workflow = log.save(waiting("one"))
    names = [fresh() for _ in range(40)]
    with a_router(kafka_topics, tmp_path):
        for name in names[:20] * 2:
            send(log, name)
        log.executions(ExecutionStarted, 5)
    # Killed somewhere in the middle. A new version would give executions of other ids.
    log.save(waiting("two"), 2, workflow)
    (tmp_path / "second").mkdir()
    with a_router(kafka_topics, tmp_path), a_router(kafka_topics, tmp_path / "second"):
        for name in names * 2:
            send(log, name)

        def decided(facts: list[object]) -> bool:
            return len({fact.event for fact in log.of(EventOutcome)(facts)}) == 40 + 80

        log.wait_for(decided, "an outcome for each offset")
    outcomes = {}
    for fact in log.of(EventOutcome)(log.facts):
        assert outcomes.setdefault(fact.event, fact).outcome == fact.outcome, fact
    for name in names:
        mine = [fact for fact in outcomes.values() if fact.event_id == name]
        (first,) = [fact for fact in mine if fact.outcome == "matched"]
        others = [fact for fact in mine if fact.outcome == "duplicate"]
        assert len(others) == len(mine) - 1
        assert {fact.repeats for fact in others} == {first.event}
        assert str(first.event) in others[0].reason
