"""Pace: what a new job will wait for."""

from __future__ import annotations

import pytest

from backlane.model.pressure.pace import NEVER_MS, Pace


@pytest.mark.parametrize("speed", [0.0, 5e-324, 1e-300])
def test_a_line_that_stands_is_waited_for_without_end(speed: float) -> None:
    """The rate of workers that hang decays towards 0, and a division by it overflowed."""
    pace = Pace((speed,) * 10, slots=1)

    assert pace.expected_ms(5, ahead=3, running=1) == NEVER_MS
    assert pace.expected_ms(5, ahead=0, running=0) == 0
    assert not pace.can_fit(3, 10_000) or speed == 0
