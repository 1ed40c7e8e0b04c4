"""adrain and aadvance: the same, inside a running loop."""

from __future__ import annotations

import asyncio
import threading
import warnings
from datetime import timedelta

import pytest

from backlane import Backlane, Reason, Retry, State, WrongUse
from backlane.testing import testing


def test_adrain_runs_async_functions_in_the_running_loop(app: Backlane) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @app.task(name="see")
    async def see() -> int:
        loops.append(asyncio.get_running_loop())
        return 1

    async def story() -> None:
        with testing(app) as t:
            job = await see.aenqueue()
            (ran,) = await t.adrain()

            assert (ran.job, await job.aresult()) == (job, 1)
            assert loops == [asyncio.get_running_loop()]

    asyncio.run(story())


def test_adrain_runs_plain_functions_in_a_thread(app: Backlane) -> None:
    """As in a worker: there they may block, and enqueue without a warning."""

    @app.task(name="child")
    def child() -> None: ...

    @app.task(name="parent")
    def parent() -> int:
        child.enqueue()
        return threading.get_ident()

    async def story() -> None:
        with testing(app) as t:
            job = await parent.aenqueue()
            assert len(await t.adrain()) == 2
            assert await job.aresult() != threading.get_ident()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(story())


def test_aadvance_runs_each_job_at_its_own_time(app: Backlane) -> None:
    async def story() -> None:
        with testing(app) as t:
            start, times = t.now, list[timedelta]()

            @app.task(name="note")
            async def note() -> None:
                times.append(t.now - start)

            for hours in (2, 1, 4):
                await note.using(delay=timedelta(hours=hours)).aenqueue()
            ran = await t.aadvance(hours=3)

            assert times == [timedelta(hours=1), timedelta(hours=2)]
            assert len(ran) == 2
            assert t.now - start == timedelta(hours=3)

    asyncio.run(story())


def test_timeouts_and_retries_hold_in_a_running_loop(app: Backlane) -> None:
    @app.task(name="slow", timeout=30, retry=Retry(attempts=2, base=1, cap=1))
    async def slow() -> None:
        await app.clock.sleep(3_600)

    async def story() -> None:
        with testing(app) as t:
            job = await slow.aenqueue()
            ran = await t.aadvance(minutes=5)

            assert [one.attempt for one in ran] == [1, 2]
            assert (await job.arecord()).reason is Reason.TIMEOUT

    asyncio.run(story())


def test_code_that_waits_for_a_job_goes_on_when_another_coroutine_drains(app: Backlane) -> None:
    @app.task(name="double")
    async def double(n: int) -> int:
        return 2 * n

    async def request() -> int:
        job = await double.aenqueue(21)
        return await job.aresult(timeout=5)

    async def story() -> int:
        with testing(app) as t:
            answer = asyncio.create_task(request())
            await asyncio.sleep(0)
            await t.adrain()
            return await answer

    assert asyncio.run(asyncio.wait_for(story(), 10)) == 42


def test_code_in_another_thread_goes_on_when_the_test_drains(app: Backlane) -> None:
    """A test client runs the application in a thread, and the test runs its jobs."""

    @app.task(name="double")
    def double(n: int) -> int:
        return 2 * n

    with testing(app) as t:
        answers: list[int] = []
        stored = threading.Event()

        def request() -> None:
            job = double.enqueue(21)
            stored.set()
            answers.append(job.result(timeout=10))

        thread = threading.Thread(target=request)
        thread.start()
        stored.wait(10)
        t.drain()
        thread.join(10)

    assert answers == [42]


def test_drain_in_a_running_loop_names_its_twin(app: Backlane) -> None:
    async def story() -> None:
        with testing(app) as t:
            with pytest.raises(WrongUse, match=r"await t\.adrain\(\)"):
                t.drain()
            with pytest.raises(WrongUse, match="adrain"):
                t.advance(seconds=1)

    asyncio.run(story())


def test_a_lone_coroutine_that_waits_for_a_job_is_told_to_drain(app: Backlane) -> None:
    @app.task(name="task")
    async def task() -> None: ...

    async def story() -> None:
        with testing(app):
            job = await task.aenqueue()
            with pytest.raises(WrongUse, match="adrain"):
                await job.aresult()

    asyncio.run(story())


def test_a_drain_that_is_given_up_gives_its_job_up(app: Backlane) -> None:
    was_cancelled = []

    @app.task(name="hangs")
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.append(True)
            raise

    async def story() -> None:
        with testing(app) as t:
            job = await hangs.aenqueue()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(t.adrain(), 0.1)
            await asyncio.sleep(0)
            assert (await job.arecord()).state is State.RUNNING

    asyncio.run(story())
    assert was_cancelled == [True]


def test_waiting_for_a_message_alone_lets_time_pass(app: Backlane) -> None:
    orders = app.messages("orders")

    async def story() -> None:
        with testing(app):
            await orders.asend(b"later", delay=5)
            (message,) = await orders.areceive(wait=20)
            assert message.body == b"later"
            assert await orders.areceive(wait=20) == []

    asyncio.run(story())
