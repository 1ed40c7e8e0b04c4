"""Counters: after any verbs they equal the rows they count, and no job is in two places."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
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
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import Key, Lane

OUTCOMES = [SUCCEEDED, FAILED, RELEASED, STOPPED, CRASHED, retry(0), retry(5), snooze(5)]
CHANGES = [Cancel(), Redrive(), Reprioritise(2), Reprioritise(9), Delete(), Move("other")]

PLACES = """
    select seq, queue, 'scheduled' as state from scheduled
    union all select seq, queue, 'ready' from ready
    union all select seq, queue, 'running' from lease
    union all select seq, queue, 'kept_failed' from failed
    union all select seq, queue, 'kept_done' from finished
"""
COUNTED = f"""
    select queue, priority, count(*) filter (where state = 'scheduled'),
        count(*) filter (where state = 'ready'), count(*) filter (where state = 'running'),
        coalesce(sum(size) filter (where state not like 'kept%'), 0),
        count(*) filter (where state = 'kept_done'),
        count(*) filter (where state = 'kept_failed')
    from ({PLACES}) as place
    join job using (seq, queue)
    group by queue, priority
    order by queue, priority
"""
KEPT = """
    select queue, priority, scheduled, ready, running, bytes, kept_done, kept_failed
    from counted
    where scheduled + ready + running + bytes + kept_done + kept_failed <> 0
    order by queue, priority
"""
GROUPS = """
    select queue, group_name, count(*)
    from job
    where group_name is not null
    and seq not in (select seq from ended)
    group by queue, group_name
    order by queue, group_name
"""
HELD = """
    select queue, name, sum(jobs)
    from (select queue, name, jobs from group_counter
        union all select queue, name, jobs from group_tally) as part
    group by queue, name
    having sum(jobs) <> 0
    order by queue, name
"""
KEYS = """
    select count(*) from unique_key full join (
        select seq from job where key_name is not null and seq not in (select seq from ended)
    ) as holder using (seq)
    where unique_key.seq is null or holder.seq is null
"""
OVERDUE = """
    select count(*) from deadline where seq in (select seq from ended)
    or seq not in (select seq from job)
"""


@pytest.fixture
def desk(server: postgres.Shared) -> Iterator[tuple[Desk, psycopg.Connection]]:
    """A desk, and a connection that looks behind it."""
    clock = FakeClock()
    with server.schema(clock) as schema, psycopg.connect(server.url, autocommit=True) as behind:
        behind.execute(f'set search_path = "{schema}"')
        engine = PostgresEngine(f"{server.url}?schema={schema}", clock=clock)
        yield Desk(engine, clock), behind
        engine.close()


def _key(number: int) -> Key | None:
    """Some jobs have one, and some of those the same."""
    return Key("t", str(number)) if number % 3 else None


def step(desk: Desk, chance: random.Random) -> None:
    match chance.randrange(6):
        case 0 | 1:
            fields = {
                "queue": chance.choice(["mail", "other"]),
                "priority": chance.randint(0, 9),
                "delay_ms": chance.choice([0, 0, 3_000]),
                "expires_ms": chance.choice([None, 20_000]),
                "resource": chance.choice([None, None, "stripe"]),
                "body": b"x" * chance.randint(0, 50),
                "group": chance.choice([None, "acme", "zenith"]),
            }
            number = chance.randint(0, 9)
            jobs = [desk.job(**fields, key=_key(number + i)) for i in range(chance.randint(1, 6))]
            desk.append(*jobs)
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


@pytest.mark.parametrize("seed", range(4))
def test_counters_equal_rows_after_random_verbs(
    desk: tuple[Desk, psycopg.Connection], seed: int
) -> None:
    desk_, behind = desk
    chance = random.Random(seed)
    desk_.add()

    for _ in range(60):
        step(desk_, chance)
        assert behind.execute(KEPT).fetchall() == behind.execute(COUNTED).fetchall()
        assert behind.execute(HELD).fetchall() == behind.execute(GROUPS).fetchall()
        assert behind.execute(KEYS).fetchone() == (0,)
        assert behind.execute(OVERDUE).fetchone() == (0,)

    jobs = behind.execute("select count(*) from job").fetchone()
    assert behind.execute(f"select count(*) from ({PLACES}) as place").fetchone() == jobs
    assert jobs is not None
    assert jobs[0] > 0
