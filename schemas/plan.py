"""What follows what in a workflow, worked out once from the steps as written.

    no depends_on, named by a condition    follows that condition, skipped when not chosen
    no depends_on, named by none           follows the step before it in the list; where that one
                                           belongs to a branch, it follows the whole branching
    depends_on                             overrides the list's order
    reads {{steps.x…}}                     waits for x as well, whatever became of it

Steps that wait for nothing of each other run side by side.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import Problem
from schemas.loops import ForEachStep, unit
from schemas.pauses import WaitEventStep
from schemas.template import Reference
from schemas.workflow import (
    Actions,
    ActionStep,
    ConditionStep,
    Step,
    Workflow,
    invalid_workflow,
    read_workflow,
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a step waits for.

    Attributes:
        hard: Steps it follows: one that failed keeps it from running, and so do all skipped.
        soft: Steps whose output it reads: they only have to be settled.
        branch: The step that names it, and the value it has to have, False for one that names it
            in `on_error` and has to fail; or None.
    """

    hard: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()
    branch: tuple[str, bool] | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every step that must be settled before."""
        named = (self.branch[0],) if self.branch else ()
        return tuple(dict.fromkeys((*self.hard, *self.soft, *named)))


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow with its order.

    Attributes:
        order: Step ids such that each stands after all that it needs.
        readers: For each step, the steps that read its output.
        races: Whether a step may end in two ways, of which the first counts: all of an execution
            is remembered then, until nothing of it can be on its way any more.
        loops: The steps that are loops.
        undo: Steps with the ids of what compensates them, the last one first. These are in `steps`,
            not in `order`: they run when all else is settled and the execution fails.
    """

    workflow: Workflow
    steps: Mapping[str, Step]
    needs: Mapping[str, Needs]
    order: tuple[str, ...]
    readers: Mapping[str, frozenset[str]]
    races: bool = False
    loops: frozenset[str] = frozenset()
    undo: tuple[tuple[str, str], ...] = ()

    def result_name(self, step_id: str, loop_index: int) -> str:
        """Name what a result is known by: the step, or the item of a loop."""
        return unit(step_id, loop_index) if step_id in self.loops else step_id


def compile_workflow(document: object, actions: Actions | None) -> Plan:
    """Read a workflow and work its order out.

    Args:
        document: The JSON value as sent or saved.
        actions: The catalogue to check against; None for a version that was checked at its save.

    Raises:
        InvalidInput: `invalid_workflow` with every problem and its place.
    """
    problems: list[Problem] = []
    workflow = read_workflow(document, actions, problems)
    plan = _plan(workflow, problems) if workflow is not None else None
    if plan is None or problems:
        raise invalid_workflow(problems)
    return plan


def _plan(workflow: Workflow, problems: list[Problem]) -> Plan:
    """Work the order out; unknown ids, cycles, and steps that can never run are problems."""
    steps = {step.id: step for step in workflow.steps}
    places = {step.id: f"steps[{index}]" for index, step in enumerate(workflow.steps)}
    noted = len(problems)
    branches = _branches(workflow, steps, places, problems)
    needs: dict[str, Needs] = {}
    previous: str | None = None
    for step in workflow.steps:
        needs[step.id] = Needs(
            _hard(step, previous, steps, branches), _soft(step, steps), branches.get(step.id)
        )
        problems.extend(_unknown(step, places[step.id], steps))
        if isinstance(step, ActionStep) and step.compensate is not None:
            problems.extend(_unknown(step.compensate, f"{places[step.id]}.compensate", steps))
        previous = step.id
    order: list[str] = []
    if len(problems) == noted and len(steps) == len(workflow.steps):
        order = _sort(needs, places, problems)
        problems.extend(_unreachable(needs, places, branches) if order else ())
    readers = {
        name: frozenset(other for other, need in needs.items() if name in need.soft)
        for name in steps
    }
    races = workflow.timeout_ms is not None or any(_races(step) for step in workflow.steps)
    loops = frozenset(name for name, step in steps.items() if isinstance(step, ForEachStep))
    undo = _undo(workflow, order)
    for step in undo.values():
        steps[step.id] = step
        readers[step.id] = frozenset()
        for name in _soft(step, readers):
            readers[name] |= {step.id}
    pairs = tuple((name, step.id) for name, step in undo.items())
    return Plan(workflow, steps, needs, tuple(order), readers, races, loops, pairs)


def _undo(workflow: Workflow, order: Sequence[str]) -> dict[str, ActionStep]:
    """Give what compensates each step that has something, the last step first."""
    found = {
        step.id: step.compensate
        for step in workflow.steps
        if isinstance(step, ActionStep) and step.compensate is not None
    }
    return {name: found[name] for name in reversed(order) if name in found}


def _races(step: Step) -> bool:
    if isinstance(step, WaitEventStep):
        return True
    action = step.body if isinstance(step, ForEachStep) else step
    return isinstance(action, ActionStep) and action.deadline_ms is not None


