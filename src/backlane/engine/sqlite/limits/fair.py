"""Fair: places by virtual time in queues whose groups take turns.

See `Verbs.append` for the rule, start-time fair queueing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx, integers

QUEUES: Sql[tuple[int, int | None, int | None, int]] = Sql(
    """
    select id, virtual_ms, mean_us,
        (
            select coalesce(sum(ready + running), 0)
            from backlane_counter as counter
            where counter.queue = line.id
        )
    from backlane_queue as line
    where id in (select value from carray(?))
    and is_fair = 1
    """
)
FLOWS: Sql[tuple[int, str, int | None, int, int | None]] = Sql(
    """
    select queue, name, finish_ms, latest_ms, mean_us
    from backlane_flow
    where queue = ?
    and name = ?
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set virtual_ms = ?,
        mean_us = ?
    where id = ?
    """
)
KEEP_FLOW: Sql[tuple[()]] = Sql(
    """
    insert or replace into backlane_flow (queue, name, finish_ms, latest_ms, mean_us)
    values (?, ?, ?, ?, ?)
    """
)
TAKEN: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set virtual_ms = max(coalesce(virtual_ms, 0), ?)
    where id = ?
    and is_fair = 1
    """
)
GROUPS: Sql[tuple[int, str | None]] = Sql(
    """
    select job.seq, group_name
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    """
)
FAIR_QUEUES: Sql[tuple[int, int]] = Sql(
    """
    select id, virtual_ms
    from backlane_queue
    where is_fair = 1
    and virtual_ms is not null
    """
)
# Served by backlane_flow_latest.
FORGET: Sql[tuple[int]] = Sql(
    """
    delete from backlane_flow
    where (queue, name) in (
        select flow.queue, flow.name
        from backlane_flow as flow
        where flow.queue = ?1
        and latest_ms < ?2
        and coalesce(finish_ms, 0) < ?2
        and flow.name <> ''
        and not exists (
            select 1
            from backlane_group as held
            where held.queue = flow.queue
            and held.name = flow.name
        )
        order by latest_ms
        limit ?3
    )
    returning 1
    """
)
# Those of the next in line of one rank that have waited for another level.
AGED: Sql[tuple[Any, ...]] = Sql(
    """
    select old.queue, old.lane, old.rank, old.place, old.seq, old.priority,
        coalesce(job.due_ms, old.place)
    from (
        select *
        from backlane_ready
        where queue = ?1
        and lane = ?2
        and rank = ?3
        order by place, seq
        limit ?4
    ) as old
    cross join backlane_job as job on job.seq = old.seq
    where 9 - old.priority - (?5 - coalesce(job.due_ms, old.place)) / 300000 < ?3
    """
)

UNKNOWN_MS = 100  # what a job costs while none of its queue has ended
FORGOTTEN_MS = 3_600_000  # of virtual time: what a group ran in is known for as long


@dataclass(slots=True)
class Flow:
    """The jobs of one group."""

    finish_ms: int | None = None
    latest_ms: int = 0
    mean_us: int | None = None


@dataclass(slots=True)
class Course:
    """The virtual time of one queue."""

    virtual_ms: int | None
    mean_us: int | None
    busy: int  # ready and running
    flows: dict[str, Flow] = field(default_factory=dict)

    def place_ms(self, group: str | None, now_ms: int) -> int:
        """Return the place of a job of this group that gets in line now."""
        if self.virtual_ms is None or not self.busy:
            self.virtual_ms = max(self.virtual_ms or 0, now_ms)
        flow = self.flows[group or ""]
        start_ms = max(self.virtual_ms, flow.finish_ms or 0)
        flow.finish_ms = start_ms + self._cost_ms(flow)
        flow.latest_ms = max(flow.latest_ms, start_ms)
        return flow.latest_ms

    def end(self, group: str | None, ran_ms: int) -> None:
        """An attempt ended that ran so long."""
        flow = self.flows[group or ""]
        if flow.finish_ms is not None:
            flow.finish_ms += max(1, ran_ms) - self._cost_ms(flow)
        flow.mean_us = _moved(flow.mean_us, ran_ms)
        self.mean_us = _moved(self.mean_us, ran_ms)

    def _cost_ms(self, flow: Flow) -> int:
        mean_us = self.mean_us if flow.mean_us is None else flow.mean_us
        return UNKNOWN_MS if mean_us is None else max(1, mean_us // 1000)


def _moved(mean_us: int | None, ran_ms: int) -> int:
    """A mean with one more attempt, which counts for a fifth."""
    return 1000 * ran_ms if mean_us is None else (4 * mean_us + 1000 * ran_ms) // 5


async def read_courses(tx: SqliteTx, queues: set[int]) -> dict[int, Course]:
    """Return those of these queues that are fair."""
    rows = await tx.rows(QUEUES, integers(list(queues))) if queues else []
    return {row[0]: Course(row[1], row[2], row[3]) for row in rows}


async def read_flows(
    tx: SqliteTx, courses: Mapping[int, Course], groups: set[tuple[int, str | None]]
) -> None:
    """Read what is known of these groups."""
    for queue, group in groups:
        courses[queue].flows[group or ""] = Flow()
    keys = [(queue, group or "") for queue, group in groups]
    for row in await tx.each(FLOWS, keys) if keys else ():
        courses[row[0]].flows[row[1]] = Flow(row[2], row[3], row[4])


async def store(tx: SqliteTx, courses: Mapping[int, Course]) -> None:
    """Write how far queues and groups have got."""
    if not courses:
        return
    await tx.each(KEEP, [(it.virtual_ms, it.mean_us, queue) for queue, it in courses.items()])
    await tx.each(
        KEEP_FLOW,
        [
            (queue, name, flow.finish_ms, flow.latest_ms, flow.mean_us)
            for queue, course in courses.items()
            for name, flow in course.flows.items()
        ],
    )


class Run(NamedTuple):
    """An attempt that ended."""

    seq: int
    queue: int
    ran_ms: int


async def count(tx: SqliteTx, runs: Sequence[Run]) -> None:
    """Let attempts count for their groups, in queues that are fair."""
    courses = await read_courses(tx, {run.queue for run in runs})
    runs = [run for run in runs if run.queue in courses]
    if not runs:
        return
    groups = dict(await tx.rows(GROUPS, integers([run.seq for run in runs])))
    await read_flows(tx, courses, {(run.queue, groups.get(run.seq)) for run in runs})
    for run in runs:
        courses[run.queue].end(groups.get(run.seq), run.ran_ms)
    await store(tx, courses)


async def forget(tx: SqliteTx, limit: int) -> int:
    """Forget groups that virtual time has left behind; return how many."""
    asked = [
        (queue, virtual_ms - FORGOTTEN_MS, max(0, limit))
        for queue, virtual_ms in await tx.rows(FAIR_QUEUES)
    ]
    return len(await tx.each(FORGET, asked)) if asked else 0
