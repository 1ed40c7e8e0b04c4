"""Two workers whose clocks are ten minutes apart: only the store's clock decides."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import Fleet, fleet, wait_until
from tests.faults.history import judge, read_diary
from tests.faults.producer import Producer
from tests.faults.stores import POSTGRES, REDIS, Kind

from backlane import State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SKEWS = (-300, 300)
RATE = 60.0
DELAY = 2.0
JOBS = 20


def test_the_clock_is_wrong_and_sleeps_are_not(wrong_clock: Path) -> None:
    code = (
        "import time; a = time.monotonic(); time.sleep(.2); print(time.time(), time.monotonic()-a)"
    )
    surroundings = {"LD_PRELOAD": str(wrong_clock), "SKEW_SECONDS": "300"}

    said = subprocess.run(
        [sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True
    )
    wall, slept = map(float, said.stdout.split())

    assert 299 < wall - time.time() < 301
    assert 0.2 <= slept < 2


@pytest.mark.parametrize("kind", [POSTGRES, REDIS], ids=lambda kind: kind.name)
def test_workers_ten_minutes_apart_agree_on_what_is_due_and_whose_it_is(
    kind: Kind,
    wrong_clock: Path,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    with (
        kind.opened(tmp_path) as store,
        fleet(tmp_path, 0, store=store.url, lease=kind.lease) as workers,
    ):
        for skew in SKEWS:
            workers.start(LD_PRELOAD=str(wrong_clock), SKEW_SECONDS=str(skew))
        producer = Producer(diarist(store.url), workers.diary, chance, RATE)
        producer.enqueue()
        wait_until(producer.is_drained, 20, "a first job is done")
        late = _begin_delayed(producer, workers)
        producer.start()
        time.sleep(60.0 if proving else 5.0)
        producer.stop()
        wait_until(producer.is_drained, 60, "all jobs are done")
        diary = read_diary(workers.diary)
        verdict = judge(producer.calls, producer.finished(), diary, [])
        begun = [(diary[job][0].began - sent) / 1e9 for job, sent in late.items()]
        states = {record.state for record in producer.records()}
        pids = {it.pid for attempts in diary.values() for it in attempts}
        producer.work.app.close()

    told = f"{kind.name}: delays of {DELAY} s took {min(begun):.2f} to {max(begun):.2f} s {verdict}"
    record_property("figure", told)
    assert states == {State.SUCCEEDED}
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]
    assert verdict.repeated == 0
    assert len(pids) > 2, "one of the workers had nothing to do"
    assert min(begun) >= DELAY - 0.05
    assert max(begun) <= DELAY + (1.0 if proving else 5.0)


def _begin_delayed(producer: Producer, workers: Fleet) -> dict[str, int]:
    """Enqueue jobs for later that expire soon after; return when each was sent."""
    task = producer.work.in_loop.using(delay=DELAY, expires=60)
    sent: dict[str, int] = {}
    for _ in range(JOBS):
        began = time.monotonic_ns()
        job = task.enqueue(20, str(workers.diary)).id.hex
        sent[job] = began
        producer.calls.acknowledged[job] = began
    return sent
