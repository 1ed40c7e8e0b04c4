"""What becomes of jobs of every kind in a real worker."""

from __future__ import annotations

import itertools
import uuid

import pytest
from tests.worker.conftest import Yard, on_every_store, wait_until

from backlane import Context, JobFailed
from backlane.engine.protocol import Admission
from backlane.model.ids import new_id
from backlane.model.job import Job, State


@on_every_store
def test_async_thread_and_process_jobs_run_side_by_side(yard: Yard):
    yard.worker()

    jobs = [yard.enqueue(task, 1) for task in ("quick", "aquick", "alone", "alone_async")]

    results = [job.result(timeout=10) for job in jobs]
    assert results[:2] == [1, 1]
    assert results[3] == 1


def test_two_executors_share_the_jobs(yard: Yard):
    yard.worker("processes=2, concurrency=2")

    def who_runs() -> set[object]:
        jobs = [yard.enqueue("nap", 0.1) for _ in range(8)]
        return {job.result(timeout=10) for job in jobs}

    wait_until(lambda: len(who_runs()) == 2, 10)  # once both have started


@on_every_store
def test_two_workers_share_the_jobs(yard: Yard):
    yard.worker("concurrency=2")
    yard.worker("concurrency=2")

    jobs = [yard.enqueue("nap", 0.1) for _ in range(20)]

    assert len({job.result(timeout=10) for job in jobs}) == 2
    assert len(yard.runs("nap")) == 20


@on_every_store
def test_a_failing_job_is_retried_and_then_a_dead_letter(yard: Yard):
    yard.worker()

    job = yard.enqueue("fails")

    assert yard.reason(job) == "attempts"
    assert len(yard.runs("fails")) == 3
    assert job.errors[-1].error.kind == "ValueError"
    assert "never works" in job.errors[-1].error.traceback


@pytest.mark.parametrize(
    ("task", "kind"), [("sys_exits", "SystemExit"), ("interrupts", "KeyboardInterrupt")]
)
def test_a_job_cannot_end_its_executor_by_raising(yard: Yard, task: str, kind: str):
    yard.worker()
    before = yard.enqueue("pid").result(timeout=10)

    job = yard.enqueue(task)

    assert yard.reason(job) == "error"
    assert job.errors[0].error.kind == kind
    assert yard.enqueue("pid").result(timeout=10) == before


def test_an_error_that_cannot_be_shown_is_recorded_all_the_same(yard: Yard):
    yard.worker()

    job = yard.enqueue("unsayable")

    assert yard.reason(job) == "attempts"
    assert job.errors[0].error.kind == "tests.worker.yard.Unsayable"
    assert "__str__ raised RuntimeError" in job.errors[0].error.message


def test_a_result_without_an_encoding_fails_its_job_without_a_retry(yard: Yard):
    yard.worker()

    job = yard.enqueue("unstorable")

    assert yard.reason(job) == "unstorable"
    assert len(yard.runs("unstorable")) == 1


@on_every_store
def test_arguments_that_do_not_fit_fail_the_job_and_keep_its_bytes(yard: Yard):
    yard.worker()
    body = b'{"v":1,"number":"not a number"}'
    job = Job(id=new_id(yard.app.clock.wall_ms()), queue="default", task="quick", body=body)

    yard.app.engine.run(yard.app.engine.append([job], Admission()))

    handle = yard.app.job(uuid.UUID(bytes=job.id))
    assert yard.reason(handle) == "undecodable"
    assert handle.record().body == body


@on_every_store
def test_a_job_of_an_unknown_task_is_parked_uncounted(yard: Yard):
    yard.worker()
    job = Job(id=new_id(yard.app.clock.wall_ms()), queue="default", task="future", body=b"{}")

    yard.app.engine.run(yard.app.engine.append([job], Admission()))

    handle = yard.app.job(uuid.UUID(bytes=job.id))
    wait_until(lambda: handle.state is State.SCHEDULED)
    assert handle.attempts == 0


@on_every_store
def test_a_snoozed_job_runs_again_uncounted(yard: Yard):
    yard.worker()

    job = yard.enqueue("snoozes")

    assert job.result(timeout=10) == 1
    assert len(yard.runs("snoozes")) == 3


@on_every_store
def test_a_queue_runs_no_more_at_a_time_than_its_concurrency(yard: Yard):
    yard.worker()

    jobs = [yard.enqueue("narrow_nap", 0.1) for _ in range(3)]

    began = sorted(float(str(job.result(timeout=10))) for job in jobs)
    assert all(later - sooner >= 0.1 for sooner, later in itertools.pairwise(began))


def test_a_short_job_does_not_wait_behind_long_ones(yard: Yard):
    yard.worker("concurrency=4").saw("ready")
    naps = [yard.enqueue("nap", 60) for _ in range(3)]
    yard.has_run("nap", 3)

    yard.enqueue("quick", 1).result(timeout=30)

    assert [nap.state for nap in naps] == [State.RUNNING] * 3


@on_every_store
def test_progress_is_kept_while_the_job_runs(yard: Yard):
    yard.worker()

    job = yard.enqueue("reports", 1)
    yard.has_run("reports")

    wait_until(lambda: job.progress is not None)
    assert job.progress is not None
    assert job.progress.message == "half"


def test_a_task_called_directly_runs_at_once(yard: Yard):
    assert yard.app.tasks["quick"](7) == 7
    assert yard.app.tasks["reports"].takes_context
    assert Context.detached().cancelled is False


@on_every_store
def test_a_dead_letter_tells_its_reason_to_who_waits(yard: Yard):
    yard.worker()

    with pytest.raises(JobFailed, match="never works"):
        yard.enqueue("fails").result(timeout=10)
