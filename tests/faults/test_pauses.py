"""SIGSTOP: a worker paused beyond its lease is fenced, and nothing is lost by it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.diarist import Diarist, diarist
from tests.faults.fleet import Fleet, fleet, wait_until
from tests.faults.history import Attempt, read_diary

from backlane import JobHandle, State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

LEASE = 3.0  # seconds; 30 in earnest
JOBS = 6
MILLISECONDS = 1_500


def test_a_paused_worker_is_fenced_and_its_jobs_run_elsewhere(
    tmp_path: Path, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    with fleet(tmp_path, 1, lease=LEASE) as workers:
        refused = 0
        for _ in range(8 if proving else 1):
            refused += _paused(workers, whole=True)

    record_property("figure", f"late outcomes refused={refused}")
    assert refused >= JOBS / 2


def test_an_executor_that_outlives_its_paused_supervisor_is_fenced(tmp_path: Path) -> None:
    with fleet(tmp_path, 1, lease=LEASE) as workers:
        refused = _paused(workers, whole=False)

    assert refused >= JOBS / 2


def test_a_paused_executor_keeps_its_jobs_while_its_supervisor_lives(tmp_path: Path) -> None:
    with fleet(tmp_path, 1, processes=1, lease=LEASE) as workers:
        work = diarist(workers.url)
        handles = _running(work, workers)
        executors = workers.executors(workers.workers[0].pid)
        workers.start()
        _signal(executors, signal.SIGSTOP)
        time.sleep(LEASE + 1.5)
        _signal(executors, signal.SIGCONT)
        results = {handle.result(timeout=20) for handle in handles}
        attempts = [handle.attempts for handle in handles]
        work.app.close()

    assert results <= set(executors)
    assert attempts == [1] * JOBS


def _paused(workers: Fleet, *, whole: bool) -> int:
    """Pause a worker beyond its lease beside another; return how many outcomes came late."""
    work = diarist(workers.url)
    handles = _running(work, workers)
    late = workers.workers[0].pid
    executors = workers.executors(late)
    _signal([late, *executors] if whole else [late], signal.SIGSTOP)
    other = workers.start()
    try:
        results = [handle.result(timeout=15 * LEASE) for handle in handles]
    finally:
        _signal([late, *executors] if whole else [late], signal.SIGCONT)
    # What was running is settled by the other worker; what the late one had settled
    # before it was paused ran once.
    taken_over = [
        handle for handle, pid in zip(handles, results, strict=True) if pid not in executors
    ]
    wait_until(lambda: _both_ended(workers, taken_over), 20, "the late attempts have ended too")
    time.sleep(0.5)  # and the late worker has sent what it has to say of them
    for handle, result in zip(handles, results, strict=True):
        assert handle.state is State.SUCCEEDED
        assert handle.result(timeout=1) == result, "a late outcome took the place of the first"
    assert [handle.attempts for handle in taken_over] == [2] * len(taken_over)
    _end(workers, other.pid)
    work.app.close()
    return len(taken_over)


def _running(work: Diarist, workers: Fleet) -> list[JobHandle[int]]:
    """Enqueue jobs and wait until all of them run."""
    diary = str(workers.diary)
    tasks = [work.in_thread, work.in_loop]
    handles = [tasks[n % 2].enqueue(MILLISECONDS, diary) for n in range(JOBS)]
    wait_until(lambda: len(_of(workers, handles)) == JOBS, 20, "all jobs run")
    return handles


def _of(workers: Fleet, handles: list[JobHandle[int]]) -> dict[str, list[Attempt]]:
    if not workers.diary.exists():
        return {}
    ids = {handle.id.hex for handle in handles}
    return {job: found for job, found in read_diary(workers.diary).items() if job in ids}


def _both_ended(workers: Fleet, handles: list[JobHandle[int]]) -> bool:
    return all(
        len(found) == 2 and all(attempt.has_ended for attempt in found)
        for found in _of(workers, handles).values()
    )


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _end(workers: Fleet, pid: int) -> None:
    """End one worker, so that the next round starts with one again."""
    for worker in [it for it in workers.workers if it.pid == pid]:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
        workers.workers.remove(worker)
