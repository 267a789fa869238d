"""From rows to the story of an execution: accepted, matched, started, each step, finished.

Steps that ran have a row each. Conditions and skipped steps have none: what became of them stands
in the execution's `outcome` once it is finished; until then they are `pending`. Those are told at
the time of the step before them in the workflow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.plan import compile_workflow
from schemas.topics import EVENTS

Row = Mapping[str, Any]
Entry = dict[str, Any]
RUNNING: Final = "running"
_TRUTH: Final = {"true": True, "false": False}
_PAUSES: Final = ("delay", "wait_event")
_UNFINISHED: Final = ("waiting", "ready")
_COPIED: Final = (
    *("step_id", "loop_index", "provider", "action", "status", "outcome", "error", "output"),
    *("output_cut", "vendor_id", "request", "response", "connection_id", "effect_key"),
    *("command_place", "result_place", "requested_at", "started_at", "finished_at"),
)


@dataclass(frozen=True, slots=True)
class Told:
    """A step as it is shown, and where it belongs in time."""

    at: datetime
    step: Entry


def milliseconds(start: datetime | None, end: datetime | None) -> float | None:
    """Give the time between two moments in milliseconds; None where one is not known."""
    if start is None or end is None:
        return None
    return round((end - start).total_seconds() * 1000, 3)


def timeline(
    execution: Row,
    rows: Sequence[Row],
    accepted: Row | None,
    declared: Mapping[str, Mapping[str, Any]],
    waiting: Sequence[Row] = (),
) -> list[Entry]:
    """Tell an execution from its event to its end.

    Args:
        execution: The execution's row.
        rows: The rows of its steps.
        accepted: The row of what became of its event.
        declared: `declared_steps` of its workflow version; empty where that is not known.
        waiting: The rows of steps that wait for a customer to connect again.

    Returns:
        Entries `{kind, at, place, …}` in the order of time; `step` entries hold the whole step.
    """
    entries = list(_beginning(execution, accepted))
    start = execution["started_at"] or execution["finished_at"]
    steps = [*_steps(execution, rows, declared, waiting, start)] if start is not None else []
    steps.sort(key=lambda told: told.at)  # stable: equal times keep the workflow's order
    entries += [_entry(told) for told in steps]
    if execution["finished_at"] is not None:
        entries.append(
            {
                "kind": "execution_finished",
                "at": execution["finished_at"],
                "place": execution["finished_place"],
                "status": execution["status"],
                "error": execution["error"],
            }
        )
    return entries


def _beginning(execution: Row, accepted: Row | None) -> Iterator[Entry]:
    if execution["event_offset"] is not None:
        told = accepted or {}
        yield {
            "kind": "event_accepted",
            "at": execution["event_time"],
            "place": {
                "topic": EVENTS,
                "partition": execution["event_partition"],
                "offset": execution["event_offset"],
            },
            "event_id": execution["event_id"],
            "event_type": told.get("event_type"),
            "subject": told.get("subject"),
        }
    if accepted is not None:
        outcome = {"outcome": accepted["outcome"], "reason": accepted["reason"]}
        yield {"kind": "event_outcome", "at": accepted["at"], "place": None, **outcome}
    if execution["started_at"] is not None:
        place = execution["started_place"]
        yield {"kind": "execution_started", "at": execution["started_at"], "place": place}


def _steps(
    execution: Row,
    rows: Sequence[Row],
    declared: Mapping[str, Mapping[str, Any]],
    waiting: Sequence[Row],
    start: datetime,
) -> Iterator[Told]:
    outcome: Mapping[str, Any] = execution["outcome"] or {}
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(row["step_id"], []).append(row)
    told_of = {(row["step_id"], row["loop_index"]) for row in rows}
    for row in waiting:
        place = (row["step_id"], row["loop_index"])
        if place not in told_of:
            by_id.setdefault(row["step_id"], []).append(row)
            told_of.add(place)
    names = dict.fromkeys((*declared, *outcome, *by_id))
    at = start
    for name in names:
        if name in by_id:
            for row in by_id[name]:
                at = row.get("requested_at") or row.get("at") or at
                yield Told(at, _told(row, declared.get(name, {})))
        else:
            told = outcome.get(name, {})
            yield Told(at, _did_not_run(name, declared.get(name, {}), told, execution["status"]))


def declared_steps(definition: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """List a saved workflow's steps as written, under their ids, also those that were derived."""
    steps = compile_workflow(definition, None).workflow.steps
    return {step.id: written for step, written in zip(steps, definition["steps"], strict=True)}


def _told(row: Row, declared: Mapping[str, Any]) -> Entry:
    if "parked_at" in row:
        return _waits(row)
    return _pauses(row, declared) if "until_at" in row else _ran(row, declared)


def _type(declared: Mapping[str, Any]) -> str:
    return str(declared["type"]) if declared.get("type") in _PAUSES else "action"


def _ran(row: Row, declared: Mapping[str, Any]) -> Entry:
    return {
        **{name: row[name] for name in _COPIED},
        "type": _type(declared),
        "attempts": row["attempts"] or [],
        "waited_ms": milliseconds(row["requested_at"], row["started_at"]),
        "duration_ms": milliseconds(row["started_at"], row["finished_at"]),
    }


def _waits(row: Row) -> Entry:
    copied = ("step_id", "loop_index", "provider", "action", "connection_id", "effect_key")
    return {
        **{name: row[name] for name in (*copied, "requested_at")},
        "type": "action",
        "status": "waiting",
        "reason": row["reason"],
        "error": {"code": row["reason"], "message": row["message"]},
        "waits_since": row["parked_at"],
        "waits_until": row["deadline"],
    }


def _pauses(row: Row, declared: Mapping[str, Any]) -> Entry:
    """Tell of a step that waits for a time, an event or its next attempt."""
    return {
        **{name: row[name] for name in ("step_id", "loop_index")},
        **{part: declared[part] for part in ("provider", "action") if part in declared},
        "type": _type(declared),
        "status": "waiting",
        "reason": row["kind"],
        "waits_since": row["at"],
        "waits_until": row["until_at"],
        "waits_for": row["detail"],
    }


def _did_not_run(
    name: str, declared: Mapping[str, Any], told: Mapping[str, Any], execution_status: str
) -> Entry:
    status = told.get("status", _UNFINISHED[0])
    is_condition = status in _TRUTH or "condition" in declared
    step: Entry = {"step_id": name, "type": "condition" if is_condition else _type(declared)}
    if not is_condition:
        step |= {part: declared[part] for part in ("provider", "action") if part in declared}
    if status in _TRUTH:
        step["condition"] = {
            "text": declared.get("condition"),
            "value": _TRUTH[status],
            "operands": told.get("operands"),
        }
        status = "succeeded"
    elif status in _UNFINISHED:
        status = "pending" if execution_status == RUNNING else "not_run"
    step["status"] = status
    step |= {part: told[part] for part in ("reason", "error") if part in told}
    return step


def _entry(told: Told) -> Entry:
    step = told.step
    ran = "result_place" in step
    kind = "condition" if step["type"] == "condition" else "step"
    at = told.at if ran or step["status"] != "pending" else None
    return {"kind": kind, "at": at, "place": step.get("result_place"), "step": step}
