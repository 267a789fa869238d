"""What each plan may have; read by whoever enforces a part of it.

control      workflows, executions per month, how long executions are shown
ingest       executions per month, before an event is accepted
executors    calls at a time, and the share of a busy executor
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Plan:
    """Bounds of a plan.

    Attributes:
        max_workflows: Workflows of one mode.
        max_executions_per_month: Both modes together; months are of the calendar, UTC.
        retention_days: How long executions are shown.
        concurrency: Calls to vendors at a time, of all end customers together, in each executor.
        customer_concurrency: Of these, by one end customer.
        weight: Steps in a row when its turn comes in a busy executor.
    """

    max_workflows: int
    max_executions_per_month: int
    retention_days: int
    concurrency: int
    customer_concurrency: int
    weight: int


PLANS: Final = {
    "free": Plan(20, 10_000, 7, 25, 10, 1),
    "professional": Plan(500, 1_000_000, 30, 100, 25, 2),
    "enterprise": Plan(10_000, 100_000_000, 90, 500, 100, 4),
}
SMALLEST: Final = PLANS["free"]
