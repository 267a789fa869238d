"""When tokens are refreshed by the clock, as numbers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.settings import Secret
from token_vault.core.grants import Held, from_stored, merged, to_stored
from token_vault.core.schedule import pause_s, refresh_in_s

NOW = datetime(2026, 1, 31, tzinfo=UTC)
HELD = Held(Secret("a1"), Secret("r1"), NOW, NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("life_s", "roll", "seconds"),
    [(3_600, 0.0, 2_880), (3_600, 1.0, 2_700), (86_400, 0.5, 66_960), (1, 0.0, 0.8)],
)
def test_refresh_comes_at_80_percent_of_the_life_at_the_latest(life_s, roll, seconds):
    held = replace(HELD, expires_at=NOW + timedelta(seconds=life_s))
    assert refresh_in_s(held, roll) == pytest.approx(seconds)


def test_what_cannot_be_refreshed_or_has_no_end_is_not_scheduled():
    assert refresh_in_s(replace(HELD, expires_at=None), 0.5) is None
    assert refresh_in_s(replace(HELD, refresh_token=None), 0.5) is None


@pytest.mark.parametrize(
    ("failures", "roll", "seconds"),
    [(1, 0, 1), (2, 0, 2), (5, 0, 16), (5, 1, 8), (9, 0, 256), (10, 0, 300), (10_000, 0, 300)],
)
def test_pauses_after_failures_double_up_to_five_minutes(failures, roll, seconds):
    assert pause_s(failures, roll) == seconds


def test_rotated_refresh_token_is_kept_beside_the_new_one():
    new = Held(Secret("a2"), Secret("r2"), NOW, None)
    assert merged(HELD, new).previous == Secret("r1")
    assert from_stored(to_stored(merged(HELD, new))).previous == Secret("r1")
    assert merged(HELD, replace(new, refresh_token=None)).previous is None
    assert merged(HELD, replace(new, refresh_token=Secret("r1"))).previous is None
    assert "r1" not in repr(merged(HELD, new))
