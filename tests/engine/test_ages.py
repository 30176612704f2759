"""How long ago a file was written, by a clock that is set now and then."""

from __future__ import annotations

import pytest

from p2psync.engine.ages import Ages
from p2psync.engine.settle import QUIET

S = 1_000_000_000
YEARS = 315_360_000 * S


def test_an_age_is_what_the_clock_says() -> None:
    ages = Ages()
    assert ages.age(100 * S, 103 * S, 50.0) == 3.0
    assert ages.age(100 * S, 105 * S, 52.1) == 5.0, "drifting is no step"
    assert ages.age(200 * S, 105 * S, 52.1) == -95.0


@pytest.mark.parametrize("step", [YEARS, -YEARS, S])
def test_right_after_the_clock_was_set_everything_was_just_written(step: int) -> None:
    ages = Ages()
    ages.age(0, 1000 * S, 10.0)
    assert ages.age(1000 * S, 1000 * S + step, 10.0) == 0.0
    assert ages.age(1000 * S, 1000 * S + step + int((QUIET - 0.1) * S), 10.0 + QUIET - 0.1) == 0.0
    later = QUIET + 0.1
    assert ages.age(1000 * S + step, 1000 * S + step + int(later * S), 10.0 + later) == pytest.approx(later)
