"""A cancelled execution: no further command, one end, and the executors are told."""

import pytest

from tests.unit.router.world import World, call

LOOP = [call("l", items=list(range(5)), max_parallel=2), call("z", "l")]


def test_cancelled_execution_sends_no_further_command_and_ends_cancelled():
    world = World(LOOP)
    world.post()
    calls = list(world.calls)
    world.cancel()
    assert [end.status for end in world.ends] == ["cancelled"]
    for name in list(world.results):
        world.deliver_one(name)
    assert world.calls == calls
    assert [end.status for end in world.ends] == ["cancelled"]


def test_executors_are_told_which_execution_was_stopped():
    world = World(LOOP)
    world.post()
    world.cancel()
    (told,) = world.stopped
    assert (told.execution_id, told.reason) == (world.ends[-1].execution_id, "Wrong customer.")


def test_workflow_timeout_stops_what_is_queued_at_the_executors():
    world = World([call("a"), call("b", "a")], timeout="1h")
    world.post()
    world.fire("/timeout")
    assert [told.execution_id for told in world.stopped] == [world.ends[-1].execution_id]


@pytest.mark.parametrize("died", [False, True])
def test_cancellation_outlives_the_router_and_may_come_twice(died):
    world = World(LOOP)
    world.post()
    world.cancel()
    if died:
        world.restart()
    world.cancel()
    calls = list(world.calls)
    for name in list(world.results):
        world.deliver_one(name)
    assert world.calls == calls
    assert {end.status for end in world.ends} == {"cancelled"}
