"""Where a `for_each` stands: which items to begin, and what the whole gives.

An item is known by `step#index`. Its result does not ride in commands but is remembered, so the
size of a record does not grow with the list (ADR 0014). Which items are under way
follows from the results alone:

    stop               items below (the first that is open + max_parallel), and none from (the first
                       that failed + max_parallel) on: the same ones run, whatever comes in first
    continue, ignore   the first max_parallel that are open
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from msgspec.structs import replace

from router.core.standing import FAILED, READY, SUCCEEDED, StepState, failed
from router.core.state import StepResult
from schemas.loops import IGNORE, ITEMS_MAX, STOP, ForEachStep, unit
from schemas.plan import Plan
from schemas.template import Lookup, Reference, TemplateError, render, walk

OUTPUTS_BYTES_MAX = 2 * 1024 * 1024  # of all items together: the list rides in later commands

Begin = Callable[[Lookup, int], StepState]


def for_each(
    step: ForEachStep, results: Mapping[str, StepResult], lookup: Lookup, begin: Begin
) -> StepState:
    """Say where a loop stands.

    Args:
        step: The loop.
        results: All that is known of the execution.
        lookup: Gives what a template outside of the loop would read.
        begin: Makes the command of an item, or its failure, of the item's look-up and its index.
    """
    items = _items(step, lookup)
    if isinstance(items, StepState):
        return items
    ended: list[StepResult] = []
    ready: dict[str, StepState] = {}
    limit = len(items)
    for index, item in enumerate(items):
        if index >= limit or len(ready) == step.max_parallel:
            break
        result = results.get(unit(step.id, index))
        if result is None:
            state = begin(_inside(lookup, item, index, len(items)), index)
            if state.result is None:
                if step.on_item_error == STOP and not ready:
                    limit = min(limit, index + step.max_parallel)
                ready[unit(step.id, index)] = state
                continue
            result = state.result
        if step.on_item_error == STOP and result.status == FAILED:
            limit = min(limit, index + step.max_parallel)
        ended.append(result)
    if ready:
        return StepState(READY, items=ready, size=len(items))
    return _ended(step, ended, len(items))


def _items(step: ForEachStep, lookup: Lookup) -> list[Any] | StepState:
    try:
        items = render(step.items, lookup)
    except TemplateError as error:
        return failed(error.code, f"{step.id}: {error}")
    if not isinstance(items, list):
        kind = type(items).__name__
        return failed("not_a_list", f"{step.id}: items is no list but of type {kind}.")
    if len(items) > ITEMS_MAX:
        return failed("too_many_items", f"{step.id}: {len(items)} items; {ITEMS_MAX} are possible.")
    return items


def _inside(lookup: Lookup, item: object, index: int, count: int) -> Lookup:
    loop = {"index": index, "count": count}

    def look(reference: Reference) -> Any:  # noqa: ANN401 - any JSON value
        path = reference.path
        if path[0] == "item":
            return walk(item, path[1:])
        if path[0] == "loop" and path[1:2] and path[1] in loop:
            return walk(loop, path[1:])
        return lookup(reference)

    return look


def _ended(step: ForEachStep, ended: Sequence[StepResult], count: int) -> StepState:
    """Put the whole together; items that were not begun give null."""
    bad = [index for index, result in enumerate(ended) if result.status == FAILED]
    output = [_item_output(kept(result, count)) for result in ended]
    output += [None] * (count - len(ended))
    status, error = SUCCEEDED, None
    if bad and step.on_item_error != IGNORE:
        first = ended[bad[0]].error or {}
        said = first.get("message", "It failed.")
        text = f"{len(bad)} of {count} items failed; the first, item {bad[0]}: {said}"
        status, error = FAILED, {"code": "items_failed", "message": text}
    counts = (count, len(ended) - len(bad), len(bad))
    return StepState(status, result=StepResult(status, output, error, counts=counts), size=count)


def _item_output(result: StepResult) -> object:
    if result.status == FAILED:
        error = result.error or {}
        return {"error": {name: error.get(name, "") for name in ("code", "message")}}
    return result.output


def kept(result: StepResult, count: int) -> StepResult:
    """Cut what an item gave to its share of what may ride along."""
    if result.output is None or len(orjson.dumps(result.output)) <= OUTPUTS_BYTES_MAX // count:
        return result
    return replace(result, output=None)


def to_remember(
    plan: Plan, news: Mapping[str, StepResult], states: Mapping[str, StepState]
) -> Mapping[str, StepResult]:
    """Say what to remember of results: of an item only what the list will hold."""
    if not plan.loops:
        return news
    return {name: _item_kept(plan, name, result, states) for name, result in news.items()}


def _item_kept(
    plan: Plan, name: str, result: StepResult, states: Mapping[str, StepState]
) -> StepResult:
    step_id, mark, _ = name.partition("#")
    if not mark or step_id not in plan.loops:
        return result
    if not plan.readers[step_id]:
        return replace(result, output=None)
    return kept(result, max(states[step_id].size, 1))
