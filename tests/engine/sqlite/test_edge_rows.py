"""Rows of edges, tags, keys and steps: after any verbs they are those of the jobs there are."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.engine.test_graphs_alike import STEPS, Story

from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.model.clock import FakeClock

LEFT = """
    select blocked.seq, waits_for, (
        select count(*)
        from backlane_edge as edge
        where waiter = blocked.seq
        and is_open
        and job not in (select seq from backlane_finished)
    )
    from backlane_blocked as blocked
    where gate is null
"""
KNOWN = "select seq from backlane_job"
LIVING = "select seq from backlane_job where seq not in (select seq from backlane_finished)"
# What may be there of jobs that are not there any more: nothing.
ORPHANS = {
    "an edge of a job that ended": f"select * from backlane_edge where waiter not in ({LIVING})",
    "an edge to no job": f"select * from backlane_edge where job not in ({KNOWN})",
    "a list of a job that ended": f"select seq from backlane_awaited where seq not in ({LIVING})",
    "an edge to a job elsewhere": "select * from backlane_expected",
    "a step of no job": f"select * from backlane_step where seq not in ({KNOWN})",
    "a time of no job": f"select * from backlane_keep where seq not in ({KNOWN})",
    "a key of no job": """
        select * from backlane_unique_key
        where until < 3
        and seq not in (select seq from backlane_job where id = backlane_unique_key.id)
    """,
    "a key of a job that ended": f"""
        select * from backlane_unique_key where until < 2 and seq not in ({LIVING})
    """,
    "a key of a job that started": """
        select * from backlane_unique_key
        where until = 0 and seq in (select seq from backlane_lease)
    """,
}
KEPT = """
    select queue, state = 2, count(*)
    from backlane_keep
    join backlane_finished using (seq)
    group by 1, 2
"""
KEPT_COUNT = "select queue, is_failed, jobs from backlane_keep_count where jobs <> 0 order by 1, 2"
EXTRA = "select seq, extra from backlane_job where extra is not null"


def check(connection: apsw.Connection) -> None:
    for seq, waits_for, edges in connection.execute(LEFT):
        assert waits_for == edges, seq
    for what, query in ORPHANS.items():
        assert connection.execute(query).fetchall() == [], what
    told = {
        seq: set(array("q", jobs))
        for seq, jobs in connection.execute("select seq, jobs from backlane_awaited")
    }
    for job, waiter in connection.execute("select job, waiter from backlane_edge"):
        assert job in told[waiter]
    tags = Counter(
        (tag, seq)
        for seq, extra in connection.execute(EXTRA)
        for tag in set(decode_extra(extra).tags)
    )
    assert Counter(connection.execute("select name, seq from backlane_tag").fetchall()) == tags
    assert connection.execute(KEPT_COUNT).fetchall() == connection.execute(KEPT).fetchall()


@pytest.fixture
def story(path: Path, clock: FakeClock, seed: int) -> Iterator[Story]:
    engine = SqliteEngine(path, clock=clock)
    yield Story(engine, clock, seed)
    engine.close()


@pytest.mark.parametrize("seed", range(100, 108))
def test_rows_are_those_of_the_jobs_there_are(story: Story, path: Path, seed: int) -> None:
    story.append()
    connection = apsw.Connection(str(path))

    for _ in range(STEPS):
        story.step()
        check(connection)

    story.end()
    check(connection)
    assert connection.execute("select count(*) from backlane_edge").fetchall() == [(0,)]
    assert connection.execute("select count(*) from backlane_awaited").fetchall() == [(0,)]
