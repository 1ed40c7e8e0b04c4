"""Processes that die, at any moment: what had started, what had not, who ends with whom."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tests.worker.conftest import Command, Yard, is_alive, on_every_store, wait_until

from backlane.errors import EngineBusy


@on_every_store
def test_a_bad_job_that_crashes_a_shared_executor_is_buried_and_its_neighbours_succeed(
    yard: Yard,
):
    yard.worker()
    neighbours = [yard.enqueue("nap", 0.3) for _ in range(19)]

    bad = yard.enqueue("segfault")

    assert [job.result(timeout=20) is not None for job in neighbours] == [True] * 19
    assert yard.reason(bad) == "crashed"
    assert len(yard.runs("segfault")) == 4  # once beside others, then three times alone
    assert "SIGSEGV" in bad.errors[-1].error.message


def test_a_job_that_exits_its_process_is_a_crash_of_it(yard: Yard):
    yard.worker()

    bad = yard.enqueue("exits", 3)

    assert yard.reason(bad) == "crashed"
    assert "status 3" in bad.errors[-1].error.message


@on_every_store
def test_a_killed_executor_is_replaced_and_its_jobs_run_again_at_once(yard: Yard):
    worker = yard.worker()
    job = yard.enqueue("anap", 1)
    yard.has_run("anap")
    killed = yard.runs("anap")[0]

    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    yard.has_run("anap", 2)

    assert time.monotonic() - began < 5  # far below a lease, also on a busy machine
    assert job.result(timeout=10) != killed
    assert is_alive(worker.pid)


def test_a_killed_supervisor_takes_its_executors_with_it(yard: Yard):
    worker = yard.worker("processes=2")
    yard.enqueue("alone", 1).result(timeout=10)
    yard.enqueue("nap", 30)
    yard.has_run("nap")
    executors = worker.executors()

    os.kill(worker.pid, signal.SIGKILL)

    assert len(executors) >= 3
    wait_until(lambda: not any(is_alive(pid) for pid in executors), 10)


@on_every_store
def test_the_jobs_of_a_killed_worker_run_elsewhere_soon(yard: Yard):
    # Without a sign of life that the store can see it is the lease that tells: there it is
    # short, elsewhere it takes 30 seconds to lapse.
    first = yard.worker("lease=2.5" if yard.engine == "redis" else "")
    job = yard.enqueue("anap", 60)
    yard.has_run("anap")
    second = yard.worker()
    second.saw("ready")

    os.kill(first.pid, signal.SIGKILL)
    yard.has_run("anap", 2)  # within 10 seconds

    assert yard.runs("anap")[1] in second.executors()
    assert job.attempts == 1


def pause(yard: Yard, worker: Command) -> None:
    """Stop all processes of a worker, but not in the middle of a write.

    There it holds the lock of a SQLite file, and nobody gets on until it does.
    """
    while True:
        for pid in [worker.pid, *worker.executors()]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yard.app.queue("default").resume()
        except EngineBusy:
            resume(worker)
            time.sleep(0.1)  # or it would be stopped where it was
        else:
            return


def resume(worker: Command) -> None:
    """Let all processes of a worker go on."""
    for pid in [*worker.executors(), worker.pid]:
        os.kill(pid, signal.SIGCONT)


@on_every_store
def test_a_worker_paused_beyond_its_lease_is_refused_its_outcome(yard: Yard):
    first = yard.worker("lease=1")
    job = yard.enqueue("nap", 2.5)
    yard.has_run("nap")
    pause(yard, first)
    second = yard.worker("lease=1")

    yard.has_run("nap", 2)
    resume(first)

    assert job.result(timeout=10) in second.executors()
    first.saw("its lease was lost")
    assert job.attempts == 2  # the lapse counts


def test_an_application_that_cannot_be_imported_ends_the_worker_with_status_2(yard: Yard):
    (yard.directory / "broken.py").write_text("import json\nraise OSError('no settings')\n")

    worker = yard.worker(target="broken:app")

    assert worker.wait() == 2
    assert worker.log.count("no settings") <= 2
    assert "importing 'broken:app' failed with OSError" in worker.log


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("missing:app", "no module 'missing'"),
        ("application:aap", "did you mean application:app?"),
        ("application:Path", "is a type, not a Backlane"),
    ],
)
def test_a_misspelt_target_is_one_clear_error(yard: Yard, target: str, says: str):
    worker = yard.worker(target=target)

    assert worker.wait() == 2
    assert says in worker.log
    assert "Traceback" not in worker.log


def test_an_unknown_queue_is_refused_with_the_nearest_name(yard: Yard):
    worker = yard.worker("queues=('narow',)")

    assert worker.wait() == 2
    assert "did you mean 'narrow'?" in worker.log


def test_a_worker_whose_application_breaks_goes_on_once_it_is_mended(yard: Yard):
    worker = yard.worker()
    executor = yard.enqueue("pid").result(timeout=10)
    source = yard.directory / "application.py"
    good = source.read_text()

    source.write_text("import nowhere_to_be_found\n")
    os.kill(int(str(executor)), signal.SIGKILL)
    job = yard.enqueue("pid")
    worker.saw("No module named 'nowhere_to_be_found'")
    source.write_text(good)

    assert job.result(timeout=20) != executor
    assert job.attempts == 1
