"""When a connection is refreshed by the clock, and when again after a failure; pure.

With 3,600 s of life a token is refreshed after 2,700 to 2,880 s: 80 % at the latest, and those that
were made in one minute do not come in one minute. After failures the pauses are 1, 2, 4, 8 … 300 s,
each between half and the whole of it by chance.
"""

from typing import Final

from token_vault.core.grants import Held, due_at

# Of a token's life.
LATEST_PART: Final = 0.80
JITTER_PART: Final = 0.05
PAUSE_FIRST_S: Final = 1.0
PAUSE_MAX_S: Final = 300.0
_DOUBLINGS_MAX: Final = 20


def refresh_in_s(held: Held, roll: float) -> float | None:
    """Say in how many seconds from its making a token is to be refreshed.

    Args:
        held: A grant that was just made.
        roll: From 0 up to 1, by chance.

    Returns:
        Seconds; None where it cannot be refreshed or nobody knows its end.
    """
    if due_at(held) is None or held.expires_at is None:
        return None
    life = (held.expires_at - held.issued_at).total_seconds()
    return max(0.0, life * (LATEST_PART - JITTER_PART * roll))


def pause_s(failures: int, roll: float) -> float:
    """Say how long to wait after so many failures in a row.

    Args:
        failures: From 1.
        roll: From 0 up to 1, by chance: up to half of the pause goes.
    """
    whole = PAUSE_FIRST_S * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS_MAX)
    return float(min(whole, PAUSE_MAX_S) * (1 - roll / 2))
