"""The parts of the history: made ahead of their first job, dropped when nothing is left."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from tests.engine.postgres.test_claiming import claimed, done
from tests.engine.postgres.test_exact_admission import MAIL, in_threads, new_job

from backlane.engine.postgres import PostgresEngine
from backlane.engine.retention import Retention
from backlane.engine.selection import Selection

SIZE = 1 << 20
PARTS = """
    select relname from pg_inherits
    join pg_class on pg_class.oid = inhrelid
    where inhparent = 'finished'::regclass
    order by relname
"""
KEPT = Retention()
NOTHING_KEPT = Retention(done_ms=0, least_ms=0)


@pytest.fixture
def behind(url: str) -> Iterator[psycopg.Connection]:
    """A connection that looks behind the engine."""
    server, _, options = url.partition("?schema=")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'set search_path = "{options}"')
        yield connection


def run_one(engine: PostgresEngine) -> bytes:
    job = new_job()
    engine.run(engine.append([job], MAIL))
    engine.run(engine.settle(done(claimed(engine, 1))))
    return job.id


def sweep(engine: PostgresEngine, retention: Retention = KEPT) -> None:
    engine.run(engine.sweep(1_000, retention))


def state(engine: PostgresEngine, job: bytes) -> list[str]:
    page = engine.run(engine.find(Selection(ids=(job,))))
    return [str(record.state) for record in page.records]


def go_to(behind: psycopg.Connection, part: int) -> None:
    """Let the next job belong to this part."""
    behind.execute("select setval('job_seq', %s)", [part * SIZE])


def test_a_sweep_makes_parts_ahead_and_drops_empty_ones(
    engine: PostgresEngine, behind: psycopg.Connection
) -> None:
    run_one(engine)
    go_to(behind, 4)

    sweep(engine, NOTHING_KEPT)  # forgets the first job
    sweep(engine)

    parts = {name for (name,) in behind.execute(PARTS)}
    assert parts == {"finished_5", "finished_6", "finished_rest"}


def test_sweeps_at_the_same_moment_make_a_part_once(
    engine: PostgresEngine, behind: psycopg.Connection
) -> None:
    for part in range(4, 9):
        go_to(behind, part)
        in_threads(4, lambda _: sweep(engine))

    parts = {name for (name,) in behind.execute(PARTS)}
    assert {"finished_9", "finished_10"} <= parts


def test_a_part_is_kept_while_anything_in_it_is(
    engine: PostgresEngine, behind: psycopg.Connection
) -> None:
    old = run_one(engine)
    go_to(behind, 4)

    sweep(engine)

    assert ("finished_0",) in behind.execute(PARTS).fetchall()
    assert state(engine, old) == ["succeeded"]


def test_jobs_end_where_no_part_was_made(
    engine: PostgresEngine, behind: psycopg.Connection
) -> None:
    go_to(behind, 40)  # nobody swept for forty million jobs

    job = run_one(engine)

    assert state(engine, job) == ["succeeded"]
    assert behind.execute("select count(*) from finished_rest").fetchone() == (1,)
    sweep(engine, NOTHING_KEPT)
    assert state(engine, job) == []


def test_a_sweep_that_cannot_have_the_lock_leaves_it_to_the_next(
    engine: PostgresEngine, behind: psycopg.Connection, url: str
) -> None:
    go_to(behind, 4)
    with psycopg.connect(url.partition("?")[0]) as other:
        schema = url.rpartition("=")[2]
        other.execute(f'select count(*) from "{schema}".finished')

        sweep(engine)

    assert ("finished_5",) not in behind.execute(PARTS).fetchall()
    sweep(engine)
    assert ("finished_5",) in behind.execute(PARTS).fetchall()
