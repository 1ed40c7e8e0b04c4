"""Migrations: a file of the first version, with work in it, goes on as if always new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk, firsts, settlement

from backlane.engine.protocol import Tune
from backlane.engine.selection import Cancel, Delete
from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.store.connection import read_boot_id
from backlane.engine.sqlite.store.migrations import available
from backlane.model.clock import FakeClock
from backlane.model.job import DEFAULT_RULE, Edge, Key, Lease, Refusal, State, When
from backlane.model.limit import Limit, Use
from backlane.model.queue import Bounds

READY, DUE_LATER, RUNNING, DONE, ALONE = (number.to_bytes(16) for number in range(1, 6))
HALF = Bounds(max_jobs=6, group_share=0.5)  # three of six

# One job in each state, all of group acme but the last.
WORK = """
    insert into backlane_queue (id, name, kind, declared_jobs, declared_bytes)
    values (1, 'mail', 'tasks', 100, 1000);
    insert into backlane_job (seq, id, queue, lane, priority, place, enqueued_ms, size, task,
        group_name, body)
    values (1, :ready, 1, 0, 5, :now, :now, 2, 'send', 'acme', x'7b7d'),
        (2, :later, 1, 0, 5, :now + 60000, :now, 2, 'send', 'acme', x'7b7d'),
        (3, :running, 1, 0, 5, :now, :now, 2, 'send', 'acme', x'7b7d'),
        (4, :done, 1, 0, 5, :now, :now, 2, 'send', 'acme', x'7b7d'),
        (5, :alone, 1, 0, 5, :now, :now, 2, 'send', null, x'7b7d');
    insert into backlane_ready (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, size)
    values (1, 0, 4, :now, 1, 5, 0, 0, 1, 0, 2), (1, 0, 4, :now, 5, 5, 0, 0, 1, 0, 2);
    insert into backlane_scheduled (due_ms, seq, queue, lane, priority, attempt, token,
        revision, crashes, size)
    values (:now + 60000, 2, 1, 0, 5, 0, 0, 1, 0, 2);
    insert into backlane_lease (id, token, seq, queue, priority, attempt, revision, size,
        started_ms, owner, is_plain, cancelling, lane, place, crashes, until_ms)
    values (:running, 1, 3, 1, 5, 0, 2, 2, :now, 'ann', 1, 0, 0, :now, 0, :boot + 600000);
    insert into backlane_finished (seq, state, queue, attempt, token, revision, started_ms,
        ended_ms, ran_ms, owner)
    values (4, 1, 1, 1, 1, 3, :now, :now, 5, 'ann');
    insert into backlane_counter (queue, priority, scheduled, ready, running, bytes, appended,
        succeeded, kept_done)
    values (1, 5, 1, 2, 1, 8, 5, 1, 1);
