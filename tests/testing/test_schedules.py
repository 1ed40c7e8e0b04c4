"""Schedules in a test: they fire as time is let pass, each job at its own time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from backlane import At, Backlane, Context, Every, Retention, Unique
from backlane.testing import testing

START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


def test_a_schedule_fires_as_time_passes(app: Backlane) -> None:
    due = []

    @app.schedule("0 3 * * *", tz="Europe/Paris")
    @app.task(name="nightly")
    def nightly(context: Context) -> None:
        due.append((context.headers["schedule"], context.headers["due"]))

    with testing(app, start=START) as t:
        assert t.drain() == []
        t.advance(days=2)

    assert due == [
        (nightly.name, "2030-01-01T02:00:00+00:00"),
        (nightly.name, "2030-01-02T02:00:00+00:00"),
    ]


def test_each_job_runs_at_its_own_time(app: Backlane) -> None:
    times = []

    @app.schedule(timedelta(minutes=20))
    @app.task(name="often")
    def often() -> None:
        times.append(app.clock.wall_ms() - int(START.timestamp() * 1000))

    with testing(app, start=START) as t:
        t.advance(hours=1)

    assert times == [1_200_000, 2_400_000, 3_600_000]


def test_what_is_put_at_run_time_fires_too(app: Backlane) -> None:
    seen = []

    @app.task(name="note")
    def note(what: str) -> None:
        seen.append(what)

    with testing(app, start=START) as t:
        app.schedules.put("hourly", Every(3600), note, args=("hour",))
        app.schedules.put("once", At(START + timedelta(minutes=90)), note, kwargs={"what": "once"})
        t.advance(hours=3)
        assert [it.name for it in app.schedules.list()] == ["hourly"]
        app.schedules.pause("hourly")
        t.advance(hours=3)
        app.schedules.resume("hourly")
        t.advance(hours=1)

    assert seen == ["hour", "once", "hour", "hour", "hour"]


def test_schedules_fire_in_async_tests(app: Backlane) -> None:
    @app.schedule("@hourly")
    @app.task(name="tick")
    async def tick() -> None: ...

    async def look() -> list[str]:
        with testing(app, start=START) as t:
            return [it.task for it in await t.aadvance(hours=5)]

    assert asyncio.run(look()) == [tick.name] * 5


def test_a_schedule_of_a_unique_task_does_not_pile_up(app: Backlane) -> None:
    @app.schedule(timedelta(minutes=1))
    @app.task(name="slow", unique=Unique(on_conflict="raise"), queue="slow")
    def slow() -> None: ...

    with testing(app, start=START) as t:
        app.schedules.run_now(slow.name)
        app.queue("slow").pause()
        t.advance(minutes=10)

        assert len(t.jobs(slow)) == 1


def test_history_of_a_test_is_kept_whatever_the_application_says() -> None:
    app = Backlane("memory://", retention=Retention(done=0, failed=0))

    @app.task(name="f", keep="forever")
    def f() -> None: ...

    with testing(app) as t:
        f.enqueue()
        t.drain()
        t.advance(days=3)
        assert len(t.jobs(f)) == 1
