"""Kill -9 while workflows run: each callback runs once, no leaf is lost or settled twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.faults.fleet import Fleet, fleet
from tests.faults.history import Calls, Verdict, judge, read_diary
from tests.faults.stores import POSTGRES, REDIS, SQLITE, Kind
from tests.faults.woven import SMALL, SMALL_BOUND, Woven, woven

from backlane import WorkflowHandle, chord
from backlane.engine.selection import Redrive, Selection
from backlane.model.job import JobRecord, State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1_800)]

WORKERS = 3
TARGET = "tests.faults.woven:app"
LONGEST_SECONDS = 1_500


class Kills(NamedTuple):
    """How often somebody is killed, and how often at most."""

    every: float  # seconds
    most: int = 1_000_000


FEW = Kills(0.25, 5)
KINDS = pytest.mark.parametrize("kind", [SQLITE, POSTGRES, REDIS], ids=lambda kind: kind.name)


@KINDS
def test_each_callback_of_a_chord_runs_once_whoever_is_killed(
    kind: Kind,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    chords, leaves, kills = (1_000, 100, Kills(1.0)) if proving else (30, 20, FEW)

    with (
        kind.opened(tmp_path) as store,
        fleet(tmp_path, 0, store=store.url, lease=kind.lease, target=TARGET) as workers,
    ):
        work = woven(store.url)
        work.app.engine.migrate()
        diary = str(workers.diary)
        runs = [
            chord(
                [work.leaf.node(number * leaves + it) for it in range(leaves)],
                work.gather.node(diary=diary),
            ).enqueue()
            for number in range(chords)
        ]
        began = time.monotonic()
        for _ in range(WORKERS):
            workers.start()
        _kill_until_ended(work, workers, chance, kills)
        seconds = time.monotonic() - began
        records = _records(work)
        verdict = _judge(workers, runs, records)
        results = [run.result(timeout=5) for run in runs]
        counts = work.app.queue("default").record()
        work.app.close()

    told = f"{kind.name}: {chords} chords of {leaves} in {seconds:.0f} s, {verdict}"
    record_property("figure", told)
    print(told)
    assert results == [
        [leaves, sum(range(number * leaves, (number + 1) * leaves))] for number in range(chords)
    ]
    # Each settled once: the store counts what ends, and has no job more than we made.
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert len({record.id for record in records}) == len(records)
    assert sum(record.task == "leaf" for record in records) == chords * leaves
    assert sum(record.task == "gather" for record in records) == chords
    assert (counts.succeeded, counts.depth.jobs) == (len(records), 0)
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]
    assert len(workers.kills) >= 2


@KINDS
def test_a_map_through_a_small_queue_loses_no_leaf_whoever_is_killed(
    kind: Kind,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    number, kills = (10 * SMALL_BOUND, Kills(0.5)) if proving else (3 * SMALL_BOUND, FEW)

    with (
        kind.opened(tmp_path) as store,
        fleet(tmp_path, 0, store=store.url, lease=kind.lease, target=TARGET) as workers,
    ):
        work = woven(store.url)
        work.app.engine.migrate()
        run: WorkflowHandle[Any] = work.small.map(range(number)).enqueue()
        for _ in range(WORKERS):
            workers.start()
        deepest = _kill_until_ended(work, workers, chance, kills, SMALL)
        records = _records(work)
        result = run.result(timeout=5)
        counts = work.app.queue(SMALL).record()
        work.app.close()

    told = f"{kind.name}: {number} leaves, at most {deepest} at a time, {len(workers.kills)} kills"
    record_property("figure", told)
    print(told)
    assert result == list(range(number))
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert sum(record.task == "small" for record in records) == number
    assert counts.depth.jobs == 0
    assert deepest <= SMALL_BOUND * 1.1 + 1
    assert len(workers.kills) >= 2


def _kill_until_ended(
    work: Woven, workers: Fleet, chance: random.Random, kills: Kills, queue: str = "default"
) -> int:
    """Kill somebody now and then until nothing waits or runs; return how deep the queue was."""
    engine = work.app.engine
    until = time.monotonic() + LONGEST_SECONDS
    kill_at, deepest = 0.0, 0
    while True:
        queues = engine.run(engine.list_queues())
        deepest = max([deepest, *(it.depth.jobs for it in queues if it.name == queue)])
        if any(it.failed for it in queues):  # killed alone three times by chance
            bad = Selection(states=(State.FAILED, State.CANCELLED))
            engine.run(engine.amend(bad, Redrive()))
        elif not any(it.depth.jobs for it in queues):
            return deepest
        has_begun = any(it.succeeded for it in queues)
        if has_begun and time.monotonic() >= kill_at and len(workers.kills) < kills.most:
            kill_at = time.monotonic() + kills.every
            workers.kill_one(chance)
        workers.mend()
        assert time.monotonic() < until, queues
        time.sleep(0.02)


def _records(work: Woven) -> list[JobRecord]:
    """Return all jobs of the store, without their bodies."""
    engine, found, cursor = work.app.engine, list[JobRecord](), None
    while True:
        page = engine.run(engine.find(Selection(), 1_000, cursor, brief=True))
        found += page.records
        if (cursor := page.cursor) is None:
            return found


def _judge(
    workers: Fleet, runs: list[WorkflowHandle[list[int]]], records: list[JobRecord]
) -> Verdict:
    finished = {it.id.hex() for it in records if it.state is State.SUCCEEDED}
    calls = Calls(acknowledged={run.id.hex: 0 for run in runs})
    return judge(calls, finished, read_diary(workers.diary), workers.kills)
