"""The router begins an execution once more: same effect keys, results that stay, lineage."""

import orjson
import pytest

from router.pipeline import Output
from schemas import codec
from schemas.events import ExecutionStarted, Payload, Place, ReplayRequested, RequestStep
from schemas.topics import EXECUTIONS
from tests.unit.router.world import EVENT, NOW, WS, World, call
from wire.bus import Stored

LINE = [call("a"), call("b", "a"), call("c", "b", config={"t": "{{steps.a.output.n}}"})]
LOOP = [call("l", items=[1, 2, 3], config={"t": "{{item}}"}), call("z", "l")]


def request(results=None, version=1, effects=(1, 0), **more):
    return ReplayRequested(
        WS, "ex_replay", "wf_1", version, "rpl_1", "ex_first", 1_000_000_000, *effects, "ev_1",
        Place("nhood.events.v1", 0, 0), NOW, "live", None, Payload(more.get("input", EVENT)),
        Payload(orjson.dumps(results or {})), NOW,
    )  # fmt: skip


def ask(world, asked):
    stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", codec.encode(asked))
    world._take(world.pipeline.on_result, stored)


def good(n):
    return {"s": "succeeded", "o": {"n": n}}


def first_run(steps, failing=frozenset()):
    world = World(steps, failing)
    world.post()
    world.deliver_rest(set())
    return world


def test_repair_calls_only_what_is_missing_under_the_same_keys():
    before = first_run(LINE, frozenset({"c"}))
    world = World(LINE)
    ask(world, request({"a": good(1), "b": good(2)}))
    world.deliver_rest(set())
    assert world.calls == before.calls[-1:]
    assert world.ends[-1].status == "succeeded"
    assert orjson.loads(world.ends[-1].steps)["a"]["status"] == "succeeded"


def test_repair_of_what_is_whole_calls_nobody_and_ends():
    world = World(LINE)
    ask(world, request({"a": good(1), "b": good(2), "c": good(3)}))
    assert world.calls == []
    assert world.ends[-1].status == "succeeded"


def test_effect_keys_stay_through_the_whole_execution():
    before = first_run(LINE)
    world = World(LINE)
    ask(world, request())
    world.deliver_rest(set())
    assert world.calls == before.calls  # the keys ride in the state


def test_other_generation_gives_other_effect_keys():
    before = first_run(LINE)
    world = World(LINE)
    ask(world, request(effects=(1, 1_000_000_000)))
    world.deliver_rest(set())
    assert len(world.calls) == 3
    assert not set(world.calls) & set(before.calls)


def test_items_of_a_loop_that_succeeded_are_not_done_again_even_after_a_restart():
    before = first_run(LOOP)
    world = World(LOOP)
    ask(world, request({"l#0": good(1), "l#2": good(3)}))
    world.restart()
    world.deliver_rest(set())
    items = dict(zip(("l#0", "l#1", "l#2", "z"), before.calls, strict=True))
    assert world.calls == [items["l#1"], items["z"]]
    assert world.ends[-1].status == "succeeded"


def test_execution_knows_what_it_runs_once_more():
    world = World(LINE)
    output = Output()
    stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", codec.encode(request()))
    world.pipeline.on_result(stored, output)
    facts = [codec.decode(r.value) for r in output.records if r.topic == EXECUTIONS]
    (started,) = [fact for fact in facts if isinstance(fact, ExecutionStarted)]
    assert (started.replays, started.replay_id) == ("ex_first", "rpl_1")
    assert (started.effect_version, started.effect_generation) == (1, 0)
    assert started.event == Place("nhood.events.v1", 0, 0)


def test_edited_input_is_what_templates_read():
    steps = [call("a", config={"t": "{{n}}"})]
    world = World(steps)
    output = Output()
    stored = Stored(
        Place("nhood.results.v1", 0, 0), b"ex", codec.encode(request(input=b'{"n":42}'))
    )
    world.pipeline.on_result(stored, output)
    commands = [codec.decode(record.value) for record in output.records]
    (command,) = [each for each in commands if isinstance(each, RequestStep)]
    assert orjson.loads(command.params.data) == {"t": 42}


def test_version_that_is_not_known_ends_it_and_asks_for_another_look():
    world = World(LINE)
    output = Output()
    stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", codec.encode(request(version=9)))
    world.pipeline.on_result(stored, output)
    assert output.unmatched
    (finished,) = [codec.decode(record.value) for record in output.records]
    assert finished.error.code == "workflow_version_gone"


@pytest.mark.parametrize("wrong", [b"no json", b"[1]"])
def test_replay_that_cannot_be_read_is_put_aside(wrong):
    world = World(LINE)
    output = Output()
    broken = ReplayRequested(
        WS, "ex_replay", "wf_1", 1, "rpl_1", None, 1, 1, 0, "ev_1", Place("t", 0, 0), NOW, "live",
        None, Payload(EVENT), Payload(wrong), NOW,
    )  # fmt: skip
    stored = Stored(Place("nhood.results.v1", 0, 0), b"ex", codec.encode(broken))
    world.pipeline.on_result(stored, output)
    (letter,) = [codec.decode(record.value) for record in output.records]
    assert letter.code == "bad_replay"
