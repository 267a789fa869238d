"""Jira's transitions, which are asked for by name and carried out by id."""

from collections.abc import Mapping
from typing import Any

from executors.core.action import Call, Steps
from executors.core.outcome import Rejected, Succeeded


def call_transition_issue(call: Call) -> Steps:
    """Find the transition of this name (or to this status) and carry it out.

    Ids of transitions differ by workflow and by the issue's present status, so a name is looked up
    each time.
    """
    params = call.params
    wanted = str(params["transition"]).strip()
    if not wanted.isdigit():
        first = call.other("list_transitions", {"issue": params["issue"]})
        outcome = first.outcome((yield first.request()))
        if not isinstance(outcome, Succeeded):
            return outcome
        listed = outcome.output.get("transitions") or ()
        offered = [item for item in listed if isinstance(item, dict) and "id" in item]
        found = _find(offered, wanted)
        if found is None:
            names = ", ".join(str(item.get("name")) for item in offered) or "none"
            return Rejected(
                status=outcome.status,
                code="no_such_transition",
                message=f"The issue has no transition {wanted!r} now; it has: {names}.",
            )
        wanted = found
    last = call.other("do_transition", {**params, "transition": wanted})
    return last.outcome((yield last.request()))


def _find(offered: list[dict[str, Any]], wanted: str) -> str | None:
    for item in offered:
        status = item.get("to")
        target = status.get("name") if isinstance(status, Mapping) else None
        if wanted.lower() in (str(item.get("name")).lower(), str(target).lower()):
            return str(item["id"])
    return None
