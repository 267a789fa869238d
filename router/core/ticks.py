"""Which times of a schedule start its workflow, where some have passed."""

from schemas.cron import Cron

ON_TIME_US = 60_000_000  # so late, a time still counts as kept: a router was restarted
CATCH_UP_MAX = 100  # times that are made up for under `all`; earlier ones are left out


def due_ticks(cron: Cron, catch_up: str, since_us: int, now_us: int) -> list[int]:
    """Give the times from `since_us` to `now_us` that start the workflow, the first one first.

    Args:
        cron: When it is due.
        catch_up: What is done about times over a minute ago: none, last or all.
        since_us: The first time that was not handled yet: UTC, microseconds.
        now_us: UTC, microseconds.
    """
    bound = {"none": 0, "last": 1, "all": CATCH_UP_MAX}[catch_up]
    found: list[int] = []
    missed = 0
    for tick in cron.before(now_us):
        if tick < since_us:
            break
        if now_us - tick > ON_TIME_US:
            # One that is made up for is enough under `last`, and none where a later one was kept.
            missed += 1
            if missed > bound or (catch_up == "last" and found):
                break
        found.append(tick)
    return found[::-1]


def is_in_force(cron: Cron, due_us: int, now_us: int) -> bool:
    """Say whether a timer that waits is the schedule's next time, or one that was missed."""
    following = cron.after(now_us)
    return cron.has(due_us) and (following is None or due_us <= following)