def _unreachable(
    needs: Mapping[str, Needs],
    places: Mapping[str, str],
    branches: Mapping[str, tuple[str, bool]],
) -> list[Problem]:
    """Find steps all of whose dependencies stand in a branch that excludes their own."""
    found = []
    for name, need in needs.items():
        own = _choices(name, branches)
        if need.hard and all(_exclude(own, _choices(dep, branches)) for dep in need.hard):
            found.append(
                Problem(
                    f"{places[name]}.depends_on",
                    f"can never run: {', '.join(need.hard)} run only when {name} does not",
                    "Depend on a step of the same branch, or leave depends_on out.",
                    "unreachable",
                )
            )
    return found


def _choices(name: str, branches: Mapping[str, tuple[str, bool]]) -> dict[str, bool]:
    """Say what every condition above a step has to be for it to run."""
    found: dict[str, bool] = {}
    while name in branches and branches[name][0] not in found:
        name, value = branches[name]
        found[name] = value
    return found


def _exclude(one: Mapping[str, bool], other: Mapping[str, bool]) -> bool:
    return any(other.get(name, value) != value for name, value in one.items())


def _branches(
    workflow: Workflow,
    steps: Mapping[str, Step],
    places: Mapping[str, str],
    problems: list[Problem],
) -> dict[str, tuple[str, bool]]:
    """Say of each step which condition names it, and under which value."""
    found: dict[str, tuple[str, bool]] = {}
    for step in workflow.steps:
        for arm, ids, value in _arms(step):
            for name in ids:
                place = f"{places[step.id]}.{arm}"
                if name not in steps:
                    problems.append(_no_such(place, name, steps))
                elif name in found:
                    problems.append(
                        Problem(place, f"{name} belongs to {found[name][0]} already", code="twice")
                    )
                else:
                    found[name] = (step.id, value)
    return found


def _hard(
    step: Step,
    previous: str | None,
    steps: Mapping[str, Step],
    branches: Mapping[str, tuple[str, bool]],
) -> tuple[str, ...]:
    if step.depends_on is not None:
        return tuple(name for name in step.depends_on if name in steps)
    if step.id in branches or previous is None:
        return ()
    return _whole_branching(previous, steps, branches, step.id)


def _whole_branching(
    previous: str,
    steps: Mapping[str, Step],
    branches: Mapping[str, tuple[str, bool]],
    follower: str,
) -> tuple[str, ...]:
    """List the step itself, or every member of the outermost branching that it belongs to."""
    root = previous
    seen = {root}
    while root in branches and branches[root][0] not in seen:
        root = branches[root][0]
        seen.add(root)
    members: dict[str, None] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop(0)
        if name in members or name not in steps or name == follower:
            continue
        members[name] = None
        waiting.extend(each for _, ids, _ in _arms(steps[name]) for each in ids)
    return tuple(members)


def _arms(step: Step) -> tuple[tuple[str, tuple[str, ...], bool], ...]:
    """List the branches of a step: field, ids, and the value under which they run."""
    if isinstance(step, ConditionStep | WaitEventStep):
        return (("then", step.then, True), ("else", step.otherwise, False))
    if isinstance(step, ActionStep | ForEachStep):
        return (("on_error", step.rescue, False),)
    return ()


def _soft(step: Step, steps: Container[str]) -> tuple[str, ...]:
    named = (reference.step for reference in step.references)
    return tuple(dict.fromkeys(name for name in named if name is not None and name in steps))


def _unknown(step: Step, place: str, steps: Mapping[str, Step]) -> list[Problem]:
    found = [
        _no_such(f"{place}.depends_on", name, steps)
        for name in step.depends_on or ()
        if name not in steps
    ]
    found.extend(
        _unknown_reference(place, reference, steps)
        for reference in step.references
        if reference.path[0] == "steps" and reference.step not in steps
    )
    return found


def _unknown_reference(place: str, reference: Reference, steps: Mapping[str, Step]) -> Problem:
    return Problem(
        place,
        f"{{{{{reference.source}}}}} reads a step that is not there",
        f"Steps: {', '.join(steps)}. Write {{{{steps.<id>.output.<field>}}}}.",
        "unknown_step",
    )


def _no_such(place: str, name: str, steps: Mapping[str, Step]) -> Problem:
    return Problem(
        place, f"there is no step {name!r}", f"Steps: {', '.join(steps)}.", "unknown_step"
    )


def _sort(
    needs: Mapping[str, Needs], places: Mapping[str, str], problems: list[Problem]
) -> list[str]:
    """Order the steps (Kahn); what is left over waits for itself."""
    order: list[str] = []
    settled: set[str] = set()
    left = dict(needs)
    while left:
        free = [name for name, need in left.items() if settled.issuperset(need.all)]
        if not free:
            break
        order.extend(free)
        settled.update(free)
        for name in free:
            del left[name]
    if left:
        circle = _circle(left)
        problems.append(
            Problem(
                f"{places[circle[0]]}.depends_on",
                f"waits for itself: {' → '.join(circle)}",
                "Take one of these dependencies (or a template that reads such a step) away.",
                "cycle",
            )
        )
    return order


def _circle(left: Mapping[str, Needs]) -> list[str]:
    """Walk from any step that is stuck along what it waits for until a step comes back."""
    path: list[str] = []
    name = next(iter(left))
    while name not in path:
        path.append(name)
        name = next(other for other in left[name].all if other in left)
    return [*path[path.index(name) :], name]
