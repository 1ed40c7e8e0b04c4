"""Handles: reading a job, waiting for its result, cancelling, following."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from tests.hand import BOOM, fail, only, settle, succeed, take

from backlane import (
    Backlane,
    BadOption,
    Context,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobHandle,
    JobNotFound,
    ResultGone,
    ResultTimeout,
    State,
    WrongUse,
)
from backlane.context import current
from backlane.engine.memory import MemoryEngine
from backlane.engine.selection import Delete, Selection
from backlane.handle import JobChange
from backlane.model.clock import FakeClock
from backlane.model.job import Note, Progress
from backlane.model.outcome import RetryAfter, Succeeded


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


@pytest.fixture
def job(app: Backlane) -> JobHandle[int]:
    return app.task(double).enqueue(4)


def double(number: int) -> int:
    return 2 * number


def forget(app: Backlane, job: JobHandle[Any]) -> None:
    app.engine.run(app.engine.amend(Selection(ids=(job.id.bytes,)), Delete()))


# -- readings --


def test_a_handle_is_known_by_its_job(app, job):
    same = app.job(job.id)

    assert (same == job, hash(same) == hash(job), same is job) == (True, True, False)
    assert repr(job) == f"<JobHandle {job.id}>"
    assert job != job.id


def test_each_property_reads_the_store_anew(app, job):
    before = job.state

    take(app)

    assert (before, job.state) == (State.READY, State.RUNNING)


def test_a_handle_tells_attempts_errors_and_progress(app, job):
    settle(app, only(take(app)), RetryAfter(0, BOOM))
    lease = only(take(app))

    app.engine.run(app.engine.note([Note(lease.job, lease.token, Progress(0.5, "half"))]))

    assert job.attempts == 1
    assert [error.error for error in job.errors] == [BOOM]
    assert job.progress == Progress(0.5, "half")


def test_a_job_that_is_gone_is_an_error_and_not_a_state(app, job):
    forget(app, job)

    with pytest.raises(JobNotFound, match=str(job.id)):
        _ = job.state


# -- cancelling --


def test_a_waiting_job_is_cancelled_at_once(app, job):
    assert job.cancel()

    assert job.state is State.CANCELLED
    assert take(app) == []


def test_a_running_job_is_asked_to_stop(app, job):
    take(app)

    assert asyncio.run(job.acancel())

    record = job.record()
    assert (record.state, record.cancelling) == (State.RUNNING, True)


def test_a_job_that_has_ended_cannot_be_cancelled(app, job):
    succeed(app, 8)

    assert not job.cancel()


def test_a_job_that_is_gone_cannot_be_cancelled(app, job):
    forget(app, job)

    with pytest.raises(JobNotFound):
        job.cancel()


# -- results --


def test_the_result_of_a_finished_job_is_read_at_once(app, job):
    succeed(app, 8)

    assert job.result(timeout=0) == 8
    assert asyncio.run(job.aresult(timeout=0)) == 8


def test_none_is_a_result(app):
    job = app.task(nothing).enqueue()
    succeed(app, None)

    assert job.result(timeout=0) is None


def nothing() -> None: ...


def test_a_waiter_is_woken_by_the_end_of_the_job(app, job):
    ended = threading.Thread(target=succeed, args=(app, 8))
    ended.start()

    assert job.result() == 8
    ended.join()


def test_an_async_waiter_is_woken_by_the_end_of_the_job(app, job):
    async def ended():
        succeed(app, 8)

    async def both():
        return await asyncio.gather(job.aresult(), ended())

    assert asyncio.run(both()) == [8, None]


class Mute(MemoryEngine):
    """An engine whose bells never reach this process."""

    def watch(self, jobs: Any, *, starts: bool = False) -> Any:
        return super().watch((), starts=starts)


def test_a_waiter_whose_bell_is_silent_reads_again_all_the_same():
    app, clock = Backlane("memory://"), FakeClock()
    task = app.task(double)

    async def ended():
        succeed(app, 8)
        clock.advance(milliseconds=50)

    async def both():
        job = await task.aenqueue(4)
        return await asyncio.gather(job.aresult(), ended())

    with app.replaced(Mute(clock), clock):
        assert asyncio.run(both()) == [8, None]


def test_a_wait_that_is_too_long_says_so_and_the_job_goes_on():
    app, clock = Backlane("memory://"), FakeClock()
    task = app.task(double)

    async def both():
        job = await task.aenqueue(4)
        waiting = asyncio.ensure_future(job.aresult(timeout=timedelta(seconds=5)))
        while not waiting.done():
            clock.advance(milliseconds=100)
            await asyncio.sleep(0)
        return waiting.exception(), await job.arecord()

    with app.replaced(MemoryEngine(clock), clock):
        error, record = asyncio.run(both())

    assert isinstance(error, ResultTimeout)
    assert "is ready after a wait of 0:00:05" in str(error)
    assert record.state is State.READY


def test_a_timeout_of_zero_reads_once(job):
    with pytest.raises(ResultTimeout):
        job.result(timeout=0)


def test_a_failed_job_raises_with_its_reason_and_error(app, job):
    fail(app)

    with pytest.raises(JobFailed, match=r"failed \(error\).*OSError: no route") as failed:
        job.result()

    assert (failed.value.reason, failed.value.error) == ("error", BOOM)


def test_a_cancelled_job_has_no_result(job):
    job.cancel()

    with pytest.raises(JobCancelled):
        job.result()


def test_an_expired_job_has_no_result():
    app, clock = Backlane("memory://"), FakeClock()

    with app.replaced(MemoryEngine(clock), clock):
        job = app.task(expires=60)(double).enqueue(4)
        clock.advance(seconds=61)
        take(app)

        with pytest.raises(JobExpired):
            job.result()


def test_a_result_that_was_not_kept_is_gone(app, job):
    settle(app, only(take(app)), Succeeded())

    with pytest.raises(ResultGone, match="keep_result=False"):
        job.result()


def test_a_job_that_is_gone_has_no_result(app, job):
    forget(app, job)

    with pytest.raises(JobNotFound):
        job.result()


@pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
def test_a_timeout_that_cannot_work_is_refused(job, timeout):
    with pytest.raises(BadOption, match="timeout is"):
        job.result(timeout)


def test_a_job_that_waits_for_a_job_is_refused_with_the_reason(app, job):
    context = Context(only(take(app)), note=lambda _: None, is_cancelled=lambda: False)
    token = current.set(context)

    try:
        with pytest.raises(WrongUse, match="once every slot"):
            job.result()
        with pytest.raises(WrongUse, match="once every slot"):
            asyncio.run(job.aresult())
    finally:
        current.reset(token)


def test_a_wait_that_would_block_the_running_loop_is_refused_naming_aresult(job):
    async def blocking():
        return job.result(timeout=5)

    with pytest.raises(WrongUse, match=r"await job\.aresult\(\)"):
        asyncio.run(blocking())


def test_a_finished_result_may_be_read_inside_a_running_loop(app, job):
    succeed(app, 8)

    async def reading():
        return job.result(timeout=5)

    assert asyncio.run(reading()) == 8


# -- following --


def told(change: JobChange) -> tuple[int, State, bool]:
    return change.revision, change.state, "state" in change.fields


def test_following_yields_each_change_to_the_final_state(app, job):
    following = job.follow()

    seen = [next(following)]
    lease = only(take(app))
    seen.append(next(following))
    settle(app, lease, Succeeded())
    seen += following

    assert [told(change) for change in seen] == [
        (1, State.READY, False),
        (2, State.RUNNING, True),
        (3, State.SUCCEEDED, True),
    ]


def test_following_a_finished_job_yields_it_once(app, job):
    succeed(app, 8)

    assert [change.state for change in job.follow()] == [State.SUCCEEDED]


def test_changes_that_were_missed_show_as_a_gap_in_the_revision(app, job):
    following = job.follow()
    next(following)

    settle(app, only(take(app)), RetryAfter(0, BOOM))
    change = next(following)

    assert change.revision == 3
    assert "attempt" in change.fields
    assert "queue" not in change.fields


def test_events_are_followed_by_an_async_iterator(app, job):
    async def followed():
        return [change.state async for change in job.events()]

    async def both():
        watching = asyncio.ensure_future(followed())
        await asyncio.sleep(0)
        lease = only(take(app))
        for _ in range(4):
            await asyncio.sleep(0)
        settle(app, lease, Succeeded())
        return await watching

    assert asyncio.run(both()) == [State.READY, State.RUNNING, State.SUCCEEDED]


def test_following_a_job_that_is_gone_is_an_error(app, job):
    forget(app, job)

    with pytest.raises(JobNotFound):
        next(job.follow())
