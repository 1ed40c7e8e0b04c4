"""Counters: after any verbs they equal the rows they count, and no job is in two places."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    retry,
    settlement,
    snooze,
)

from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.model.job import Lane
from backlane.model.limit import Limit, Rate, Use

OUTCOMES = [SUCCEEDED, FAILED, RELEASED, STOPPED, CRASHED, retry(0), retry(5), snooze(5)]
CHANGES = [Cancel(), Redrive(), Reprioritise(2), Reprioritise(9), Delete(), Move("other")]

COUNTED = """
    with place as (
        select seq, queue, 'scheduled' as state from backlane_scheduled
        union all select seq, queue, 'ready' from backlane_ready
        union all select seq, queue, 'running' from backlane_lease
        union all select seq, queue, 'blocked' from backlane_blocked
        union all select seq, queue, iif(state = 2, 'kept_failed', 'kept_done')
        from backlane_finished
    )
    select queue, priority, sum(state = 'scheduled'), sum(state = 'ready'),
        sum(state = 'running'), sum(state = 'blocked'), sum(iif(state like 'kept%', 0, size)),
        sum(state = 'kept_done'), sum(state = 'kept_failed')
    from place
    join backlane_job using (seq, queue)
    group by queue, priority
"""
KEPT = """
    select queue, priority, scheduled, ready, running, blocked, bytes, kept_done, kept_failed
    from backlane_counter
    where scheduled + ready + running + blocked + bytes + kept_done + kept_failed <> 0
"""
GROUPS = """
    select queue, group_name, count(*)
    from backlane_job
    where group_name is not null
    and seq not in (select seq from backlane_finished)
    group by queue, group_name
"""
HELD = "select queue, name, jobs from backlane_group order by queue, name"
PLACES = """
    select count(*) from (
        select seq from backlane_scheduled union all select seq from backlane_ready
        union all select seq from backlane_lease union all select seq from backlane_finished
        union all select seq from backlane_blocked
    )
"""


LEASED = "select seq, queue from backlane_lease"
READY = "select seq, queue from backlane_ready"
EXTRA = "select seq, extra from backlane_job where extra is not null"
BLOCKED = """
    select gate, queue, count(*)
    from backlane_blocked
    where gate is not null
    group by gate, queue
    order by gate, queue
"""
WAITING = "select gate, queue, blocked from backlane_gate_queue where blocked > 0 order by 1, 2"
HOLDERS = """
    select count(*)
    from backlane_gate
    where holder is not null
    and holder not in (
        select seq from backlane_job where seq not in (select seq from backlane_finished)
    )
"""
IDLE = """
    select count(*)
    from backlane_gate as gate
    where running = 0
    and holder is null
    and spent_us = 0
    and not exists (select 1 from backlane_gate_queue where gate = gate.id)
    and not exists (select 1 from backlane_acquired where gate = gate.id)
"""
USES = [(), (), (Use("stripe"),), (Use("eu"), Use("stripe")), (Use("turns", "a", turn=True),)]
USES += [(Use("stripe"), Use("turns", "b", turn=True)), (Use("fast"),)]
LIMITS = {
    "stripe": Limit(concurrency=2),
    "eu": Limit(concurrency=1),
    "fast": Limit(rate=Rate(2, 1_000)),
}


def check_gates(connection: apsw.Connection) -> None:
    """What gates count are the rows of the jobs that use them."""
    uses = {seq: decode_extra(extra).uses for seq, extra in connection.execute(EXTRA)}
    running, ready = Counter(), Counter()
    for seq, _ in connection.execute(LEASED):
        running.update((use.limit, use.part) for use in uses.get(seq, ()) if not use.turn)
    for seq, queue in connection.execute(READY):
        ready.update((use.limit, use.part, queue) for use in uses.get(seq, ()) if not use.turn)
    told = connection.execute("select name, part, running from backlane_gate where turn = 0")
    assert {row[:2]: row[2] for row in told if row[2]} == running
    told = connection.execute(
        """
        select name, part, queue, ready
        from backlane_gate_queue
        join backlane_gate on id = gate
        where ready <> 0
        """
    )
    assert {row[:3]: row[3] for row in told} == ready
    assert connection.execute(WAITING).fetchall() == connection.execute(BLOCKED).fetchall()
    assert connection.execute(HOLDERS).fetchall() == [(0,)]
    assert connection.execute(IDLE).fetchall() == [(0,)]


def step(desk: Desk, chance: random.Random) -> None:
    match chance.randrange(6):
        case 0 | 1:
            desk.add(
                chance.randint(1, 6),
                chance.choice(["mail", "other"]),
                priority=chance.randint(0, 9),
                delay_ms=chance.choice([0, 0, 3_000]),
                expires_ms=chance.choice([None, 20_000]),
                resource=chance.choice([None, None, "stripe"]),
                body=b"x" * chance.randint(0, 50),
                group=chance.choice([None, "acme", "zenith"]),
                uses=chance.choice(USES),
            )
        case 2 | 3:
            lane = chance.choice([None, Lane.SHARED])
            leases = desk.claim(chance.randint(0, 5), "mail", "other", lane=lane).leases
            kept = chance.sample(leases, len(leases) * 2 // 3)
            outcomes = [settlement(lease, chance.choice(OUTCOMES)) for lease in kept]
            desk.engine.run(desk.engine.settle(outcomes))
        case 4:
            found = desk.found_ids()
            ids = tuple(chance.sample(found, min(len(found), 4)))
            if ids:
                desk.engine.run(desk.engine.amend(Selection(ids=ids), chance.choice(CHANGES)))
        case 5:
            desk.clock.advance(seconds=chance.choice([1, 10, 40, 400]))
            desk.sweep(chance.randint(1, 20), done_jobs=5, failed_jobs=5, least_ms=0)


@pytest.mark.parametrize("seed", range(8))
def test_counters_equal_rows_after_random_verbs(desk: Desk, path: Path, seed: int):
    chance = random.Random(seed)
    desk.limits |= LIMITS
    desk.fair = {"other"} if seed % 2 else set()
    desk.add()
    connection = apsw.Connection(str(path))

    for _ in range(60):
        step(desk, chance)
        counted = sorted(connection.execute(COUNTED).fetchall())
        assert sorted(connection.execute(KEPT).fetchall()) == counted
        assert connection.execute(HELD).fetchall() == connection.execute(GROUPS).fetchall()
        check_gates(connection)

    (jobs,) = connection.execute("select count(*) from backlane_job").fetchall()
    assert connection.execute(PLACES).fetchall() == [jobs]
    assert jobs[0] > 0
