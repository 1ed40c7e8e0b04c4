"""Kill -9 between the steps of jobs: what is kept is not done again, and nothing is skipped."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.fleet import fleet
from tests.faults.stores import POSTGRES, REDIS, SQLITE, Kind
from tests.faults.woven import STEPS, woven

from backlane.engine.selection import Redrive, Selection
from backlane.model.job import State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES, REDIS], ids=lambda kind: kind.name)
def test_a_step_that_is_kept_is_not_done_again(
    kind: Kind,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    number, every, most = (1_500, 1.0, 1_000) if proving else (60, 0.3, 8)

    with (
        kind.opened(tmp_path) as store,
        fleet(
            tmp_path, 2, store=store.url, lease=kind.lease, target="tests.faults.woven:app"
        ) as workers,
    ):
        work = woven(store.url)
        engine = work.app.engine
        engine.migrate()
        jobs = work.stride.enqueue_many([((str(workers.diary),), {}) for _ in range(number)])
        kill_at, seen = 0.0, 0
        until = time.monotonic() + 300
        while (counts := work.app.queue("strides").record()).succeeded < number:
            if counts.failed:  # killed alone three times by chance
                engine.run(engine.amend(Selection(states=(State.FAILED,)), Redrive()))
            written = workers.diary.stat().st_size if workers.diary.exists() else 0
            is_due = time.monotonic() >= kill_at and len(workers.kills) < most
            if is_due and written > seen:  # somebody is at work again
                kill_at, seen = time.monotonic() + every, written
                if len(workers.kills) % 2:
                    workers.kill_one(chance)
                else:
                    victim = chance.choice(workers.workers)
                    workers.kill(victim.pid, is_supervisor=True)
            workers.mend()
            assert time.monotonic() < until, counts
            time.sleep(0.02)
        results = [job.result(timeout=5) for job in jobs]
        again = sum(job.record().attempt > 1 for job in jobs)
        work.app.close()

    told = f"{kind.name}: {len(workers.kills)} kills, {again} of {number} jobs started again"
    record_property("figure", told)
    print(told)
    assert results == [[10 * step for step in range(STEPS)]] * number
    diary: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for line in workers.diary.read_text().splitlines():
        job, what, step = line.split()
        diary[job].append((what, int(step)))
    for lines in diary.values():
        _check(lines)
    assert len(diary) == number
    assert again > 0


def _check(lines: list[tuple[str, int]]) -> None:
    """Judge one job: each step done before the next, and never once it was kept."""
    kept = -1
    for what, step in lines:
        if what == "done":
            assert step == kept + 1 or step > kept, f"step {step} is done again: {lines}"
        else:
            assert ("done", step) in lines, f"step {step} was skipped: {lines}"
            kept = max(kept, step)
    assert kept == STEPS - 1
    assert [step for what, step in dict.fromkeys(lines) if what == "done"] == list(range(STEPS))
