"""The play when something goes wrong: it ends, says what, and its account does not hold."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from backlane import Backlane
from backlane.demo import play
from backlane.demo.application import TARGET
from backlane.demo.play import Moment, Play
from backlane.engine.connect import connect
from backlane.engine.protocol import Declare, Tune
from backlane.model.clock import SystemClock
from backlane.model.queue import Bounds, Kind

WORKER = [sys.executable, "-m", "backlane", "worker", TARGET]
BRIEF = [*WORKER, "--lease", "5"]  # on Redis a killed worker's jobs run again when it ends


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    sources = tmp_path / "sources"
    sources.mkdir()
    for number in range(4):
        (sources / f"module_{number}.py").write_text("x = 1\n")
    return [str(path) for path in sorted(sources.iterdir())]


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    made = tmp_path / "a directory with 100% odd signs?"
    made.mkdir()
    return made


def ignored(moment: Moment) -> None:
    """Show nothing."""


def greet() -> None:
    """Do what the workers of the demo know nothing of."""


def test_workers_that_end_by_themselves_are_told_with_their_last_words(paths, stage):
    broken = [sys.executable, "-c", "raise SystemExit('no such thing')"]

    ending = Play(paths, stage, broken, ignored).run(top=3)

    assert not ending.account.holds
    assert ending.account.lost == 4
    first = ending.account.faults[0]  # whichever of them ended first
    assert re.fullmatch(r"worker-\d ended by itself, status 1: no such thing", first)


def test_workers_that_do_nothing_do_not_hold_it_up_for_ever(paths, stage, monkeypatch):
    monkeypatch.setattr(play, "STALL_SECONDS", 1.0)
    idle = [sys.executable, "-c", "import time; time.sleep(60)"]

    ending = Play(paths, stage, idle, ignored).run(top=3)

    assert not ending.account.holds
    assert ending.account.faults[0] == "no job ran for 1 s"
    assert (ending.account.jobs, ending.account.done) == (4, 0)


def test_a_queue_smaller_than_the_work_makes_the_play_wait_and_not_fail(paths, stage, monkeypatch):
    monkeypatch.setattr(play, "BATCH", 1)
    playing = Play(paths, stage, WORKER, ignored)
    with closing(connect(f"sqlite:///{quote(str(stage / 'demo.db'))}", SystemClock())) as engine:
        engine.run(engine.tune("files", Declare(Kind.TASKS, Bounds())))
        engine.run(engine.tune("files", Tune(max_jobs=2)))

    ending = playing.run(top=3)

    assert ending.account.holds, ending.account.faults


def test_each_moment_is_shown_and_the_worker_is_killed_once(paths, stage):
    moments: list[Moment] = []

    ending = Play(paths, stage, WORKER, moments.append).run(top=3)

    assert ending.account.holds, ending.account.faults
    assert ending.account.workers_killed == 1
    assert moments[0].done == 0
    assert moments[-1].done == 5  # and the one that gathers
    assert ending.index.names == [("x", 4)]


def test_on_a_store_of_the_users_it_keeps_to_a_queue_of_its_own(paths, stage, shared_url):
    endings = [Play(paths, stage, BRIEF, ignored, shared_url).run(top=3) for _ in range(2)]

    assert [(it.account.holds, it.account.done) for it in endings] == [(True, 4), (True, 4)]


def test_jobs_of_the_user_are_left_where_they_are(paths, stage, shared_url):
    """The demo's workers took jobs of `default`, whose tasks they do not know."""
    with closing(Backlane(shared_url)) as app:
        app.engine.migrate()
        job = app.task(greet).enqueue()

        Play(paths, stage, BRIEF, ignored, shared_url).run(top=3)

        assert (job.state, job.record().token) == ("ready", 0), "nobody has claimed it"
