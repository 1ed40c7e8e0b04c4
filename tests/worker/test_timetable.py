"""The timetable: many workers apply the schedules of a store, and each tick is one job."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backlane import Backlane, Every, Queue
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Engine, Presence
from backlane.engine.retention import Retention
from backlane.engine.scheduling import Pause, Put, Remove
from backlane.engine.selection import Delete, Selection
from backlane.errors import EngineUnavailable
from backlane.model.clock import FakeClock, SystemClock
from backlane.model.codec import decode_headers
from backlane.model.ids import new_id
from backlane.model.job import Job, JobRecord
from backlane.model.schedule import encode_spec, spec_of
from backlane.worker import timetable
from backlane.worker.embedded import Worker
from backlane.worker.executor import hello
from backlane.worker.timetable import Timekeeper

SECOND = timedelta(seconds=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(clock: FakeClock) -> MemoryEngine:
    return MemoryEngine(clock)


def nothing() -> None: ...


def application(**options: Any) -> Backlane:
    app = Backlane("memory://", queues=[Queue("tiny", max_jobs=2)])
    app.task(name="tick", **options)(nothing)
    return app


def scheduled(catch_up: str = "latest", *, every: timedelta = SECOND, **options: Any) -> Backlane:
    app = application(**options)
    app.schedule(every, catch_up=catch_up, most=1_000)(app.tasks["tick"])  # type: ignore[arg-type]
    return app


def keepers(engine: Engine, app: Backlane, number: int = 1) -> list[Timekeeper]:
    made = [Timekeeper(engine, hello(app)) for _ in range(number)]
    for keeper in made:
        asyncio.run(keeper.declare())
    return made


def look(*keepers: Timekeeper) -> float:
    """Let all of them look at the same moment; return when the last would look again."""

    async def all_of_them() -> float:
        return (await asyncio.gather(*(keeper.look() for keeper in keepers)))[-1]

    return asyncio.run(all_of_them())


def jobs(engine: Engine) -> list[JobRecord]:
    """All jobs, the oldest first."""
    found: list[JobRecord] = []
    cursor = None
    while True:
        page = engine.run(engine.find(Selection(), 1_000, cursor))
        ids = tuple(record.id for record in page.records)
        found += engine.run(engine.find(Selection(ids=ids), 1_000)).records if ids else []
        cursor = page.cursor
        if cursor is None:
            return found[::-1]


def dues(engine: Engine) -> list[str]:
    return [decode_headers(record.headers)["due"] for record in jobs(engine)]


def names(engine: Engine) -> list[str]:
    return [it.name for it in engine.run(engine.list_schedules()).schedules]


# -- ticking --


def test_ten_thousand_ticks_of_three_workers_are_one_job_each(
    engine: MemoryEngine, clock: FakeClock
) -> None:
    """Clocks jump by up to two hours back and forth; no due time is twice, none is missed."""
    workers = keepers(engine, scheduled("all", every=timedelta(seconds=10)), 3)
    chance = random.Random(7)
    begun_ms, latest_ms = clock.wall_ms(), clock.wall_ms()
    seen: Counter[str] = Counter()

    while latest_ms < begun_ms + 100_000_000:
        clock.advance(milliseconds=chance.randrange(100, 30_000))
        if chance.random() < 0.004:
            clock.jump(seconds=chance.randrange(-7_200, 7_200))
        latest_ms = max(latest_ms, clock.wall_ms())
        look(*chance.sample(workers, chance.randint(1, 3)))
        if chance.random() < 0.01:
            seen.update(dues(engine))
            engine.run(engine.amend(Selection(), Delete()))

    while engine.run(engine.find(Selection(), 1)).records:
        seen.update(dues(engine))
        engine.run(engine.amend(Selection(), Delete()))
    assert set(seen.values()) == {1}
    assert len(seen) == (latest_ms - begun_ms) // 10_000 >= 10_000


def test_what_nobody_saw_is_one_job_by_latest(engine: MemoryEngine, clock: FakeClock) -> None:
    workers = keepers(engine, scheduled("latest"), 2)
    clock.advance(seconds=100)

    look(*workers)

    assert dues(engine) == ["2030-01-01T00:01:40+00:00"]


def test_a_clock_that_is_set_back_repeats_nothing(engine: MemoryEngine, clock: FakeClock) -> None:
    (worker,) = keepers(engine, scheduled("all"))
    clock.advance(seconds=2)
    look(worker)
    clock.jump(hours=-2)
    look(worker)
    clock.advance(hours=2)
    look(worker)
    clock.advance(seconds=1)
    look(worker)

    assert [due[-14:-6] for due in dues(engine)] == ["00:00:01", "00:00:02", "00:00:03"]


def test_it_looks_again_when_the_next_is_due(engine: MemoryEngine, clock: FakeClock) -> None:
    app = application()
    app.schedule(timedelta(minutes=1))(app.tasks["tick"])
    (worker,) = keepers(engine, app)

    assert look(worker) == timetable.LOOK_SECONDS
    clock.advance(seconds=58.5)
    assert look(worker) == pytest.approx(1.5)
    clock.advance(seconds=1.5)
    assert look(worker) == timetable.LOOK_SECONDS
    assert len(jobs(engine)) == 1


def test_jitter_delays_jobs_and_not_the_timetable(engine: MemoryEngine, clock: FakeClock) -> None:
    app = application()
    app.schedule(timedelta(minutes=1), jitter=30)(app.tasks["tick"])
    (worker,) = keepers(engine, app)
    delays = []
    for _ in range(20):
        clock.advance(minutes=1)
        look(worker)
        newest = jobs(engine)[-1]
        delays.append((newest.due_ms or 0) - clock.wall_ms())

    assert all(0 <= delay <= 30_000 for delay in delays)
    assert len(set(delays)) > 15


def test_many_schedules_are_applied_in_parts(engine: MemoryEngine, clock: FakeClock) -> None:
    (worker,) = keepers(engine, application())
    spec = encode_spec(spec_of(SECOND))
    for number in range(2_500):
        engine.run(engine.alter_schedule(f"s{number}", Put(spec=spec, task="tick")))
    look(worker)
    look(worker)
    look(worker)
    clock.advance(seconds=1)

    assert [look(worker), look(worker)] == [0, 0]
    assert look(worker) > 0

    assert len(jobs(engine)) == 2_500


# -- what cannot be applied --


def test_a_bad_schedule_stops_no_other_and_is_reported_once(
    engine: MemoryEngine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    (worker,) = keepers(engine, scheduled())
    for name, spec in (("a-broken", b"\xff"), ("b-odd", b'{"sunset":1}')):
        engine.run(engine.alter_schedule(name, Put(spec=spec, task="tick")))

    for _ in range(3):
        clock.advance(seconds=1)
        assert look(worker) <= 1

    assert len(jobs(engine)) == 3
    told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert [message.split()[1] for message in told] == ["a-broken", "b-odd"]


def test_schedules_of_unknown_tasks_are_left_to_others(
    engine: MemoryEngine, clock: FakeClock
) -> None:
    (worker,) = keepers(engine, application())
    put = Put(spec=encode_spec(spec_of(SECOND)), task="theirs")
    engine.run(engine.alter_schedule("foreign", put))
    before = engine.run(engine.list_schedules())
    clock.advance(seconds=5)

    assert look(worker) == timetable.LOOK_SECONDS

    assert engine.run(engine.list_schedules()).schedules == before.schedules


def test_a_job_waits_for_room_in_a_full_queue(
    engine: MemoryEngine,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(timetable.time, "monotonic", lambda: now[0])
    (worker,) = keepers(engine, scheduled(queue="tiny"))
    app = application()
    app.task(name="filler", queue="tiny")(nothing)
    engine.run(engine.append([filler(number) for number in range(12)], app.admission))
    clock.advance(seconds=1)

    pauses = [look(worker)]
    now[0] += 0.5
    pauses.append(look(worker))
    now[0] += 0.5
    pauses.append(look(worker))
    assert pauses == [pytest.approx(1.0), pytest.approx(0.5), pytest.approx(2.0)]
    assert len([it for it in caplog.records if "its job waits" in it.message]) == 1

    engine.run(engine.amend(Selection(), Delete()))
    now[0] += 2.0
    look(worker)

    assert dues(engine) == ["2030-01-01T00:00:01+00:00"]


def filler(number: int) -> Job:
    return Job(id=new_id(number), queue="tiny", task="filler", body=b"{}", parent=b"x" * 16)


def test_what_is_too_much_for_a_queue_at_once_comes_in_parts(
    engine: MemoryEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(timetable.time, "monotonic", lambda: now[0])
    (worker,) = keepers(engine, scheduled("all", queue="tiny"))
    clock.advance(seconds=100)  # 100 jobs, where there is room for 2 and a headroom of 10
    seen: list[str] = []

    for _ in range(60):
        look(worker)
        now[0] += 61
        seen += dues(engine)
        engine.run(engine.amend(Selection(), Delete()))

    assert seen == [f"2030-01-01T00:{it // 60:02}:{it % 60:02}+00:00" for it in range(1, 101)]


def test_an_engine_that_is_away_is_waited_for(clock: FakeClock) -> None:
    class Away(MemoryEngine):
        is_away = True

        async def arun(self, plan: Any) -> Any:
            if self.is_away:
                raise EngineUnavailable("the store is away")
            return self.run(plan)

    engine = Away(clock)
    worker = Timekeeper(engine, hello(scheduled()))

    async def back_soon() -> None:
        serving = asyncio.ensure_future(worker.serve())
        await asyncio.sleep(0.05)
        engine.is_away = False
        await until(lambda: names(engine) == ["tick"])
        serving.cancel()

    asyncio.run(back_soon())


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


# -- what code declares --


def test_declared_schedules_are_put_at_the_start(engine: MemoryEngine) -> None:
    keepers(engine, scheduled())

    (record,) = engine.run(engine.list_schedules()).schedules
    assert (record.name, record.task, record.is_declared) == ("tick", "tick", True)


def test_a_schedule_that_a_later_version_declares_otherwise_is_left_to_it(
    engine: MemoryEngine, clock: FakeClock
) -> None:
    (old,) = keepers(engine, scheduled())
    app = application()
    app.schedule(timedelta(minutes=5))(app.tasks["tick"])
    keepers(engine, app)
    after = engine.run(engine.list_schedules()).schedules

    clock.advance(minutes=5)
    asyncio.run(old.declare())

    assert engine.run(engine.list_schedules()).schedules == after


def test_what_is_due_by_the_old_rule_is_applied_before_the_new_one_begins(
    engine: MemoryEngine, clock: FakeClock
) -> None:
    keepers(engine, scheduled())
    clock.advance(seconds=1.5)
    app = application()
    app.schedule(timedelta(minutes=5))(app.tasks["tick"])

    keepers(engine, app)

    assert dues(engine) == ["2030-01-01T00:00:01+00:00"]


def test_a_schedule_is_kept_by_declaring_it_again(engine: MemoryEngine, clock: FakeClock) -> None:
    (worker,) = keepers(engine, scheduled())
    other = application()
    other.schedule(timedelta(minutes=5), name="gone")(other.tasks["tick"])
    keepers(engine, other)
    presence = Presence(owner="a", host="h", pid=1, queues=("default",), slots=1, running=0)
    engine.run(engine.announce(presence))
    for _ in range(4):
        for _ in range(10):  # a worker is alive all the time, or the silence would begin anew
            clock.advance(seconds=30)
            engine.run(engine.announce(presence))
        asyncio.run(worker.declare())
        engine.run(engine.sweep(100, Retention()))

    assert names(engine) == ["tick"]


def test_what_was_paused_or_put_by_hand_stays_so(engine: MemoryEngine, clock: FakeClock) -> None:
    (worker,) = keepers(engine, scheduled())
    engine.run(engine.alter_schedule("tick", Pause()))
    keepers(engine, scheduled())
    clock.advance(seconds=5)
    look(worker)

    assert jobs(engine) == []


def test_what_is_removed_comes_back_with_the_next_declaration(engine: MemoryEngine) -> None:
    (worker,) = keepers(engine, scheduled())
    engine.run(engine.alter_schedule("tick", Remove()))

    asyncio.run(worker.declare())

    assert names(engine) == ["tick"]


# -- in a worker --


@pytest.fixture
def running(every_url: str, tmp_path: Path) -> Iterator[Backlane]:
    with Backlane(every_url) as app:
        yield app


def test_a_worker_runs_schedules_and_hears_of_new_ones(running: Backlane) -> None:
    seen: list[tuple[str, float]] = []
    app = running

    @app.schedule(SECOND)
    @app.task(name="often")
    async def often() -> None:
        seen.append(("often", time.time()))

    @app.task(name="late")
    async def late() -> None:
        seen.append(("late", time.time()))

    async def watch() -> None:
        async with Worker(app):
            await until(lambda: len(seen) >= 2)
            await app.schedules.aput("late", Every(1), late)
            await until(lambda: ("late") in {name for name, _ in seen}, 12)

    asyncio.run(watch())

    assert isinstance(app.clock, SystemClock)
    times = [moment for name, moment in seen if name == "often"]
    assert all(moment % 1 < 0.5 for moment in times)  # soon after the full second
