"""Kill -9 of those who hold a limit's places: it is never passed, and no place is lost."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from tests.faults.fleet import fleet
from tests.faults.limited import AT_A_TIME, limited
from tests.faults.stores import SQLITE

from backlane.engine.selection import Redrive, Selection
from backlane.model.job import State

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

JOBS = 1_200 if os.environ.get("BACKLANE_PROVE") == "1" else 300
EVERY = 15  # jobs; then somebody is killed
LONGEST_SECONDS = 240

# Whoever gives a lease writes down, within its transaction, how many there are then.
WITNESS = """
    create table witness (leases integer not null);
    create trigger seen after insert on backlane_lease
    begin
        insert into witness
        select count(*)
        from backlane_lease;
    end;
"""


def test_three_at_a_time_are_never_four(
    tmp_path: Path, chance: random.Random, record_property: Callable[[str, object], None]
) -> None:
    with SQLITE.opened(tmp_path) as store:
        app, task = limited(store.url)
        app.engine.migrate()
        file = apsw.Connection(store.url.removeprefix("sqlite:///"))
        file.set_busy_timeout(5_000)
        file.execute(WITNESS)
        jobs = task.enqueue_many([((number,), {}) for number in range(JOBS)])
        target = "tests.faults.limited:app"
        with fleet(tmp_path, 4, store=store.url, target=target, processes=1) as workers:
            until = time.monotonic() + LONGEST_SECONDS
            killed_at = done = 0
            while done < JOBS and time.monotonic() < until:
                record = app.queue("default").record()
                done = record.succeeded
                if record.failed:  # killed alone three times by chance
                    engine = app.engine
                    engine.run(engine.amend(Selection(states=(State.FAILED,)), Redrive()))
                if done - killed_at >= EVERY:
                    killed_at = done
                    workers.kill_one(chance)
                workers.mend()
                time.sleep(0.01)
        seen = [number for (number,) in file.execute("select leases from witness")]
        (limit,) = app.engine.run(app.engine.list_limits())
        file.close()
        app.close()

    record_property("figure", f"{len(workers.kills)} kills, {len(seen)} leases")
    print(f"{len(workers.kills)} kills, {len(seen)} leases, at most {max(seen)} at a time")
    assert max(seen) == AT_A_TIME
    assert [job.state for job in jobs] == [State.SUCCEEDED] * JOBS
    assert (limit.running, limit.blocked) == (0, 0)
    assert len(workers.kills) >= JOBS // EVERY // 2
