"""Deadlines and timeouts: the first end of a step counts, and what comes late changes nothing."""

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.router.world import World, call


def steps_of(world: World) -> dict:
    return orjson.loads(world.ends[-1].steps)


def test_deadline_fails_the_step_and_a_late_result_changes_nothing():
    world = World([call("a", deadline="1h", on_error="continue"), call("b", "a"), call("c", "b")])
    world.post()
    world.fire("/deadline")
    world.deliver("b")
    calls = list(world.calls)
    world.deliver("a")
    assert world.calls == calls
    world.deliver("c")
    world.deliver("a")
    assert len(world.ends) == 1
    assert steps_of(world)["a"]["error"]["code"] == "step_deadline"
    assert world.ends[0].status == "succeeded"


def test_result_before_the_deadline_ends_its_timer_and_wins():
    world = World([call("a", deadline="1h"), call("b", "a")])
    world.post()
    late = dict(world.timers)
    world.deliver("a")
    assert not any(key.endswith(b"/deadline") for key in world.timers)
    world.deliver("b")
    world.timers.update(late)
    world.fire("/deadline")
    assert [end.status for end in world.ends] == ["succeeded"]


def test_execution_that_lasts_too_long_fails_and_stays_so():
    world = World([call("a"), call("b", "a")], timeout="1h")
    world.post()
    world.deliver("a")
    world.restart()
    world.fire("/timeout")
    world.deliver("b")
    assert [end.status for end in world.ends] == ["failed"]
    assert world.ends[0].error.code == "workflow_timeout"
    assert steps_of(world)["a"]["status"] == "succeeded"


def test_timeout_ends_the_delays_that_the_execution_waits_for():
    world = World([{"id": "d", "type": "delay", "duration": "9d"}, call("b", "d")], timeout="1h")
    world.post()
    assert any(key.endswith(b"/d/delay") for key in world.timers)
    world.fire("/timeout")
    assert [key.rpartition(b"/")[2] for key in world.timers] == [b"timeout", b"forget"]


def test_ended_execution_is_forgotten_when_nothing_can_be_on_its_way():
    world = World([call("a", deadline="1h")], timeout="2h")
    world.post()
    world.deliver("a")
    assert any(record.value is not None for record in world.progress.values())
    assert [key.rpartition(b"/")[2] for key in world.timers] == [b"forget"]
    world.fire("/forget")
    assert all(record.value is None for record in world.progress.values())
    assert len(world.ends) == 1


def test_execution_that_ends_at_once_sets_no_timer():
    world = World([call("a", config={"t": "{{nope}}"})], timeout="1h")
    world.post()
    assert len(world.ends) == 1
    assert world.timers == {}


def test_workflow_without_times_writes_no_timer():
    world = World([call("a"), call("b", "a")])
    world.post()
    world.deliver("a")
    world.deliver("b")
    assert world.timers == {}
    assert world.progress == {}


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["deliver", "restart", "event"]), st.integers(0, 50)),
        max_size=30,
    )
)
def test_whichever_end_comes_first_is_the_only_one(moves):
    """Results and deadlines race in any order, records come again, routers die: one end."""
    world = World(
        [call("a", deadline="1h", on_error="continue"), call("b", "a", deadline="1h"), call("c")]
    )
    world.post()
    delivered: set[tuple[str, bytes]] = set()
    for move, number in moves:
        if move == "restart":
            world.restart()
        elif move == "event":
            world.post()
        elif world.results:
            name = sorted(world.results)[number % len(world.results)]
            delivered.add(name)
            world.deliver_one(name)
    world.deliver_rest(delivered)
    assert world.ends
    assert len({(end.status, end.steps) for end in world.ends}) == 1
