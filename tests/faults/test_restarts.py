"""SIGTERM under load, again and again, as deploys do: no attempt counted, nothing lost."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import Fleet, fleet, wait_until
from tests.faults.history import Attempt, read_diary
from tests.faults.producer import Producer

from backlane import State
from backlane.model.job import JobRecord

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

WORKERS = 3
RATE = 60.0
BETWEEN = 0.3  # seconds from a worker's start to the next one's end


def test_restarts_let_running_jobs_finish_and_lose_nothing(
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    restarts = 200 if proving else 6

    with fleet(tmp_path, WORKERS) as workers:
        records, diary, statuses = _restarted(workers, chance, restarts)

    record_property("figure", f"restarts={len(statuses)} jobs={len(records)} lost=0 counted=0")
    assert statuses == [0] * restarts
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert not _counted(records), "a restart counted an attempt"
    assert {len(attempts) for attempts in diary.values()} == {1}, "a job ran more than once"


def test_a_restart_without_grace_gives_jobs_back_and_counts_nothing(
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    restarts = 50 if proving else 5

    with fleet(tmp_path, WORKERS, grace=0.0) as workers:
        records, diary, statuses = _restarted(workers, chance, restarts)

    given_back = sum(len(attempts) > 1 for attempts in diary.values())
    told = f"restarts={len(statuses)} jobs={len(records)} given back={given_back} lost=0"
    record_property("figure", told)
    assert statuses == [0] * restarts
    assert given_back > 0, "no restart met a running job"
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert not _counted(records), "a job given back was counted"
    assert not _overlaps(diary), "a job given back was still running"


def _restarted(
    workers: Fleet, chance: random.Random, restarts: int
) -> tuple[list[JobRecord], dict[str, list[Attempt]], list[int]]:
    """Restart workers in turn under load, drain; return the records, diary, statuses."""
    work = diarist(workers.url)
    producer = Producer(work, workers.diary, chance, RATE)
    producer.enqueue()
    wait_until(producer.is_drained, 20, "a first job is done")
    producer.start()
    statuses: list[int] = []
    for _ in range(restarts):
        time.sleep(BETWEEN)
        statuses.append(_restart(workers, workers.workers[0]))
    producer.stop()
    wait_until(producer.is_drained, 60, "all jobs are done after the last restart")
    records = producer.records()
    assert len(records) == len(producer.calls.acknowledged), "an acknowledged job is gone"
    work.app.close()
    return records, read_diary(workers.diary), statuses


def _restart(workers: Fleet, worker: subprocess.Popen[bytes]) -> int:
    """Start the next one, then end this one, as a rolling deploy does.

    It has said that it serves: before that it holds nothing, and a signal that meets the
    interpreter's own start ends it with the signal's status.
    """
    ready = f"(pid {worker.pid}, ready after"
    wait_until(lambda: ready in workers.log.read_text(), 20, "the worker serves")
    workers.start()
    workers.workers.remove(worker)
    worker.send_signal(signal.SIGTERM)
    return worker.wait(40)


def _counted(records: list[JobRecord]) -> list[str]:
    """Return the jobs of which more than the one attempt that succeeded was counted."""
    return [
        f"{it.task} {it.id.hex()}: {it.attempt} attempts, token {it.token}, errors {it.errors}"
        for it in records
        if it.attempt != 1
    ]


def _overlaps(diary: dict[str, list[Attempt]]) -> list[str]:
    return [
        f"{second} began while {first} was alive"
        for attempts in diary.values()
        for first, second in itertools.pairwise(attempts)
        if second.began < first.last_sign
    ]
