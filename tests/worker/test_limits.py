"""Timeouts and cancellation, of every kind of job, in a real worker."""

from __future__ import annotations

import time

import pytest
from tests.worker.conftest import Yard, is_alive, wait_until

from backlane.model.job import State


def test_an_async_job_is_cancelled_at_its_soft_limit(yard: Yard):
    yard.worker()

    job = yard.enqueue("late_async")

    assert yard.reason(job) == "timeout"
    assert "longer than 0.2 s" in job.errors[0].error.message


def test_a_thread_job_hears_of_its_soft_limit(yard: Yard):
    yard.worker()

    assert yard.reason(yard.enqueue("late_listener")) == "timeout"


def test_a_thread_job_past_its_hard_limit_keeps_its_lease_and_loses_its_slot(yard: Yard):
    worker = yard.worker("concurrency=2")
    stuck = [yard.enqueue("late_thread", 2) for _ in range(2)]
    yard.has_run("late_thread", 2)

    assert yard.enqueue("quick", 1).result(timeout=10) == 1

    assert [job.state for job in stuck] == [State.RUNNING] * 2
    assert "past its hard limit" in worker.saw("past its hard limit")
    assert [job.result(timeout=10) for job in stuck] == ["after all"] * 2


def test_an_executor_whose_slots_are_all_stuck_is_recycled(yard: Yard):
    worker = yard.worker("concurrency=1")
    before = yard.enqueue("pid").result(timeout=10)

    stuck = [yard.enqueue("late_thread", 60) for _ in range(2)]

    assert [yard.reason(job) for job in stuck] == ["timeout"] * 2
    assert yard.enqueue("pid").result(timeout=10) != before
    assert "every slot is held by an attempt that does not end" in worker.log


def test_an_exclusive_job_is_killed_at_its_hard_limit_and_its_executor_replaced(yard: Yard):
    yard.worker("exclusive=1")

    job = yard.enqueue("alone_forever")

    assert yard.reason(job) == "timeout"
    wait_until(lambda: not is_alive(yard.runs("alone_forever")[0]))
    assert yard.enqueue("alone", 1).result(timeout=10) != yard.runs("alone_forever")[0]


def test_a_loop_blocked_past_a_hard_limit_costs_only_the_job_that_blocks_it(yard: Yard):
    worker = yard.worker()
    neighbour = yard.enqueue("anap", 0.5)
    yard.has_run("anap")

    job = yard.enqueue("blocks_forever")

    assert yard.reason(job) == "timeout"
    assert neighbour.result(timeout=10)
    assert neighbour.attempts == 1
    assert "blocks the event loop past its hard limit" in worker.log


def test_a_blocked_loop_is_reported_once_with_task_and_stack(yard: Yard):
    worker = yard.worker()

    yard.enqueue("blocks", 2).result(timeout=10)

    log = worker.saw("the event loop goes on after")
    assert log.count("the event loop has been blocked") == 1
    assert "by task blocks" in log
    assert "time.sleep(seconds)" in log


@pytest.mark.parametrize("task", ["anap", "listens", "alone_nap"])
def test_a_running_job_is_cancelled_within_a_second(yard: Yard, task: str):
    yard.worker()
    job = yard.enqueue(task, 60)
    yard.has_run(task)

    began = time.monotonic()
    job.cancel()
    yard.ended(job)

    assert job.state is State.CANCELLED
    assert time.monotonic() - began < 1.0 + 5.0  # what a busy machine adds


def test_a_cancel_is_heard_while_no_slot_is_free(yard: Yard):
    yard.worker("concurrency=1")
    job = yard.enqueue("listens", 60)
    yard.has_run("listens")
    yard.enqueue("quick", 1)

    job.cancel()

    yard.ended(job, 2)
    assert job.state is State.CANCELLED
