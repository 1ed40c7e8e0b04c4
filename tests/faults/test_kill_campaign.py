"""Kill -9 of any worker at any moment: nothing lost, nothing twice at once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import Fleet, fleet, wait_until
from tests.faults.history import Verdict, count_hits, judge, percentile, read_diary
from tests.faults.producer import Producer
from tests.faults.stores import (
    POSTGRES,
    RABBITMQ_POSTGRES,
    RABBITMQ_SQLITE,
    REDIS,
    SQLITE,
    SQS_POSTGRES,
    SQS_SQLITE,
    Kind,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

WORKERS = 3
RATE = 140.0  # jobs/s of 110 ms on average: fifteen run at a time, so that most kills hit some


KINDS = [SQLITE, POSTGRES, REDIS, RABBITMQ_SQLITE]
if os.environ.get("BACKLANE_PROVE") == "1":
    KINDS += [RABBITMQ_POSTGRES, SQS_SQLITE, SQS_POSTGRES]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_kill_loses_a_job_or_runs_it_twice_at_once(
    kind: Kind,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    seconds, hits = (125.0, 100) if proving else (7.0, 2)

    with (
        kind.opened(tmp_path) as store,
        fleet(tmp_path, WORKERS, store=store.url, lease=kind.lease) as workers,
    ):
        time.sleep(kind.settles if proving else 0.0)
        verdict = _campaign(workers, chance, seconds, hits, kind.drain)

    record_property("figure", f"{kind.name}: {verdict}")
    print(verdict)
    assert verdict.hits >= hits, f"the campaign hit too little: {verdict}"
    assert not verdict.lost, verdict.lost[:5]
    assert not verdict.overlaps, verdict.overlaps[:5]
    assert not verdict.unexplained, verdict.unexplained[:5]
    # The promise is for a machine of one's own: beside other work the start of a process
    # alone may take seconds.
    assert percentile(verdict.recoveries, 99) <= (kind.recovery if proving else 15.0), verdict


def _campaign(
    workers: Fleet, chance: random.Random, seconds: float, hits: int, drain: float
) -> Verdict:
    """Enqueue, kill one process a second, mend, drain, judge."""
    work = diarist(workers.url)
    producer = Producer(work, workers.diary, chance, RATE)
    producer.enqueue()
    wait_until(producer.is_drained, 20, "a first job is done")
    producer.start()
    began = time.monotonic()
    while (ran := time.monotonic() - began) < 2 * seconds:
        time.sleep(1.0)
        workers.kill_one(chance)
        workers.mend()
        if ran >= seconds and count_hits(read_diary(workers.diary), workers.kills) >= hits:
            break
    producer.stop()
    wait_until(producer.is_drained, drain, "all jobs are done after the last kill")
    verdict = judge(producer.calls, producer.finished(), read_diary(workers.diary), workers.kills)
    work.app.close()
    return verdict
