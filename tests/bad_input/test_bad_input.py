"""Whatever is passed in wrongly is refused by name, with what to do, and nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bad_input import calls, files, options, stored
from tests.bad_input.book import Bad, World, refusal

from backlane import Backlane, State

AT_LEAST = 300

AT_THE_DOOR = [*options.cases(), *calls.cases(), *files.cases()]
IN_THE_STORE = [*stored.cases()]
CASES = [*AT_THE_DOOR, *IN_THE_STORE]


@pytest.fixture(params=["memory://"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    app = Backlane(request.param.format(tmp_path))

    @app.task(name="good")
    def good(x: int) -> int:
        return x

    with app:
        yield World(app, good, tmp_path)


@pytest.mark.parametrize("bad", AT_THE_DOOR, ids=[bad.what for bad in AT_THE_DOOR])
def test_bad_input_is_refused_with_a_remedy_and_work_goes_on(bad: Bad, world: World):
    refusal(bad, world)

    assert world.good.enqueue(1).state is State.READY


@pytest.mark.parametrize("world", ["memory://", "sqlite:///{}/jobs.db"], indirect=True)
@pytest.mark.parametrize("bad", IN_THE_STORE, ids=[bad.what for bad in IN_THE_STORE])
def test_what_a_worker_cannot_run_becomes_a_dead_letter_and_the_worker_lives_on(
    bad: Bad, world: World
):
    refusal(bad, world)

    job = world.good.enqueue(1)
    stored.work(world.app)
    assert job.result(timeout=0) == 1


def test_there_are_enough_cases_to_mean_something():
    print(f"bad input: {len(CASES)} cases")

    assert len(CASES) >= AT_LEAST
    assert len({bad.what for bad in CASES}) == len(CASES)
