"""A live system is moved while the mover is killed at any moment: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from tests.engine.contract import engines
from tests.faults.diarist import Diarist, diarist
from tests.faults.fleet import fleet, wait_until
from tests.faults.history import Verdict, judge, read_diary
from tests.faults.producer import Producer

from backlane.model.clock import SystemClock
from backlane.model.ids import new_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

RATE = 100.0  # jobs a second, of a few milliseconds
LIFE = (0.15, 0.6)  # seconds until a mover is killed: from its first step to behind its last
PATIENCE = (
    0.005  # seconds more for the square of those killed: a busy machine takes many times longer
)
BACKLOG = 800  # jobs that are scheduled for later, so that there is something to hand over
GIVE_UP = 60  # movers, the last of which is left alone
MOST_MOVES = 40  # there and back: a quick machine ends some of them before they are killed


@pytest.mark.parametrize(
    ("begin", "end"), [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "redis")]
)
def test_a_mover_killed_at_any_moment_loses_and_repeats_nothing(  # long: a story of one piece
    begin: str,
    end: str,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    """Producers and workers are live on both sides, and the way leads there and back."""
    with (
        store(begin, tmp_path / "old") as old,
        store(end, tmp_path / "new") as new,
        fleet(tmp_path, 1, store=old) as here,
        fleet(tmp_path, 1, store=new),
    ):
        begun, kills = diarist(old), 0
        ways, wanted = (31, 20) if proving else (3, 3)
        producer = Producer(begun, here.diary, chance, RATE, shortest=1, longest=20)
        producer.enqueue()
        wait_until(producer.is_drained, 20, "a first job is done")
        _lay_up(begun, producer)
        producer.start()
        for number, (source, target) in enumerate(cycle(((old, new), (new, old))), start=1):
            kills += _move_under_fire(source, target, chance)
            moved = diarist(target)
            producer.work, before = moved, producer.work
            before.app.close()
            if (number >= ways and kills >= wanted) or number == MOST_MOVES:
                break
        time.sleep(0.5)
        producer.stop()
        wait_until(producer.is_drained, 60, "all jobs are done at the end of the way")
        verdict = _judged(producer, [begun.app.url, old, new])
        producer.work.app.close()

    record_property("figure", f"movers killed={kills} {verdict}")
    print(f"movers killed={kills} {verdict}")
    assert kills >= wanted
    assert not verdict.lost, verdict.lost[:5]
    assert not verdict.overlaps, verdict.overlaps[:5]
    assert not verdict.unexplained, verdict.unexplained[:5]


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """Lend an empty store."""
    folder.mkdir()
    (maker,) = [it for it in engines.MAKERS if it.name == kind]
    with maker.place(folder, SystemClock()) as url:
        yield url


def _lay_up(work: Diarist, producer: Producer) -> None:
    """Schedule jobs that become due while the store is moved."""
    for _ in range(BACKLOG):
        job = new_id(SystemClock().wall_ms())
        delay = producer.chance.uniform(2.0, 10.0)
        task = work.in_loop.using(id=uuid.UUID(bytes=job), delay=delay)
        task.enqueue(1, str(producer.diary))
        producer.calls.acknowledged[job.hex()] = time.monotonic_ns()


def _move_under_fire(source: str, target: str, chance: random.Random) -> int:
    """Run the command until it ends by itself; return how many were killed before that."""
    command = [sys.executable, "-m", "backlane", "move", source, target]
    for kills in range(GIVE_UP):
        mover = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said, _ = mover.communicate(timeout=chance.uniform(*LIFE) + kills**2 * PATIENCE)
        except subprocess.TimeoutExpired:
            os.kill(mover.pid, signal.SIGKILL)
            mover.communicate()
            continue
        assert mover.returncode == 0, said.decode()
        return kills
    raise AssertionError(f"{GIVE_UP} movers were killed, and none had ended before")


def _judged(producer: Producer, stores: list[str]) -> Verdict:
    """Judge by what all stores together say: history stays where it was made."""
    finished: set[str] = set()
    for url in dict.fromkeys(stores):
        producer.work, before = diarist(url), producer.work
        finished |= producer.finished()
        producer.work.app.close()
        producer.work = before
    return judge(producer.calls, finished, read_diary(producer.diary), [])
