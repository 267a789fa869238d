"""Replays: what may be asked for, what stays of an execution, how two dry ones differ; pure.

Kinds, and what they call:
    dry      nobody: answers come from recordings, and what would be called is told
    repair   what is not recorded as done; under the same effect keys
    force    everything, or everything from a step on; under new effect keys
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.plan import Plan

Kind = Literal["dry", "repair", "force"]
Report = Mapping[str, Any]

CHANGES_MAX: Final = 50  # places of one request that a difference lists
ENDED: Final = ("finished", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Change:
    """How one step of two runs differs.

    Attributes:
        kind: `branch` (a condition decided otherwise), `status` (it runs in one of them only, or
            ends otherwise) or `request` (what is asked of the vendor).
        paths: Of a request: where it differs, `config.text` as a path.
    """

    step: str
    kind: str
    before: Any
    after: Any
    paths: tuple[str, ...] = ()


def from_on(plan: Plan, step: str) -> frozenset[str]:
    """List a step and all that comes after it."""
    found = {step}
    for name in plan.order:
        if any(other in found for other in plan.needs[name].all):
            found.add(name)
    return frozenset(found)


def step_of(name: str) -> str:
    """Give the step that a result belongs to: itself, or the loop of an item."""
    return name.partition("#")[0]


def differences(before: Report, after: Report) -> list[Change]:
    """Tell how two reports of dry runs differ, step by step."""
    one, two = before.get("steps", {}), after.get("steps", {})
    found: list[Change] = []
    for name in dict.fromkeys((*one, *two)):
        found += _step(name, one.get(name), two.get(name))
    if before.get("status") != after.get("status"):
        found.append(Change("", "status", before.get("status"), after.get("status")))
    return found


def _step(name: str, one: Report | None, two: Report | None) -> Iterator[Change]:
    before = one["status"] if one else None
    after = two["status"] if two else None
    if before != after:
        chosen = {"true", "false"}
        kind = "branch" if {before, after} <= chosen else "status"
        yield Change(name, kind, before, after)
    asked, now = _request(one), _request(two)
    if asked is not None and now is not None and asked != now:
        paths = tuple(_paths(asked, now, ""))[:CHANGES_MAX]
        yield Change(name, "request", asked, now, paths)


def _request(step: Report | None) -> dict[str, Any] | None:
    if step is None or "request" not in step:
        return None
    return {name: step.get(name) for name in ("provider", "action", "user", "request")}


def _paths(one: object, two: object, at: str) -> Iterator[str]:
    """Give the places at which two JSON values differ."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for name in dict.fromkeys((*one, *two)):
            yield from _paths(one.get(name), two.get(name), f"{at}.{name}" if at else str(name))
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (left, right) in enumerate(zip(one, two, strict=True)):
            yield from _paths(left, right, f"{at}[{index}]")
    elif one != two:
        yield at