"""


@pytest.fixture
def desk(path: Path, clock: FakeClock) -> Iterator[Desk]:
    """An engine on a file that the first version made, and worked with."""
    first = available()[0][2]
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute(first)
    connection.execute("insert into backlane_meta (name, value) values ('schema', 1)")
    boot_id = read_boot_id()  # the machine was not started anew since
    connection.execute("update backlane_meta set value = ? where name = 'boot'", (boot_id,))
    ids = {"ready": READY, "later": DUE_LATER, "running": RUNNING, "done": DONE, "alone": ALONE}
    connection.execute(WORK, {"now": clock.wall_ms(), "boot": clock.boot_ms(), **ids})
    connection.close()
    engine = SqliteEngine(path, clock=clock)
    yield Desk(engine, clock)
    engine.close()


def held(desk: Desk) -> Lease:
    """The lease that was given by the first version."""
    return Lease(RUNNING, 1, 0, "mail", "send", b"{}")


def groups(path: Path) -> list[tuple[str, int]]:
    connection = apsw.Connection(str(path))
    return connection.execute("select name, jobs from backlane_group").fetchall()


def test_what_is_missing_is_applied_and_the_jobs_are_where_they_were(desk: Desk):
    assert desk.engine.migrate() == [name for number, name, _ in available() if number > 1]
    states = desk.states([READY, DUE_LATER, RUNNING, DONE, ALONE])
    assert states == [
        State.READY, State.SCHEDULED, State.RUNNING, State.SUCCEEDED, State.READY,
    ]  # fmt: skip


def test_the_groups_of_jobs_not_finished_are_counted(desk: Desk, path: Path):
    desk.engine.migrate()

    refusal = desk.append(desk.job(group="acme"), bounds=HALF)

    assert groups(path) == [("acme", 3)]
    assert refusal == Refusal("mail", "group", 3, bound=3, added=1, jobs=4, group="acme")


def test_a_lease_of_before_gives_the_place_in_its_group_back(desk: Desk, path: Path):
    desk.run(desk.engine.settle([settlement(held(desk), SUCCEEDED)]))

    assert groups(path) == [("acme", 2)]
    assert isinstance(desk.append(desk.job(group="acme"), bounds=HALF), list)


def test_all_that_was_there_can_end_and_no_group_is_left(desk: Desk, path: Path):
    desk.run(desk.engine.settle([settlement(held(desk), SUCCEEDED)]))
    desk.amend(Delete(), DUE_LATER)
    for lease in desk.claim().leases:
        desk.settle(lease, SUCCEEDED)

    assert desk.depth().jobs == 0
    assert groups(path) == []


def test_no_wait_and_no_share_was_declared_or_tuned(desk: Desk):
    queue = desk.queue()

    assert queue.bounds == Bounds(100, 1_000)
    assert (queue.tuned_max_wait_ms, queue.tuned_group_share) == (None, None)
    desk.run(desk.engine.tune("mail", Tune(group_share=0.01)))
    assert desk.queue().bounds == Bounds(100, 1_000, None, 0.01)


def test_new_jobs_follow_the_old_ones(desk: Desk):
    job = desk.job()

    assert firsts(desk.append(job)) == [(job.id, None)]
    assert desk.claimed_ids() == [READY, ALONE, job.id]


def test_what_ran_before_counts_for_a_limit_of_its_queue(desk: Desk):
    desk.limit("queue:mail", Limit(concurrency=2))

    assert desk.claimed_ids() == [READY]
    desk.run(desk.engine.settle([settlement(held(desk), SUCCEEDED)]))
    assert desk.claimed_ids() == [ALONE]


def test_old_jobs_and_those_under_limits_wait_side_by_side(desk: Desk):
    desk.limits["stripe"] = Limit(concurrency=1)
    first, second = desk.add(2, uses=(Use("stripe"),))

    assert desk.claimed_ids() == [READY, ALONE, first]
    assert desk.blocked_on(second) == ["stripe"]
    assert desk.depth().blocked == 1


def test_jobs_of_before_can_be_waited_for(desk: Desk):
    after = tuple(Edge(job, When.ENDED) for job in (RUNNING, DONE))
    waiting = desk.add_one(after=after)
    assert desk.record(waiting).waits_for == 1

    desk.run(desk.engine.settle([settlement(held(desk), SUCCEEDED)]))

    assert desk.state(waiting) is State.READY


def test_jobs_of_before_are_plain(desk: Desk):
    records = [desk.record(job) for job in (READY, DUE_LATER, RUNNING, DONE)]

    told = {(it.rule, it.uses, it.after, it.workflow, it.tags) for it in records}

    assert told == {(DEFAULT_RULE, (), (), None, ())}


def test_a_key_of_before_is_held_until_its_job_ends(desk: Desk, path: Path):
    """A file of the fourth version: its keys say nothing of how long they are held."""
    desk.engine.migrate()
    connection = apsw.Connection(str(path))
    connection.execute(
        "update backlane_job set key_scope = 'send', key_name = 'k' where id = ?", (READY,)
    )
    connection.execute(
        "insert into backlane_unique_key (scope, name, seq, id) values ('send', 'k', 1, ?)",
        (READY,),
    )

    again = desk.append(desk.job(key=Key("send", "k")))
    desk.amend(Cancel(), READY)
    free = desk.append(desk.job(key=Key("send", "k")))

    assert [pair[1] for pair in firsts(again)] == [READY]
    assert [pair[1] for pair in firsts(free)] == [None]


def test_errors_of_before_come_first(desk: Desk, path: Path):
    connection = apsw.Connection(str(path))
    connection.execute(
        """
        insert into backlane_attempt_error (seq, token, attempt, at_ms, kind, message,
            traceback, fingerprint)
        values (1, 1, 1, 10, 'E', 'first', '', ''), (1, 2, 2, 20, 'E', 'second', '', '')
        """
    )
    connection.close()

    desk.settle(desk.lease(ids=(READY,)), FAILED)

    assert [kept.error.message for kept in desk.record(READY).errors] == ["first", "second", "boom"]
