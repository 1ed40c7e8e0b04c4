"""Whatever is passed in wrongly is refused by name, with what to do, and nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bad_input import calls, options
from tests.bad_input.book import Bad, World, refusal

from backlane import Backlane, State

AT_LEAST = 300

CASES = [*options.cases(), *calls.cases()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    app = Backlane("memory://")

    @app.task(name="good")
    def good(x: int) -> int:
        return x

    with app:
        yield World(app, good, tmp_path)


@pytest.mark.parametrize("bad", CASES, ids=[bad.what for bad in CASES])
def test_bad_input_is_refused_with_a_remedy_and_work_goes_on(bad: Bad, world: World):
    refusal(bad, world)

    assert world.good.enqueue(1).state is State.READY


def test_there_are_enough_cases_to_mean_something():
    print(f"bad input: {len(CASES)} cases")

    assert len(CASES) >= AT_LEAST
    assert len({bad.what for bad in CASES}) == len(CASES)
