"""The hub: many followers, few reads, and nothing missed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.contract.engines import lay
from tests.hand import succeed, take

from backlane import Backlane, JobNotFound
from backlane.engine.protocol import Engine
from backlane.engine.selection import Delete, Selection
from backlane.errors import EngineUnavailable
from backlane.gateway import hub as hubs
from backlane.gateway.hub import BATCH, Hub
from backlane.model.job import State


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Backlane]:
    with Backlane(f"sqlite:///{lay(tmp_path / 'jobs.db')}") as made:
        made.task(name="double")(double)
        yield made


def double(number: int) -> int:
    return 2 * number


class Counted:
    """An engine that counts how often jobs are read through it, and may fail."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.reads = 0
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def arun(self, plan: Any) -> Any:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise EngineUnavailable("the disk is away")
        return await self._engine.arun(plan)


def enqueued(app: Backlane, number: int = 1) -> list[bytes]:
    return [app.tasks["double"].enqueue(n).id.bytes for n in range(number)]


def run(app: Backlane, work: Callable[[Hub, Counted], Awaitable[None]]) -> None:
    counted = Counted(app.engine)

    async def within() -> None:
        hub = Hub(lambda: counted)  # type: ignore[arg-type, return-value]
        await work(hub, counted)
        for _ in range(100):
            if hub._task is None:
                break
            await asyncio.sleep(0.01)
        assert hub._task is None  # nobody follows anything: nothing is left to do
        assert len(hub) == 0

    asyncio.run(within())


def test_a_follower_is_told_the_job_as_it_is_and_what_comes(app):
    (job,) = enqueued(app)

    async def follow(hub: Hub, _: Counted) -> None:
        follower = hub.follow(job)
        first = await follower.newer(5)
        await asyncio.to_thread(take, app)
        second = await follower.newer(0.8)
        third = await follower.newer(0.05)
        follower.close()
        assert first is not None
        assert second is not None
        assert [first.state, second.state, third] == [State.READY, State.RUNNING, None]

    run(app, follow)


def test_who_knows_a_revision_is_told_later_ones_only(app):
    (job,) = enqueued(app)
    record = app.engine.run(app.engine.find(Selection(ids=(job,)))).records[0]

    async def follow(hub: Hub, _: Counted) -> None:
        follower = hub.follow(job, record.revision)
        nothing = await follower.newer(0.2)
        await asyncio.to_thread(take, app)
        something = await follower.newer(0.8)
        follower.close()
        assert nothing is None
        assert something is not None
        assert something.revision > record.revision

    run(app, follow)


def test_many_followers_are_read_for_in_batches(app):
    jobs = enqueued(app, 300)

    async def follow(hub: Hub, counted: Counted) -> None:
        followers = [hub.follow(job) for job in jobs for _ in range(3)]
        records = await asyncio.gather(*(follower.newer(10) for follower in followers))
        assert all(record is not None for record in records)
        assert counted.reads <= 2 * 300 / BATCH + 2
        for follower in followers:
            follower.close()

    run(app, follow)


def test_idle_jobs_cost_a_look_every_two_seconds(app, monkeypatch):
    monkeypatch.setattr(hubs, "LIVELY_SECONDS", 0.0)
    monkeypatch.setattr(hubs, "IDLE_POLL_SECONDS", 0.2)
    jobs = enqueued(app, 100)

    async def follow(hub: Hub, counted: Counted) -> None:
        followers = [hub.follow(job) for job in jobs]
        await asyncio.gather(*(follower.newer(5) for follower in followers))
        counted.reads = 0
        await asyncio.sleep(1.0)
        assert 2 <= counted.reads <= 8  # of 500 that each on its own would have taken
        for follower in followers:
            follower.close()

    run(app, follow)


def test_a_slow_follower_is_told_the_newest(app):
    (job,) = enqueued(app)

    async def follow(hub: Hub, _: Counted) -> None:
        follower = hub.follow(job)
        await follower.newer(5)
        await asyncio.to_thread(succeed, app, 1)
        await asyncio.sleep(0.5)
        newest, nothing = await follower.newer(1), await follower.newer(0.05)
        follower.close()
        assert newest is not None
        assert (newest.state, nothing) == (State.SUCCEEDED, None)

    run(app, follow)


def test_a_job_that_is_gone_is_an_error(app):
    (job,) = enqueued(app)

    async def follow(hub: Hub, _: Counted) -> None:
        follower = hub.follow(job)
        await follower.newer(5)
        await asyncio.to_thread(app.engine.run, app.engine.amend(Selection(ids=(job,)), Delete()))
        with pytest.raises(JobNotFound):
            await follower.newer(3)
        follower.close()
        never = hub.follow(bytes(16))
        with pytest.raises(JobNotFound):
            await never.newer(3)
        never.close()

    run(app, follow)


def test_a_store_that_is_away_for_a_while_is_asked_again(app, monkeypatch):
    monkeypatch.setattr(hubs, "PATIENCE_SECONDS", 0.01)
    (job,) = enqueued(app)

    async def follow(hub: Hub, counted: Counted) -> None:
        counted.failures = 3
        follower = hub.follow(job)
        assert await follower.newer(5) is not None
        follower.close()

    run(app, follow)


def test_without_a_bell_it_polls(app, monkeypatch):
    (job,) = enqueued(app)

    async def follow(hub: Hub, counted: Counted) -> None:
        def broken(*_: object, **__: object) -> None:
            raise OSError("no sockets here")

        counted.watch = broken  # type: ignore[attr-defined]
        follower = hub.follow(job)
        await follower.newer(5)
        await asyncio.to_thread(take, app)
        assert await follower.newer(2.5) is not None
        follower.close()

    run(app, follow)


def test_followers_may_close_twice_and_while_they_wait(app):
    first, second = enqueued(app, 2)

    async def follow(hub: Hub, _: Counted) -> None:
        one, other = hub.follow(first), hub.follow(second)
        await one.newer(5)
        one.close()
        one.close()
        again = hub.follow(first)
        assert await again.newer(5) is not None
        again.close()
        other.close()

    run(app, follow)


def test_a_stop_ends_all_waits(app):
    (job,) = enqueued(app)

    async def follow(hub: Hub, _: Counted) -> None:
        follower = hub.follow(job)
        await follower.newer(5)
        waiting = asyncio.create_task(follower.newer(60))
        await asyncio.sleep(0)
        hub.stop()
        assert await asyncio.wait_for(waiting, 1) is None
        assert follower.is_over
        follower.close()

    run(app, follow)


def test_it_serves_one_loop_after_another(app):
    (job,) = enqueued(app)
    hub = Hub(lambda: app.engine)

    async def follow() -> bool:
        follower = hub.follow(job)
        record = await follower.newer(5)  # and the loop ends with the follower open
        return record is not None

    assert [asyncio.run(follow()), asyncio.run(follow())] == [True, True]
