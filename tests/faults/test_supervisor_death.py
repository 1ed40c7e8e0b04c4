"""SIGKILL of a supervisor: its children end, and another worker takes over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import fleet, wait_until
from tests.faults.history import read_diary

pytestmark = pytest.mark.faults

JOBS = 8
MILLISECONDS = 1_500


def test_the_children_of_a_killed_supervisor_end_and_another_worker_takes_over(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path, 1) as workers:
        work = diarist(workers.url)
        diary = str(workers.diary)
        tasks = [work.in_thread, work.in_loop, work.in_process]
        handles = [tasks[n % 3].enqueue(MILLISECONDS, diary) for n in range(JOBS)]
        wait_until(
            lambda: workers.diary.exists() and len(read_diary(workers.diary)) >= JOBS // 2,
            20,
            "jobs run",
        )
        first = workers.workers[0]
        family = {first.pid, *workers.executors(first.pid)}
        other = workers.start()
        wait_until(lambda: len(workers.executors(other.pid)) >= 2, 20, "the other is up")

        killed = workers.kill(first.pid, is_supervisor=True)
        first.wait()
        wait_until(lambda: not family & set(workers.living()), 10, "the children have ended")
        took = (time.monotonic_ns() - killed.at) / 1e9
        results = {handle.result(timeout=30) for handle in handles}
        work.app.close()

    assert took < 10.0
    assert len(family) >= 3, "there were no children to end"
    assert results - family, "no job was left for the other worker"
