"""Steps that wait for an event: which event wakes them, what they give, what ends the wait."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.events import CancelRequested, Place
from tests.unit.router.world import World, call
from wire.bus import Stored


def wait(**more: object) -> dict:
    return {
        "id": "w",
        "type": "wait_event",
        "event_type": "order.approved",
        "match": {"order.n": "{{n}}"},
        "depends_on": [],
        **more,
    }


def approved(n: int, **more: object) -> dict:
    return {"order": {"n": n}, **more}


def waiting_world(*steps: dict, **more: object) -> World:
    world = World([wait(**more), *steps])
    world.post()
    return world


def test_event_that_fits_wakes_the_step_and_gives_its_data():
    world = waiting_world(call("b", "w", config={"t": "{{steps.w.output.event.data.by}}"}))
    world.happen("order.approved", approved(1, by="Ada"))
    assert world.outcomes[-1].outcome == "matched"
    (execution,) = world.outcomes[-1].executions
    assert world.outcomes[-1].reason == f"Woke {execution}/w."
    world.deliver_one(("w", b"ev_2"))
    world.deliver("b")
    assert world.ends[0].status == "succeeded"
    assert world.waits == {}
    assert [key.rpartition(b"/")[2] for key in world.timers] == [b"forget"]


@pytest.mark.parametrize(
    ("more", "data", "fits"),
    [
        ({}, approved(1), True),
        ({}, approved(2), False),
        ({}, {"order": {}}, False),
        ({}, {"order": {"n": "1"}}, False),
        ({"match": {"order.n": 1, "ok": True}}, approved(1, ok=True), True),
        ({"match": {"order.n": 1, "ok": True}}, approved(1, ok=False), False),
        ({"filter": "event.data.sum > {{n}}"}, approved(1, sum=2), True),
        ({"filter": "event.data.sum > {{n}}"}, approved(1, sum=1), False),
        ({"filter": "event.data.sum > {{n}}"}, approved(1), False),
        ({"match": {}, "filter": "event.data.order.n == {{n}}"}, approved(1), True),
        ({"match": {}, "filter": "event.type == 'x'"}, approved(1), False),
        ({"subject": "{{n}}"}, approved(1), False),
    ],
)
def test_only_an_event_that_fits_wakes_it(more, data, fits):
    world = waiting_world(**more)
    world.happen("order.approved", data)
    assert world.outcomes[-1].outcome == ("matched" if fits else "no_match")
    assert (("w", b"ev_2") in world.results) is fits


def test_event_of_another_type_or_mode_wakes_nobody():
    world = waiting_world()
    world.happen("order.refused", approved(1), "ev_3")
    world.happen("order.approved", approved(1), "ev_4", mode="test")
    assert {("w", b"ev_3"), ("w", b"ev_4")}.isdisjoint(world.results)


def test_event_wakes_every_step_that_waits_for_it():
    world = World([wait(), wait(id="w2"), wait(id="w3", match={"order.n": 9})])
    world.post()
    world.happen("order.approved", approved(1))
    assert sorted(step for step, key in world.results if key == b"ev_2") == ["w", "w2"]


def test_wait_without_its_event_fails_when_its_time_is_over():
    world = waiting_world(call("b", "w"), timeout="1h")
    world.fire("/w/event")
    assert world.ends[0].status == "failed"
    assert world.ends[0].error.code == "wait_timeout"
    assert orjson.loads(world.ends[0].steps)["b"]["reason"] == "upstream_failed"
    assert world.waits == {}


def test_wait_may_go_on_without_its_event():
    world = waiting_world(
        call("b", "w", config={"t": "{{steps.w.output.timed_out}}"}),
        timeout="1h",
        on_timeout="continue",
    )
    world.fire("/w/event")
    assert ("b" in {step for step, _ in world.results}) is True


@pytest.mark.parametrize(("comes", "chosen", "other"), [(True, "y", "n"), (False, "n", "y")])
def test_branches_follow_the_event_or_its_absence(comes, chosen, other):
    yes, no = call("y"), call("n")
    del yes["depends_on"], no["depends_on"]
    world = World([wait(then=["y"], **{"else": ["n"]}), yes, no])
    world.post()
    if comes:
        world.happen("order.approved", approved(1))
        world.deliver_one(("w", b"ev_2"))
    else:
        world.fire("/w/event")
    world.deliver(chosen)
    steps = orjson.loads(world.ends[0].steps)
    assert world.ends[0].status == "succeeded"
    assert steps[chosen]["status"] == "succeeded"
    assert steps[other] == {"status": "skipped", "reason": "not_chosen"}
    assert steps["w"] == {"status": "true" if comes else "false"}


def test_event_that_came_just_before_the_wait_counts_once():
    first = wait(id="w1", depends_on=["a"])
    world = World([call("a"), first, wait(id="w2", depends_on=["w1"])])
    world.post()
    world.happen("order.approved", approved(1))
    assert world.outcomes[-1].outcome == "no_match"
    world.deliver("a")
    assert ("w1", b"ev_2") in world.results
    world.deliver_one(("w1", b"ev_2"))
    assert ("w2", b"ev_2") not in world.results
    world.happen("order.approved", approved(1), "ev_3")
    assert ("w2", b"ev_3") in world.results


def test_event_that_came_long_before_the_wait_does_not_count():
    world = World([call("a"), wait(depends_on=["a"])])
    world.post()
    world.happen("order.approved", approved(1))
    world.now += 61_000_000
    world.deliver("a")
    assert ("w", b"ev_2") not in world.results


@pytest.mark.parametrize("comes", [True, False])
def test_wait_of_a_cancelled_execution_ends_with_its_event_or_its_time(comes):
    world = waiting_world(call("b", "w"))
    (wanted,) = world.waits.values()
    request = CancelRequested(wanted.workspace_id, wanted.execution_id, "", world.now)
    place = Place("nhood.results.v1", 0, 0)
    world._take(world.pipeline.on_result, Stored(place, b"ex", codec.encode(request)))
    if comes:
        world.happen("order.approved", approved(1))
        world.deliver_one(("w", b"ev_2"))
    else:
        world.fire("/w/event")
    assert world.waits == {}
    assert world.calls == []
    assert [end.status for end in world.ends] == ["cancelled"]


def test_second_event_changes_nothing():
    world = waiting_world(call("b", "w", config={"t": "{{steps.w.output.event.data.by}}"}))
    world.happen("order.approved", approved(1, by="Ada"))
    world.happen("order.approved", approved(1, by="Bob"), "ev_3")
    world.deliver_one(("w", b"ev_2"))
    calls = list(world.calls)
    world.deliver_one(("w", b"ev_3"))
    assert world.calls == calls


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["deliver", "restart", "event", "approve", "other"]),
            st.integers(0, 50),
        ),
        max_size=30,
    )
)
def test_event_and_timeout_race_to_one_end(moves):
    """Whatever comes first, however often records come again: one end."""
    world = World(
        [
            call("a"),
            wait(depends_on=["a"], timeout="1h", then=["b"], **{"else": ["c"]}),
            {"id": "b", "provider": "slack", "action": "send_message",
             "config": {"t": "{{steps.w.output.event.data.by}}"}},
            {"id": "c", "provider": "slack", "action": "send_message"},
        ]
    )  # fmt: skip
    world.post()
    delivered: set[tuple[str, bytes]] = set()
    for move, number in moves:
        if move == "restart":
            world.restart()
        elif move == "event":
            world.post()
        elif move in ("approve", "other"):
            world.happen("order.approved", approved(1, by=move), f"ev_{move}")
        elif world.results:
            name = sorted(world.results)[number % len(world.results)]
            delivered.add(name)
            world.deliver_one(name)
    world.deliver_rest(delivered)
    assert world.ends
    assert len({(end.status, end.steps) for end in world.ends}) == 1
