"""The figures: computed on time, and read at once while the next are computed."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from examples.figures import jobs

from backlane import Backlane, NoResult
from backlane.testing import testing
from backlane.worker import Worker


def test_figures_are_read_at_once_while_the_next_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "SALES", 5_000)
    with testing(jobs.app) as t:
        with pytest.raises(NoResult):
            jobs.compute.latest()
        t.advance(minutes=1)
        first = jobs.compute.latest()
        jobs.app.queue("default").pause()
        t.advance(minutes=5)  # runs are on their way, or stuck

        assert jobs.compute.latest() == first
        assert len(t.jobs(jobs.compute)) == 2  # of all that stuck, one

        jobs.app.queue("default").resume()
        t.advance(minutes=1)
        t.advance(hours=1)
        assert jobs.compute.latest().sales == 5_000


def test_a_worker_computes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jobs, "SALES", 1_000)
    app = Backlane(f"sqlite:///{tmp_path / 'figures.db'}")
    function = jobs.compute.function
    compute = app.schedule(timedelta(seconds=1))(
        app.task(name="figures", keep_latest=True)(function)
    )

    async def look() -> int:
        async with Worker(app):
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    return (await compute.alatest()).sales
                except NoResult:
                    await asyncio.sleep(0.05)
        raise AssertionError("no figures came")

    assert asyncio.run(look()) == 1_000
