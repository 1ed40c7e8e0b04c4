"""Kill -9 of whoever pays: every account is paid exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest
from tests.faults.fleet import Fleet, fleet
from tests.faults.payer import ACCOUNTS, Payer, payer
from tests.faults.stores import POSTGRES, SQLITE, Kind

from backlane.engine.selection import Redrive, Selection
from backlane.handle import JobHandle
from backlane.model.job import State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

JOBS = 240 if os.environ.get("BACKLANE_PROVE") == "1" else 60
EVERY = 6  # payments; then somebody is killed
LONGEST_SECONDS = 180
FEW = {"processes": 1, "concurrency": 2}  # at a time, so that kills find most of them at work


@contextlib.contextmanager
def bank(url: str) -> Iterator[Any]:
    """Open the accounts, which are in the store of the jobs; yield what executes SQL there."""
    if url.startswith("sqlite"):
        connection: Any = apsw.Connection(url.removeprefix("sqlite:///"))
        connection.set_busy_timeout(5000)
    else:
        connection = psycopg.connect(url, autocommit=True)
    try:
        connection.execute(ACCOUNTS)
        for account in range(JOBS):
            connection.execute(f"insert into account (id) values ({account})")
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES], ids=lambda kind: kind.name)
def test_a_killed_payer_pays_once(
    kind: Kind,
    tmp_path: Path,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    with kind.opened(tmp_path) as store:
        work = payer(store.url)
        work.app.engine.migrate()
        target = "tests.faults.payer:app"
        with (
            bank(store.url) as accounts,
            fleet(tmp_path, 2, store=store.url, target=target, **FEW) as workers,
        ):
            jobs = _pay_all(work, workers, chance)
            paid = accounts.execute("select id, paid from account order by id").fetchall()
            attempts = [job.record().attempt for job in jobs]
        work.app.close()

    again = sum(number > 1 for number in attempts)
    record_property("figure", f"{kind.name}: {len(workers.kills)} kills, {again} started again")
    print(f"{kind.name}: {len(workers.kills)} kills, {again} of {JOBS} started again")
    assert [number for _, number in paid] == [1] * JOBS
    assert len(workers.kills) >= JOBS // EVERY // 2


def _pay_all(work: Payer, workers: Fleet, chance: random.Random) -> list[JobHandle[int]]:
    """Enqueue a payment for each account, and kill while they are paid, until all are."""
    tasks = work.tasks
    jobs = [tasks[account % len(tasks)].enqueue(account) for account in range(JOBS)]
    until = time.monotonic() + LONGEST_SECONDS
    killed_at = done = 0
    while done < JOBS and time.monotonic() < until:
        record = work.app.queue("default").record()
        done = record.succeeded
        if record.failed:  # killed alone three times by chance: that is as far as trust goes
            engine = work.app.engine
            engine.run(engine.amend(Selection(states=(State.FAILED,)), Redrive()))
        if done - killed_at >= EVERY:
            killed_at = done
            workers.kill_one(chance)
        workers.mend()
        time.sleep(0.01)
    assert [job.state for job in jobs] == [State.SUCCEEDED] * JOBS
    return jobs
