"""Whatever is passed in wrongly is refused by name, with what to do, and nothing breaks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bad_input import calls, commands, files, limiting, options, stored, workers
from tests.bad_input.book import Bad, World, refusal

from backlane import Backlane, JobFailed, Reason, State
from backlane.engine import sqlite
from backlane.worker import Worker

AT_LEAST = 300

AT_THE_DOOR = [
    *options.cases(),
    *calls.cases(),
    *files.cases(),
    *workers.cases(),
    *commands.cases(),
    *limiting.cases(),
]
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


@pytest.mark.filterwarnings("ignore:enqueue .* inside a running event loop:RuntimeWarning")
@pytest.mark.parametrize("bad", AT_THE_DOOR, ids=[bad.name for bad in AT_THE_DOOR])
def test_bad_input_is_refused_with_a_remedy_and_work_goes_on(bad: Bad, world: World):
    refusal(bad, world)

    assert world.good.enqueue(1).state is State.READY


@pytest.mark.parametrize("world", ["memory://", "sqlite:///{}/jobs.db"], indirect=True)
@pytest.mark.parametrize("bad", IN_THE_STORE, ids=[bad.name for bad in IN_THE_STORE])
def test_what_a_worker_cannot_run_becomes_a_dead_letter_and_the_worker_lives_on(
    bad: Bad, world: World
):
    refusal(bad, world)

    job = world.good.enqueue(1)
    stored.work(world.app)
    assert job.result(timeout=0) == 1


@pytest.mark.parametrize("world", ["sqlite:///{}/jobs.db"], indirect=True)
def test_a_running_worker_passes_every_bad_body_and_runs_what_is_good(world: World):
    spoilt = [stored.put(world, body) for body in stored.BODIES.values()]
    good = [world.good.enqueue(x) for x in range(20)]

    with Worker(world.app, concurrency=4, grace=1):
        results = [job.result(timeout=30) for job in good]
        for job in spoilt:
            with pytest.raises(JobFailed):
                job.result(timeout=30)

    assert results == list(range(20))
    assert {job.record().reason for job in spoilt} == {Reason.UNDECODABLE}
    assert [job.record().body for job in spoilt] == list(stored.BODIES.values())


SCHEMA = Path(sqlite.__file__).parent / "schema"
MIGRATES = """
import sys
from backlane import Backlane
with Backlane(sys.argv[1]) as app:
    sys.stdin.read(1)
    print(len(app.engine.migrate()), app.messages("orders").send(b"x"))
"""


def test_migrations_at_once_are_applied_once(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    command = [sys.executable, "-c", MIGRATES, url]
    pipe = subprocess.PIPE

    racing = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for process in racing:
        process.stdin.write("!")  # all wait for this, imported and not yet open
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].split() for process in racing]

    assert [process.returncode for process in racing] == [0] * 4
    assert sum(int(applied) for applied, _ in said) == len(list(SCHEMA.glob("*.sql")))
    assert len({message for _, message in said}) == 4
    with Backlane(url) as app:
        assert len(app.messages("orders").receive(max=10)) == 4


def test_there_are_enough_cases_to_mean_something():
    print(f"bad input: {len(CASES)} cases")

    assert len(CASES) >= AT_LEAST
    assert len({bad.what for bad in CASES}) == len(CASES)
