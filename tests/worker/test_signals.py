"""How a worker ends, reloads and recycles."""

from __future__ import annotations

import os
import signal
import time

from tests.worker.conftest import Yard, on_every_store, wait_until

from backlane.model.job import State


@on_every_store
def test_sigterm_lets_running_jobs_finish_and_exits_with_0(yard: Yard):
    worker = yard.worker()
    jobs = [yard.enqueue(task, 0.5) for task in ("nap", "anap", "alone_nap")]
    for task in ("nap", "anap", "alone_nap"):
        yard.has_run(task)

    status = worker.stop()

    assert status == 0
    assert [job.state for job in jobs] == [State.SUCCEEDED] * 3


@on_every_store
def test_after_the_grace_the_rest_is_given_back_uncounted(yard: Yard):
    worker = yard.worker("grace=0.2, concurrency=2")
    jobs = [yard.enqueue("nap", 30) for _ in range(5)]
    yard.has_run("nap", 2)

    status = worker.stop()

    assert status == 0
    assert [job.state for job in jobs] == [State.READY] * 5
    assert [job.attempts for job in jobs] == [0] * 5


def test_a_second_signal_ends_at_once(yard: Yard):
    worker = yard.worker("grace=60")
    job = yard.enqueue("nap", 30)
    yard.has_run("nap")

    worker.signal(signal.SIGTERM)
    worker.saw("stopping")
    began = time.monotonic()
    worker.signal(signal.SIGINT)

    assert worker.wait() == 0
    assert time.monotonic() - began < 10  # of 30 that the job has to go
    assert (job.state, job.attempts) == (State.READY, 0)


def test_sighup_replaces_the_executors_and_running_jobs_finish(yard: Yard):
    worker = yard.worker("processes=2")
    before = yard.enqueue("pid").result(timeout=10)
    running = yard.enqueue("nap", 1)
    yard.has_run("nap")
    old = worker.executors()

    worker.signal(signal.SIGHUP)
    worker.saw("reloaded in")

    after = {yard.enqueue("pid").result(timeout=10) for _ in range(10)}
    assert before not in after
    assert after.isdisjoint(old)
    assert running.result(timeout=10) in old
    assert running.attempts == 1


def test_a_reload_that_cannot_import_keeps_the_executors_of_before(yard: Yard):
    worker = yard.worker()
    before = yard.enqueue("pid").result(timeout=10)
    (yard.directory / "application.py").write_text("this is no python\n")

    worker.signal(signal.SIGHUP)
    worker.saw("reload failed")

    assert yard.enqueue("pid").result(timeout=10) == before


def test_signals_to_the_whole_group_still_let_running_jobs_finish(yard: Yard):
    worker = yard.worker()
    job = yard.enqueue("nap", 0.5)
    yard.has_run("nap")

    os.killpg(worker.pid, signal.SIGINT)

    assert worker.wait() == 0
    assert job.state is State.SUCCEEDED


def test_executors_are_recycled_by_jobs(yard: Yard):
    worker = yard.worker("recycling=Recycling(jobs=1)")
    before = yard.enqueue("pid").result(timeout=10)

    worker.saw("is recycled: it ran 1 jobs")

    wait_until(lambda: yard.enqueue("pid").result(timeout=10) != before)


def test_executors_are_recycled_by_memory(yard: Yard):
    worker = yard.worker("recycling=Recycling(rss_mib=150)")
    before = yard.enqueue("grows", 150).result(timeout=10)

    worker.saw("is recycled: it holds", 10)

    wait_until(lambda: yard.enqueue("pid").result(timeout=10) != before)


@on_every_store
def test_a_drained_worker_leaves_the_list_of_workers(yard: Yard):
    engine = yard.app.engine
    worker = yard.worker()
    worker.saw("ready")
    wait_until(lambda: engine.run(engine.list_workers()))

    worker.stop()

    assert engine.run(engine.list_workers()) == []
