"""Many tickers on one timetable, on a clock that jumps: each due time is one job."""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from tests.engine.contract import engines

from backlane.engine.connect import connect
from backlane.engine.protocol import Admission, Engine
from backlane.engine.scheduling import Put, Tick
from backlane.engine.selection import Selection
from backlane.model.clock import FakeClock
from backlane.model.ids import derived_id
from backlane.model.job import Job
from backlane.model.queue import Bounds
from backlane.model.schedule import CatchUp, Every, encode_spec, spec_of
from backlane.tick import ticks

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

TICKS = 10_000 if os.environ.get("BACKLANE_PROVE") == "1" else 600  # that are applied
TICKERS = 4
MOST = 10  # that "all" catches up with
WAYS: tuple[CatchUp, ...] = ("none", "latest", "all")
SECONDS = (1, 2, 3, 5, 7, 60, 100)
ADMISSION = Admission({"default": Bounds(max_jobs=10_000_000)})
TEMPLATE = Job(id=bytes(16), queue="default", body=b"{}", task="send")


@dataclass
class Ticker:
    """One of those that look at the timetable, and what it was told that it applied."""

    engine: Engine
    applied: list[Tick] = field(default_factory=list)

    def look(self, start: threading.Barrier, chance: random.Random) -> None:
        """Read and tick at the same moments as the others do, in an order of one's own."""
        start.wait()
        timetable = self.engine.run(self.engine.list_schedules(due=True))
        found = ticks(timetable, {"send": TEMPLATE}, _fail)
        chance.shuffle(found)
        start.wait()
        answers = self.engine.run(self.engine.tick(found, ADMISSION))
        assert not any(answer.refusal for answer in answers)
        self.applied += [
            tick for tick, answer in zip(found, answers, strict=True) if answer.is_applied
        ]


def _fail(name: str, error: Exception) -> None:
    raise error


@pytest.mark.parametrize("maker", engines.MAKERS, ids=lambda maker: maker.name)
def test_many_who_tick_make_one_job_of_each_due_time(
    maker: engines.Maker,
    tmp_path: Path,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    clock = FakeClock()
    began = clock.wall_ms()
    with maker.place(tmp_path, clock) as url:
        shared = connect(url, clock)  # memory is of one engine alone
        tickers = [
            Ticker(shared if url == "memory://" else connect(url, clock)) for _ in range(TICKERS)
        ]
        spans = _put_all(shared)
        with ThreadPoolExecutor(TICKERS) as pool:
            while sum(len(ticker.applied) for ticker in tickers) < TICKS:
                _pass_time(clock, chance)
                start = threading.Barrier(TICKERS)
                list(pool.map(lambda it: it.look(start, chance), tickers))  # noqa: B023 - ends here
        stored = _stored(shared)
        for engine in {id(it.engine): it.engine for it in tickers}.values():
            engine.close()
        shared.close()

    applied = [tick for ticker in tickers for tick in ticker.applied]
    record_property("figure", f"{maker.name}: {len(applied)} ticks, {len(stored)} jobs")
    assert len(stored) == len(set(stored))
    assert sorted(stored) == sorted(job.id for tick in applied for job in tick.jobs)
    assert sorted(stored) == sorted(_expected(applied, spans, began))
    assert sum(bool(ticker.applied) for ticker in tickers) > 1, "there was no race"


def _put_all(engine: Engine) -> dict[str, tuple[CatchUp, int]]:
    """Put a schedule for each interval and each way to catch up."""
    made: dict[str, tuple[CatchUp, int]] = {}
    for way in WAYS:
        for seconds in SECONDS:
            spec = encode_spec(spec_of(Every(seconds), catch_up=way, most=MOST))
            name = f"{way}-{seconds}"
            engine.run(engine.alter_schedule(name, Put(spec=spec, task="send")))
            made[name] = (way, seconds * 1_000)
    return made


def _pass_time(clock: FakeClock, chance: random.Random) -> None:
    """Let a while pass; now and then the clock is set, or nobody looks for long."""
    clock.advance(seconds=chance.uniform(0.2, 6.0))
    what = chance.random()
    if what < 0.02:
        clock.jump(hours=chance.choice((-2, 2)))
    elif what < 0.06:
        clock.jump(seconds=chance.uniform(-30, 30))
    elif what < 0.08:
        clock.advance(seconds=chance.uniform(60, 7_200))
    elif what < 0.3:
        clock.jump(hours=2)  # so that it does not stay behind where it was


def _stored(engine: Engine) -> list[bytes]:
    found: list[bytes] = []
    cursor: bytes | None = None
    while True:
        page = engine.run(engine.find(Selection(), 1_000, cursor, brief=True))
        found += [record.id for record in page.records]
        if (cursor := page.cursor) is None:
            return found


def _expected(
    applied: list[Tick], spans: dict[str, tuple[CatchUp, int]], began: int
) -> list[bytes]:
    """Return the jobs of ticks that follow upon each other, counted out one by one."""
    ends: dict[str, list[int]] = defaultdict(list)
    for tick in applied:
        ends[tick.name].append(tick.last_ms)
    found: list[bytes] = []
    for name, (way, interval) in spans.items():
        for after, until in pairwise([began, *sorted(ends[name])]):
            first = after - after % interval + interval
            missed = list(range(first, until + 1, interval))
            if way == "none":
                missed = [it for it in missed if until - it < 60_000]
            counted = missed[-(MOST if way == "all" else 1) :]
            found += [derived_id(moment, "schedule", name) for moment in counted]
    return found
