"""drain and advance: what runs, when, and in which order."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from backlane import (
    Backlane,
    BadOption,
    Context,
    JobCancelled,
    JobExpired,
    JobFailed,
    Middleware,
    Progress,
    QueueFull,
    Reason,
    Retry,
    Snooze,
    State,
    WrongUse,
    events,
)
from backlane.testing import testing

# -- drain --


def test_nothing_runs_before_it_is_drained(app: Backlane) -> None:
    ran: list[int] = []

    @app.task(name="note")
    def note(n: int) -> None:
        ran.append(n)

    with testing(app) as t:
        job = note.enqueue(1)
        assert (ran, job.state) == ([], State.READY)

        t.drain()

        assert (ran, job.state) == ([1], State.SUCCEEDED)


def test_a_drained_job_has_its_result(app: Backlane) -> None:
    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    with testing(app) as t:
        job = add.enqueue(1, b=2)
        (ran,) = t.drain()

        assert job.result() == 3
        assert (ran.job, ran.task, ran.attempt) == (job, add.name, 1)
        assert (ran.outcome, ran.state, ran.error) == ("succeeded", State.SUCCEEDED, None)


def test_async_functions_run_too(app: Backlane) -> None:
    @app.task(name="double")
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    with testing(app) as t:
        job = double.enqueue(21)
        t.drain()

        assert job.result() == 42


def test_a_function_for_a_process_runs_here(app: Backlane) -> None:
    @app.task(name="where", queue="video")
    def where() -> int:
        return threading.get_ident()

    with testing(app) as t:
        job = where.enqueue()
        t.drain()

        assert job.result() == threading.get_ident()


def test_jobs_run_by_priority_then_in_order(app: Backlane) -> None:
    order: list[str] = []

    @app.task(name="note")
    def note(name: str) -> None:
        order.append(name)

    with testing(app) as t:
        note.enqueue("first")
        note.enqueue("second")
        note.using(priority=9).enqueue("urgent")
        note.using(priority=0).enqueue("idle")
        t.drain()

    assert order == ["urgent", "first", "second", "idle"]


def test_what_a_job_enqueues_is_drained_as_well(app: Backlane) -> None:
    @app.task(name="count_down")
    def count_down(n: int) -> None:
        if n:
            count_down.enqueue(n - 1)

    with testing(app) as t:
        count_down.enqueue(3)

        assert len(t.drain()) == 4


def test_a_child_knows_its_parent(app: Backlane) -> None:
    @app.task(name="child")
    def child() -> None: ...

    @app.task(name="parent")
    def parent() -> None:
        child.enqueue()

    with testing(app) as t:
        job = parent.enqueue()
        t.drain()

        assert t.assert_enqueued(child).record.parent == job.id.bytes


def test_an_async_function_that_enqueues_is_drained_as_well(app: Backlane) -> None:
    @app.task(name="count_down")
    async def count_down(n: int) -> None:
        if n:
            await count_down.aenqueue(n - 1)

    with testing(app) as t:
        count_down.enqueue(3)

        assert len(t.drain()) == 4


def test_a_drain_of_nothing_runs_nothing(app: Backlane) -> None:
    with testing(app) as t:
        assert t.drain() == []


def test_a_job_that_makes_itself_for_ever_is_found_out(app: Backlane, monkeypatch) -> None:
    monkeypatch.setattr("backlane.testing.kit.DRAIN_LIMIT", 50)

    @app.task(name="for_ever")
    def for_ever() -> None:
        for_ever.enqueue()

    with testing(app) as t:
        for_ever.enqueue()

        with pytest.raises(WrongUse, match="for_ever is due again"):
            t.drain()


def test_delayed_jobs_wait(app: Backlane) -> None:
    @app.task(name="late")
    def late() -> None: ...

    with testing(app) as t:
        job = late.using(delay=60).enqueue()

        assert t.drain() == []
        assert job.state is State.SCHEDULED


def test_async_jobs_of_one_test_share_a_loop(app: Backlane) -> None:
    """What a job opens in its loop, such as a client, can be used by the next one."""
    loops: set[int] = set()

    @app.task(name="see")
    async def see() -> None:
        loops.add(id(asyncio.get_running_loop()))

    with testing(app) as t:
        see.enqueue()
        t.drain()
        see.enqueue()
        t.drain()

    assert len(loops) == 1


# -- advance --


def test_advancing_runs_each_job_at_its_own_time(app: Backlane) -> None:
    times: list[tuple[str, timedelta]] = []

    with testing(app) as t:
        start = t.now

        @app.task(name="note")
        def note(name: str) -> None:
            times.append((name, t.now - start))

        note.using(delay=7_200).enqueue("two")
        note.using(delay=3_600).enqueue("one")
        note.enqueue("now")
        note.using(delay=10_801).enqueue("later")
        ran = t.advance(hours=3)

        assert times == [
            ("now", timedelta(0)),
            ("one", timedelta(hours=1)),
            ("two", timedelta(hours=2)),
        ]
        assert len(ran) == 3
        assert t.now - start == timedelta(hours=3)


def test_what_a_job_puts_off_runs_within_the_same_advance(app: Backlane) -> None:
    times: list[float] = []

    with testing(app) as t:
        start = t.now

        @app.task(name="chain")
        def chain(n: int) -> None:
            times.append((t.now - start).total_seconds())
            if n:
                chain.using(delay=60).enqueue(n - 1)

        chain.enqueue(3)
        t.advance(minutes=2)

    assert times == [0, 60, 120]


def test_time_does_not_go_back(app: Backlane) -> None:
    with testing(app) as t, pytest.raises(BadOption, match="does not go back"):
        t.advance(seconds=-1)


def test_retries_come_when_they_are_due(app: Backlane) -> None:
    @app.task(name="flaky", retry=Retry(attempts=3, base=10, cap=100))
    def flaky() -> None:
        raise OSError("no route")

    with testing(app) as t:
        job = flaky.enqueue()
        first = t.drain()
        rest = t.advance(minutes=5)

        assert [one.attempt for one in first + rest] == [1, 2, 3]
        assert [one.outcome for one in first + rest] == ["retryafter"] * 3
        assert (job.state, job.record().reason) == (State.FAILED, Reason.ATTEMPTS)
        with pytest.raises(JobFailed, match="no route"):
            job.result()


def test_an_error_that_is_not_retried_buries_at_once(app: Backlane) -> None:
    @app.task(name="broken", retry=Retry(on=(OSError,)))
    def broken() -> None:
        raise ValueError("boom")

    with testing(app) as t:
        job = broken.enqueue()
        (ran,) = t.drain()

        assert (ran.outcome, ran.state) == ("failed", State.FAILED)
        assert ran.error is not None
        assert ran.error.message == "boom"
        assert job.record().reason is Reason.ERROR


def test_a_snoozed_job_runs_again_uncounted(app: Backlane) -> None:
    with testing(app) as t:

        @app.task(name="wait_for", retry=Retry(attempts=1))
        def wait_for(minutes: int) -> str:
            if t.now.minute < minutes:
                raise Snooze(60)
            return "ready"

        job = wait_for.enqueue(3)
        ran = t.advance(minutes=10)

        assert [one.outcome for one in ran] == ["snoozed"] * 3 + ["succeeded"]
        assert (job.result(), job.attempts) == ("ready", 1)


def test_a_job_that_was_not_started_in_time_expires(app: Backlane) -> None:
    @app.task(name="soon", expires=60)
    def soon() -> None: ...

    with testing(app) as t:
        job = soon.enqueue()
        app.queue("default").pause()
        t.advance(minutes=5)
        app.queue("default").resume()
        assert t.drain() == []

        assert job.state is State.EXPIRED
        with pytest.raises(JobExpired):
            job.result()


def test_a_cancelled_job_never_runs(app: Backlane) -> None:
    @app.task(name="task")
    def task() -> None: ...

    with testing(app) as t:
        job = task.enqueue()
        job.cancel()

        assert t.drain() == []
        assert job.state is State.CANCELLED


def test_history_stays_to_be_looked_at(app: Backlane) -> None:
    @app.task(name="task")
    def task() -> int:
        return 1

    with testing(app) as t:
        job = task.enqueue()
        t.advance(days=400)

        assert job.result() == 1


def test_a_long_wait_raises_the_priority(app: Backlane) -> None:
    """Ageing works as in production: five minutes are one level."""
    order: list[str] = []

    @app.task(name="note")
    def note(name: str) -> None:
        order.append(name)

    with testing(app) as t:
        t.engine.run(t.engine.tune("default", _paused(on=False)))
        note.using(priority=3).enqueue("old")
        t.engine.run(t.engine.tune("default", _paused(on=True)))
        t.advance(minutes=15)
        note.using(priority=5).enqueue("new")
        t.engine.run(t.engine.tune("default", _paused(on=False)))
        t.drain()

    assert order == ["old", "new"]


def _paused(*, on: bool):
    from backlane.engine.protocol import Tune

    return Tune(paused=on)


# -- while a job runs --


def test_a_running_job_that_is_cancelled_hears_it(app: Backlane) -> None:
    @app.task(name="long")
    def long(context: Context) -> None:
        for n in context.track(range(100)):
            if n == 3:
                job.cancel()

    with testing(app) as t:
        job = long.enqueue()
        (ran,) = t.drain()

        assert (ran.outcome, job.state) == ("cancelled", State.CANCELLED)
        assert job.progress == Progress(0.03)
        with pytest.raises(JobCancelled):
            job.result()


def test_an_async_job_is_cancelled_where_it_waits(app: Backlane) -> None:
    @app.task(name="long")
    async def long() -> None:
        await job.acancel()
        await asyncio.Event().wait()

    with testing(app) as t:
        job = long.enqueue()
        t.drain()

        assert job.state is State.CANCELLED


def test_progress_can_be_read_afterwards(app: Backlane) -> None:
    @app.task(name="render")
    def render(context: Context) -> None:
        context.progress(0.4, "rendering")

    with testing(app) as t:
        job = render.enqueue()
        t.drain()

        assert job.progress == Progress(0.4, "rendering")


def test_a_job_takes_as_long_as_the_clock_moves(app: Backlane) -> None:
    with testing(app) as t:

        @app.task(name="slow", timeout=30, retry=Retry(attempts=1))
        def slow(context: Context) -> None:
            t.clock.advance(seconds=31)
            context.check()

        job = slow.enqueue()
        t.drain()

        assert (job.state, job.record().reason) == (State.FAILED, Reason.TIMEOUT)


def test_an_async_job_past_its_limit_is_stopped_where_it_waits(app: Backlane) -> None:
    with testing(app) as t:
        start = t.now

        @app.task(name="slow", timeout=30, retry=Retry(attempts=1))
        async def slow() -> None:
            await app.clock.sleep(3_600)

        job = slow.enqueue()
        t.drain()

        assert (job.state, job.record().reason) == (State.FAILED, Reason.TIMEOUT)
        assert t.now - start == timedelta(seconds=30)


def test_a_job_that_really_hangs_gets_its_limit_in_real_time(app: Backlane) -> None:
    with testing(app) as t:

        @app.task(name="hangs", timeout=0.05, retry=Retry(attempts=1))
        async def hangs() -> None:
            await asyncio.Event().wait()

        job = hangs.enqueue()
        t.drain()

        assert job.record().reason is Reason.TIMEOUT


def test_a_function_that_overran_its_hard_limit_did_not_succeed(app: Backlane) -> None:
    """In production its process would have been ended before it could return."""
    with testing(app) as t:

        @app.task(name="deaf", queue="video", timeout=(30, 40), retry=Retry(attempts=1))
        def deaf() -> int:
            t.clock.advance(seconds=41)
            return 1

        job = deaf.enqueue()
        t.drain()

        assert job.record().reason is Reason.TIMEOUT


def test_a_job_that_sleeps_on_the_clock_lets_time_pass(app: Backlane) -> None:
    with testing(app) as t:
        start = t.now

        @app.task(name="nap")
        async def nap() -> None:
            await app.clock.sleep(90)

        nap.enqueue()
        t.drain()

        assert t.now - start == timedelta(seconds=90)


# -- as in production --


def test_bounds_hold(app: Backlane) -> None:
    @app.task(name="send", queue="mail")
    def send(n: int) -> None: ...

    with testing(app) as t:
        for n in range(5):
            send.enqueue(n)
        with pytest.raises(QueueFull):
            send.enqueue(5)

        t.drain()
        send.enqueue(5)


def test_keys_hold(app: Backlane) -> None:
    @app.task(name="send")
    def send(n: int) -> None: ...

    with testing(app) as t:
        first = send.using(key="k").enqueue(1)
        second = send.using(key="k").enqueue(2)

        assert first == second
        assert len(t.drain()) == 1


def test_middleware_and_observers_take_part() -> None:
    seen: list[str] = []

    async def wrap(call, following):
        seen.append(f"before {call.task}")
        return await following(call)

    app = Backlane("memory://", middleware=[Middleware(attempt=wrap)])
    app.observe(lambda event: seen.append(type(event).__name__))

    @app.task(name="broken", retry=Retry(attempts=1))
    def broken() -> None:
        raise ValueError

    with testing(app) as t:
        broken.enqueue()
        t.drain()

    assert seen == ["JobEnqueued", "AttemptStarted", "before broken", "AttemptEnded", "JobBuried"]
    assert events.JobBuried.__name__ in seen


def test_an_unknown_task_is_parked_and_given_up_after_an_hour(app: Backlane) -> None:
    other = Backlane("memory://")

    @other.task(name="other.task")
    def stranger() -> None: ...

    with testing(app) as t, other.replaced(t.engine, t.clock):
        job = stranger.enqueue()
        assert {one.outcome for one in t.advance(minutes=59)} == {"snoozed"}
        t.advance(hours=1)

        assert job.record().reason is Reason.UNKNOWN_TASK


def test_raw_messages_are_kept_in_memory_by_the_fake_clock(app: Backlane) -> None:
    orders = app.messages("orders")

    with testing(app) as t:
        orders.send(b"now")
        orders.send(b"later", delay=5)
        (message,) = orders.receive(max=10)
        assert message.body == b"now"

        t.advance(seconds=5)
        (later,) = orders.receive(max=10)
        later.ack()
        t.advance(seconds=30)

        (again,) = orders.receive(max=10)
        assert (again.body, again.attempt) == (b"now", 2)


def test_waiting_for_a_message_lets_time_pass(app: Backlane) -> None:
    orders = app.messages("orders")

    with testing(app) as t:
        start = t.now
        orders.send(b"later", delay=5)

        assert [one.body for one in orders.receive(wait=20)] == [b"later"]
        assert timedelta(seconds=5) <= t.now - start < timedelta(seconds=7)
        assert orders.receive(wait=20) == []


# -- wrong uses --


def test_waiting_for_a_job_that_nobody_runs_says_what_to_do(app: Backlane) -> None:
    @app.task(name="task")
    def task() -> None: ...

    with testing(app):
        job = task.enqueue()

        with pytest.raises(WrongUse, match=r"t\.drain\(\)"):
            job.result()
        with pytest.raises(WrongUse, match=r"t\.drain\(\)"):
            job.result(timeout=5)


def test_a_job_cannot_drain(app: Backlane) -> None:
    with testing(app) as t:

        @app.task(name="nested", retry=Retry(attempts=1))
        def nested() -> None:
            t.drain()

        nested.enqueue()
        (ran,) = t.drain()

        assert ran.error is not None
        assert "let the test do it" in ran.error.message


def test_a_kit_ends_with_its_block(app: Backlane) -> None:
    with testing(app) as t:
        pass

    with pytest.raises(WrongUse, match="has ended"):
        t.drain()


def test_each_block_starts_empty_and_ends_with_the_applications_own_store(app: Backlane) -> None:
    @app.task(name="task")
    def task() -> None: ...

    own = app.engine
    with testing(app):
        task.enqueue()
    with testing(app) as t:
        assert t.jobs() == []
        assert app.engine is t.engine

    assert app.engine is own


def test_a_block_ends_with_the_applications_own_store_after_an_error(app: Backlane) -> None:
    own = app.engine
    with pytest.raises(ZeroDivisionError), testing(app):
        raise ZeroDivisionError

    assert app.engine is own
