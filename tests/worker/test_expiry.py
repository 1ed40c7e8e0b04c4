"""What came too late: skipped by workers, and told everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.engine.contract import engines

from backlane import Backlane, JobExpired
from backlane.model.clock import FakeClock
from backlane.model.job import State
from backlane.worker import Worker


@pytest.fixture(params=engines.MAKERS, ids=lambda maker: maker.name)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backlane]:
    clock = FakeClock(datetime(2030, 1, 1, tzinfo=UTC))
    with request.param.place(tmp_path, clock) as url, Backlane(url, clock=clock) as made:
        yield made


def test_an_expired_job_is_skipped_and_recorded(app: Backlane):
    ran: list[int] = []

    @app.task(name="remind")
    async def remind(number: int) -> int:
        await asyncio.sleep(0)
        ran.append(number)
        return number

    late = [remind.using(expires=10).enqueue(number) for number in range(3)]
    in_time = remind.using(expires=60).enqueue(3)
    assert isinstance(app.clock, FakeClock)
    app.clock.advance(seconds=11)

    with Worker(app):
        assert in_time.result(timeout=5) == 3
        with pytest.raises(JobExpired):
            late[0].result(timeout=5)

    assert ran == [3]
    for job in late:
        record = job.record()
        assert (record.state, record.attempt, record.started_ms) == (State.EXPIRED, 0, None)
        assert record.ended_ms == app.clock.wall_ms()
    queue = app.queue("default").record()
    assert (queue.expired, queue.succeeded, queue.depth.jobs) == (3, 1, 0)
