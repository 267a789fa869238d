"""What each plan may have, and what a workspace may set for itself within it."""

from collections.abc import Mapping
from typing import Any, Final

from schemas.errors import Forbidden, InvalidInput, Problem
from schemas.quotas import PLANS

# How long steps wait for a customer to connect again; as long as the log keeps their events.
PARK_HOURS_DEFAULT: Final = 72
PARK_HOURS_MAX: Final = 720
BOUNDED: Final = ("max_workflows", "max_executions_per_month", "retention_days")


def effective(plan: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Give all settings of a workspace: its own where it chose, its plan's elsewhere."""
    bounds = PLANS[plan]
    park = chosen.get("park_for_hours")
    return {
        "allow_client_integrations": bool(chosen.get("allow_client_integrations", False)),
        **{name: chosen.get(name) or getattr(bounds, name) for name in BOUNDED},
        "park_for_hours": PARK_HOURS_DEFAULT if park is None else park,
        "custom_domains": list(chosen.get("custom_domains") or ()),
    }


def check_settings(plan: str, chosen: Mapping[str, Any]) -> None:
    """Refuse settings beyond the plan.

    Raises:
        InvalidInput: `over_plan`, with each place.
    """
    bounds = PLANS[plan]
    problems = [
        Problem(
            f"settings.{name}",
            f"may be at most {getattr(bounds, name)} on the plan {plan}",
            "Choose less, or null for the plan's own bound.",
            "over_plan",
        )
        for name in BOUNDED
        if (chosen.get(name) or 0) > getattr(bounds, name)
    ]
    if problems:
        raise InvalidInput(
            f"The plan {plan} does not go that far: {problems[0].place} {problems[0].message}.",
            problems=problems,
            code="over_plan",
        )


def check_workflows(plan: str, chosen: Mapping[str, Any], existing: int) -> None:
    """Refuse one more workflow where the bound is reached.

    Raises:
        Forbidden: `workflow_limit_reached`.
    """
    bound = effective(plan, chosen)["max_workflows"]
    if existing >= bound:
        raise Forbidden(
            f"This workspace has {existing} workflows and may have {bound} (plan {plan}): delete"
            " one, raise settings.max_workflows or change the plan.",
            code="workflow_limit_reached",
        )
