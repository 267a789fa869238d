"""Whatever order results come in, however often, and whenever a router dies: the same end.

The world here is a log and a router that may lose its memory and read any record again, as Kafka
may make it do; the vendors are a table of answers.
"""

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.router.world import World, call

WORKFLOWS = {
    "line": [call("a"), call("b", "a"), call("c", "b", config={"t": "{{steps.a.output.n}}"})],
    "diamond": [call("a"), call("b", "a"), call("c", "a"), call("d", "b", "c")],
    "wide": [
        *(call(f"p{n}") for n in range(4)),
        call("join", *(f"p{n}" for n in range(4)), config={"t": "{{steps.p3.output.n}}"}),
        call("tail", "join", config={"t": "{{steps.p0.output.n}}"}),
    ],
    "branches": [
        call("a"),
        call("b"),
        {"id": "c", "condition": "{{steps.a.output.n}} > 3", "then": ["d"], "else": ["e"],
         "depends_on": ["a"]},
        call("d", "c"),
        call("e", "c"),
        call("f", "b", "d", "e"),
    ],
}  # fmt: skip
WORKFLOWS["delays"] = [
    call("a"),
    {"id": "d", "type": "delay", "duration": "2d", "depends_on": ["a"]},
    call("b", "a", config={"t": "{{steps.a.output.n}}"}),
    call("c", "d", "b", config={"t": "{{steps.d.output.until}}"}),
]
WORKFLOWS["loop"] = [
    call("a"),
    call("l", "a", items=list(range(4)), config={"t": "{{item}} {{steps.a.output.n}}"}),
    call("z", "l", config={"t": "{{steps.l.output[3].n | default(0)}}"}),
]
WORKFLOWS["loops"] = [
    call("l", items="{{trigger.list}}", max_parallel=3, config={"t": "{{item.id}}"}),
    call("m", items=[7, 8, 9], max_parallel=2, on_item_error="ignore", on_error="continue"),
    call("a"),
    call("z", "l", "m", "a", config={"t": "{{steps.m.output}} {{steps.l.output[6]}}"}),
]
WORKFLOWS["rescue"] = [
    {**call("a"), "on_error": ["d", "e"]},
    call("b", "a"),
    call("d"),
    call("e"),
    call("f", "b", "d", "e", config={"t": "{{steps.a.error.code | default('')}}"}),
]
UNDO = {"action": "delete_message", "config": {"t": "{{steps.a.output.n}}"}}
WORKFLOWS["undo"] = [
    call("a", compensate=UNDO),
    call("p1", compensate=UNDO),
    call("b", "a", "p1", compensate=UNDO),
    call("d", "b"),
]
for _step in WORKFLOWS["rescue"]:
    if _step["id"] in ("d", "e"):
        del _step["depends_on"]
for _step in WORKFLOWS["branches"]:
    if _step["id"] in ("d", "e"):
        del _step["depends_on"]


def straight(name: str, failing: frozenset[str]) -> World:
    """Every result once, as soon as it is there, nothing dies."""
    world = World(WORKFLOWS[name], failing)
    world.post()
    world.deliver_rest(set())
    return world


def end_of(world: World) -> tuple[str, dict]:
    last = world.ends[-1]
    return last.status, orjson.loads(last.steps)


FAILING = ["a", "b", "d", "p1", "p2", "l#1", "l#2", "m#1", "a.compensate"]


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(WORKFLOWS)),
    failing=st.frozensets(st.sampled_from(FAILING), max_size=2),
    moves=st.lists(st.tuples(st.sampled_from(["deliver", "restart", "event"]), st.integers(0, 50))),
)
def test_any_order_of_redelivered_records_gives_the_same_end_and_effects(name, failing, moves):
    expected = straight(name, failing)
    world = World(WORKFLOWS[name], failing)
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
    assert world.ends, "the execution never ended"
    assert end_of(world) == end_of(expected)
    assert set(world.calls) == set(expected.calls)


def test_router_that_dies_between_two_branches_remembers_the_first():
    world = World(WORKFLOWS["diamond"], frozenset())
    world.post()
    world.deliver("a")
    world.deliver("b")
    world.restart()
    world.deliver("c")
    assert "d" in {step for step, _ in world.results}


def test_memory_of_a_joined_execution_is_given_back():
    world = World(WORKFLOWS["diamond"], frozenset())
    world.post()
    for step in ("a", "b", "c"):
        world.deliver(step)
    assert all(record.value is None for record in world.progress.values())
