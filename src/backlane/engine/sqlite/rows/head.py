"""Head: what takes jobs from the head of a line, or very jobs: statements, and their rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite.rows.held import Held

OPEN: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane_queue
    where name in (select value from carray(?))
    and kind = ?
    and paused = 0
    """
)

TakenRow = tuple[Any, ...]
Order = tuple[int, int, int]  # rank, place, seq
Place = tuple[int, int, int, int, int]  # queue, lane, and the order there

# The head of a line: one ascending range of the key of backlane_ready.
HEAD: Sql[TakenRow] = Sql(
    """
    select job.id, ready.token + 1, ready.attempt, task, body, headers, ready.priority,
        ready.lane, policy, group_name, enqueued_ms, deadline_ms, parked_ms, crashes,
        rank, ready.place, ready.seq, revision, ready.size, key_name,
        predicted_ms, extra, job.due_ms
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    order by rank, ready.place, ready.seq
    limit ?
    """
)
GIVE_HEAD: Sql[tuple[()]] = Sql(
    """
    insert into backlane_lease (id, token, seq, queue, priority, attempt, revision, size,
        started_ms, owner, is_plain, cancelling, lane, place, crashes, parked_ms, until_ms)
    select job.id, ready.token + 1, ready.seq, ready.queue, ready.priority, ready.attempt,
        revision + 1, ready.size, ?, ?,
        key_name is null and deadline_ms is null and group_name is null and extra is null
        and job.due_ms is null, 0, ready.lane, ready.place, crashes, parked_ms, ?
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    order by rank, ready.place, ready.seq
    limit ?
    """
)
BEHEAD: Sql[tuple[()]] = Sql(
    """
    delete from backlane_ready
    where queue = ?
    and lane = ?
    and (rank, place, seq) <= (?, ?, ?)
    """
)
ORDER: Sql[Order] = Sql(
    """
    select rank, place, seq
    from backlane_ready
    where queue = ?
    and lane = ?
    order by rank, place, seq
    limit ?
    """
)
# The best of very jobs. Rank is not known of a job: the index of those that are offered has
# it, of others ten probes of the key of backlane_ready find it. 99: it is not ready.
PICK: Sql[TakenRow] = Sql(
    """
    select job.id, ready.token + 1, ready.attempt, task, body, headers, ready.priority,
        ready.lane, policy, group_name, enqueued_ms, deadline_ms, parked_ms, crashes,
        best.rank, ready.place, ready.seq, revision, ready.size, key_name,
        predicted_ms, extra, job.due_ms, best.queue, best.name
    from (
        select job.queue, name, job.lane, job.place, job.seq,
            coalesce(
                (
                    select rank
                    from backlane_ready as offered indexed by backlane_ready_offered
                    where offered.queue = job.queue
                    and offered.lane & 1 = job.lane & 1
                    and offered.seq = job.seq
                    and offered_ms is not null
                ),
                (
                    select rank
                    from backlane_ready as other
                    where other.queue = job.queue
                    and other.lane = job.lane
                    and rank in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
                    and other.place = job.place
                    and other.seq = job.seq
                ),
                99
            ) as rank
        from carray(?1) as given
        cross join backlane_job as job on job.id = given.value
        cross join backlane_queue as queue on queue.id = job.queue
        where kind = ?2
        and paused = 0
        and (?3 is null or job.lane & 1 = ?3)
        order by rank, job.place, job.seq
        limit ?4
    ) as best
    cross join backlane_ready as ready
    on ready.queue = best.queue
    and ready.lane = best.lane
    and ready.rank = best.rank
    and ready.place = best.place
    and ready.seq = best.seq
    cross join backlane_job as job on job.seq = best.seq
    order by best.rank, best.place, best.seq
    """
)
# Of each job 16 times its seq, plus its rank: one statement for all of them.
GIVE_PICKED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_lease (id, token, seq, queue, priority, attempt, revision, size,
        started_ms, owner, is_plain, cancelling, lane, place, crashes, parked_ms, until_ms)
    select job.id, ready.token + 1, ready.seq, ready.queue, ready.priority, ready.attempt,
        revision + 1, ready.size, ?, ?,
        key_name is null and deadline_ms is null and group_name is null and extra is null
        and job.due_ms is null, 0, ready.lane, ready.place, crashes, parked_ms, ?
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value >> 4
    cross join backlane_ready as ready
    on ready.queue = job.queue
    and ready.lane = job.lane
    and rank = given.value & 15
    and ready.place = job.place
    and ready.seq = job.seq
    """
)


class Source(NamedTuple):
    """Where leases come from: one lane of one queue."""

    queue: int
    name: str
    lane: int


def held_of(row: TakenRow, queue: int) -> Held:
    """A ready job on its way to another state."""
    return Held(
        id=row[0],
        token=row[1] - 1,
        seq=row[16],
        queue=queue,
        priority=row[6],
        attempt=row[2],
        revision=row[17] + 1,
        size=row[18],
        started_ms=None,
        owner=None,
        is_plain=0,
        cancelling=0,
        lane=row[7],
        place=row[15],
        crashes=row[13],
        parked_ms=row[12],
    )
