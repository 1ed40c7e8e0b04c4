"""Schedules, while workers are killed and clocks are set: no due time makes two jobs."""

from __future__ import annotations

import contextlib
import random
import struct
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import psycopg
import pytest
from tests.faults.fleet import Fleet, fleet, wait_until
from tests.faults.history import Calls, Verdict, judge, read_diary
from tests.faults.scheduled import MOST, WAYS, scheduled
from tests.faults.stores import POSTGRES, SQLITE, Kind

from backlane import Backlane
from backlane.engine.selection import Selection
from backlane.model.ids import derived_id, id_ms
from backlane.model.job import State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

WORKERS = 3
HOURS = 7_200  # seconds that a clock jumps, to and fro
SECOND_MS, MINUTE_MS = 1_000, 60_000

# Whoever applies a schedule writes down, within its transaction, from when to when.
ON_SQLITE = """
    create table witness (
        at integer primary key,
        name text not null,
        from_ms integer not null,
        until_ms integer not null
    );
    create trigger seen after update of last_ms on backlane_schedule
    begin
        insert into witness (name, from_ms, until_ms)
        values (new.name, old.last_ms, new.last_ms);
    end;
"""
ON_POSTGRES = """
    create table witness (
        at bigint generated always as identity,
        name text not null,
        from_ms bigint not null,
        until_ms bigint not null
    );
    create function see() returns trigger language plpgsql as $$
    begin
        insert into public.witness (name, from_ms, until_ms)
        values (new.name, old.last_ms, new.last_ms);
        return null;
    end $$;
    create trigger seen after update of last_ms on backlane.schedule
    for each row execute function see();
"""


class Span(NamedTuple):
    """What one tick applied: all that was due after one moment and up to another."""

    name: str
    from_ms: int
    until_ms: int


@contextlib.contextmanager
def witnessed(url: str) -> Iterator[Callable[[], list[Span]]]:
    """Let the store write down each tick; yield what reads that."""
    if url.startswith("sqlite"):
        connection: Any = apsw.Connection(url.removeprefix("sqlite:///"))
        connection.set_busy_timeout(5_000)
        connection.execute(ON_SQLITE)
    else:
        connection = psycopg.connect(url, autocommit=True)
        connection.execute(ON_POSTGRES)
    reading = "select name, from_ms, until_ms from witness order by at"
    try:
        yield lambda: [Span(*row) for row in connection.execute(reading).fetchall()]
    finally:
        connection.close()


class Clocks:
    """The clock of each worker's machine; of one machine they are one."""

    def __init__(self, folder: Path, library: Path, machines: int) -> None:
        self._library = library
        self._files = [folder / f"skew-{number}" for number in range(machines)]
        self._skews = [0] * machines
        for file in self._files:
            file.write_bytes(bytes(8))

    def surroundings(self, worker: int) -> dict[str, str]:
        file = self._files[worker % len(self._files)]
        return {"LD_PRELOAD": str(self._library), "SKEW_FILE": str(file)}

    def jump(self, number: int, seconds: int) -> None:
        """Set a clock forward or back."""
        at = number % len(self._files)
        self._skews[at] += seconds
        with self._files[at].open("r+b") as file:
            file.write(struct.pack("@l", self._skews[at]))


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES], ids=lambda kind: kind.name)
def test_no_due_time_makes_two_jobs_though_clocks_jump_and_workers_die(
    kind: Kind,
    wrong_clock: Path,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    seconds, jump_every, kill_every = (300.0, 12.0, 5.0) if proving else (8.0, 1.5, 2.0)
    # Where the clock that jumps is the store's, it stands behind its peak for a while, and whoever
    # looked then looks again 5 s later only: chance may let a few seconds pass without a tick.
    least = seconds if kind is POSTGRES else WORKERS * 3
    # A file is on one machine, whose clock jumps for all; of several machines each has its
    # own, and none of them is asked.
    clocks = Clocks(tmp_path, wrong_clock, 1 if kind is SQLITE else WORKERS)
    target = "tests.faults.scheduled:app"

    with kind.opened(tmp_path) as store:
        app = scheduled(store.url, str(tmp_path / "diary"))
        app.engine.migrate()
        with (
            witnessed(store.url) as spans,
            fleet(tmp_path, 0, store=store.url, target=target, processes=1) as workers,
        ):
            for number in range(WORKERS):
                workers.start(**clocks.surroundings(number))
            wait_until(lambda: len({span.name for span in spans()}) == 3, 30, "all have fired")
            began = time.monotonic()
            jump_at, kill_at = began + 1.0, began + kill_every
            while (now := time.monotonic()) < began + seconds or (
                len(spans()) < least and now < began + 5 * seconds
            ):
                if now >= jump_at:
                    jump_at += jump_every
                    clocks.jump(
                        chance.randrange(WORKERS), chance.choice((HOURS, HOURS, HOURS, -HOURS))
                    )
                if now >= kill_at and time.time() % 1 < 0.1:  # just when jobs are made
                    kill_at += kill_every
                    victim = chance.choice(workers.workers)
                    workers.kill(victim.pid, is_supervisor=True)
                workers.mend()
                time.sleep(0.02)
            workers.stop()
            found = spans()
            # What had been made when all were told to stop is run by whoever comes next.
            jobs = _jobs(app)
            workers.workers.clear()
            verdict = _verdict(app, workers, jobs)
        app.close()

    told = f"{kind.name}: {len(found)} ticks of {len(jobs)} jobs, {verdict}"
    record_property("figure", told)
    print(told)
    assert {job: id_ms(job) for job in jobs} == {
        derived_id(moment, "schedule", way): moment
        for way in WAYS
        for moment in _due([span for span in found if span.name == way], way)
    }
    assert len(found) >= least
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]


def _due(spans: list[Span], way: str) -> list[int]:
    """Return the moments that ticks had to make jobs of: each span follows upon the last."""
    for before, after in pairwise(spans):
        assert before.until_ms == after.from_ms, f"{after} does not follow {before}"
    moments: list[int] = []
    for span in spans:
        first = span.from_ms // SECOND_MS + 1
        missed = [it * SECOND_MS for it in range(first, span.until_ms // SECOND_MS + 1)]
        if way == "none":
            missed = [it for it in missed if span.until_ms - it < MINUTE_MS]
        moments += missed[-(MOST if way == "all" else 1) :]
    return moments


def _jobs(app: Backlane) -> list[bytes]:
    """Return the id of every job of the store, as often as it is there."""
    found: list[bytes] = []
    cursor: bytes | None = None
    while True:
        page = app.engine.run(app.engine.find(Selection(), 1_000, cursor, brief=True))
        found += [record.id for record in page.records]
        if (cursor := page.cursor) is None:
            return found


def _verdict(app: Backlane, workers: Fleet, jobs: list[bytes]) -> Verdict:
    """Let one worker finish what is left, without new ticks; judge."""
    for way in WAYS:
        app.schedules.pause(way)
    workers.start()
    wait_until(lambda: app.queue("default").record().depth.jobs == 0, 30, "all jobs are done")
    workers.stop()
    records = [
        record
        for start in range(0, len(jobs), 200)
        for record in app.engine.run(
            app.engine.find(Selection(ids=tuple(jobs[start : start + 200])), 200)
        ).records
    ]
    finished = {record.id.hex() for record in records if record.state is State.SUCCEEDED}
    calls = Calls(acknowledged=dict.fromkeys((job.hex() for job in jobs), 0))
    diary = read_diary(workers.diary)
    assert diary.keys() <= calls.acknowledged.keys(), "what ran is not stored"
    return judge(calls, finished, diary, workers.kills)
