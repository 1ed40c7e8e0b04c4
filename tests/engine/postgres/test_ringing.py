"""Rings between processes: soon, coalesced, only to who listens, and never relied on.

Two engines of one process are two processes to each other: each has its own connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator

import psycopg
import pytest
from tests.engine.postgres.bench import end, ringing
from tests.servers import pgbouncer
from tests.servers.missing import Missing, give_up

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.bells.bell import Bell
from backlane.engine.postgres.store.transaction import PostgresTx, Rings
from backlane.model.ids import new_id

SOON = 3.0

TOLD: Sql[tuple[int]] = Sql(
    "select pid from pg_stat_activity where query ilike 'select pg_notify%' or query ~* '^listen'"
)


@pytest.fixture
def other(url: str) -> Iterator[PostgresEngine]:
    made = PostgresEngine(url)
    yield made
    made.close()


def fresh_id() -> bytes:
    return new_id(time.time_ns() // 1_000_000)


def settled(bell: Bell) -> None:
    """Wait until the bell hears of other processes: that it does is itself a ring."""
    assert bell.heard(SOON)
    while bell.heard(0.05):
        pass


def test_a_commit_of_another_process_rings(engine: PostgresEngine, other: PostgresEngine):
    bell = engine.listen(["mail"])
    settled(bell)

    other.run(ringing(["mail"]))

    assert bell.heard(SOON)
    bell.close()


def test_other_queues_do_not(engine: PostgresEngine, other: PostgresEngine):
    bell = engine.listen(["mail"])
    settled(bell)

    other.run(ringing(["video"]))

    assert not bell.heard(0.3)
    bell.close()


def test_a_watcher_hears_whose_job_it_was(engine: PostgresEngine, other: PostgresEngine):
    mine, theirs = fresh_id(), fresh_id()
    bell = engine.watch([mine, theirs])
    settled(bell)

    async def wait() -> set[bytes]:
        await other.arun(ringing(jobs=[theirs, fresh_id()]))
        return await bell.arang(SOON)

    assert asyncio.run(wait()) == {theirs}
    bell.close()


def test_starts_ring_those_who_asked_for_them(engine: PostgresEngine, other: PostgresEngine):
    job = fresh_id()
    ends, starts = engine.watch([job]), engine.watch([job], starts=True)
    settled(ends)
    settled(starts)

    other.run(ringing(starts=[job]))

    assert starts.heard(SOON)
    assert not ends.heard(0.2)
    ends.close()
    starts.close()


def test_a_job_watched_later_is_heard_of_too(engine: PostgresEngine, other: PostgresEngine):
    bell = engine.watch([fresh_id()])
    settled(bell)
    later = fresh_id()
    bell.add([later])

    other.run(ringing(jobs=[later]))

    assert bell.heard(SOON)
    bell.close()


def test_thousands_of_jobs_at_once_ring(engine: PostgresEngine, other: PostgresEngine):
    for number in (1_500, 10_000):
        jobs = [fresh_id() for _ in range(number)]
        bell = engine.watch(jobs[-1:])
        bell.heard(0.3)
        settled_again(bell)

        other.run(ringing(jobs=jobs))

        assert bell.heard(SOON), number
        bell.close()


def settled_again(bell: Bell) -> None:
    while bell.heard(0.1):
        pass


def test_rings_come_soon(engine: PostgresEngine, other: PostgresEngine):
    """Commits that come one by one are told at once; 50 ms is what a busy machine takes."""
    bell = engine.listen(["mail"])
    settled(bell)
    waits = []
    for _ in range(40):
        began = time.perf_counter()
        other.run(ringing(["mail"]))
        assert bell.heard(SOON)
        waits.append(time.perf_counter() - began)
        time.sleep(0.025)

    assert statistics.median(waits) < 0.05
    bell.close()


def test_many_commits_are_told_together(
    engine: PostgresEngine, other: PostgresEngine, url: str, server
):
    """Each message to all costs every listener a look: there are few of them."""
    bell = engine.listen(["mail"])
    settled(bell)
    links, rings = other._own(), Rings()
    rings.queues.add("mail")
    with psycopg.connect(server.url, autocommit=True) as listener:
        listener.execute(f'listen "{links.side.channel}"')
        for _ in range(1_000):
            links.ring(rings)
        told = len(list(listener.notifies(timeout=0.5)))

    assert 1 <= told <= 20
    bell.close()


def test_nobody_is_told_where_nobody_listens(engine: PostgresEngine, server):
    with psycopg.connect(server.url, autocommit=True) as listener:
        engine.run(ringing(["mail"]))
        listener.execute(f'listen "{engine._own().side.channel}"')
        for _ in range(20):
            engine.run(ringing(["mail"], [fresh_id()]))
        told = list(listener.notifies(timeout=0.3))

    assert told == []


def test_who_begins_to_wait_is_heard_at_once(engine: PostgresEngine, other: PostgresEngine):
    """A worker that rings for queues only learns the same moment that a result is wanted."""
    theirs = other.listen(["mail"])
    settled(theirs)
    other.run(ringing(jobs=[fresh_id()]))  # nobody waits for jobs: known for a second
    time.sleep(0.1)
    job = fresh_id()
    bell = engine.watch([job])
    settled(bell)

    other.run(ringing(jobs=[job]))

    assert bell.heard(0.5)
    bell.close()
    theirs.close()


def test_a_lost_connection_rings_once_it_is_back(engine: PostgresEngine, other: PostgresEngine):
    bell = engine.listen(["mail"])
    settled(bell)

    for pid in _listeners(other):
        with contextlib.suppress(Exception):
            other.run(end(pid))

    settled(bell)
    other.run(ringing(["mail"]))
    assert bell.heard(SOON)
    bell.close()


def test_bells_go_on_when_the_engine_is_closed_and_opens_anew(
    engine: PostgresEngine, other: PostgresEngine
):
    bell = engine.listen(["mail"])
    settled(bell)
    engine.close()

    engine.run(ringing())
    again = engine.listen(["video"])
    settled(again)
    other.run(ringing(["mail"]))

    assert bell.heard(SOON)
    bell.close()
    again.close()


def test_behind_a_pooler_commits_are_told_and_not_heard(engine: PostgresEngine, url: str):
    """LISTEN needs a session of its own; NOTIFY does not."""
    try:
        pooled = PostgresEngine(f"{pgbouncer.pooled()}?{url.partition('?')[2]}")
    except Missing as why:
        give_up("engine postgresql-pgbouncer", why)
    bell = engine.listen(["mail"])
    settled(bell)
    deaf = pooled.listen(["mail"])

    pooled.run(ringing(["mail"]))
    assert bell.heard(SOON)
    assert deaf.heard(SOON)  # its own commits it knows of
    engine.run(ringing(["mail"]))
    assert not deaf.heard(0.3)

    assert pooled._own().opener.is_pooled
    bell.close()
    pooled.close()


def _listeners(engine: PostgresEngine) -> list[int]:
    async def within(tx: PostgresTx) -> list[int]:
        return [pid for (pid,) in await tx.rows(TOLD)]

    return engine.run(Plan(within, reads=True))
