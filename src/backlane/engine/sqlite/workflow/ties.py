"""Ties: the edges of jobs on their way from one store to another.

A job may come before what it waits for, or after: until that is here as well the edge is kept
by its id.
"""

from __future__ import annotations

from array import array as numbers
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backlane.engine.moving import Whole
from backlane.engine.plan import Sql
from backlane.engine.sqlite.record.moves import FINAL_STATES, Moves
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.engine.sqlite.workflow import edges, ends
from backlane.engine.sqlite.workflow.edges import KINDS, KNOWN, WAITED, WHENS, End, is_met
from backlane.model.job import Edge, JobRecord, When

OF_WAITER: Sql[tuple[bytes, int, int, int]] = Sql(
    """
    select job.id, kind, is_open and finished.seq is null, lease.id is not null
    from carray(?1) as given
    cross join backlane_edge as edge on edge.job = given.value
    and edge.waiter = ?2
    cross join backlane_job as job on job.seq = edge.job
    left join backlane_finished as finished on finished.seq = job.seq
    left join backlane_lease as lease on lease.id = job.id
    """
)
# Served by backlane_expected_of.
EXPECTED_BY: Sql[tuple[bytes, int]] = Sql(
    """
    select id, kind
    from backlane_expected
    where waiter = ?
    """
)
EXPECT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_expected (id, waiter, kind)
    values (?, ?, ?)
    on conflict do update
    set kind = excluded.kind
    """
)
ARRIVED: Sql[tuple[bytes, int, int]] = Sql(
    """
    select id, waiter, kind
    from carray(?) as given
    cross join backlane_expected as expected on expected.id = given.value
    """
)
EXPECT_NO_MORE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_expected
    where id = ?
    """
)
# Jobs that leave are waited for by those that stay.
DEPART: Sql[tuple[()]] = Sql(
    """
    insert into backlane_expected (id, waiter, kind)
    select job.id, waiter, case when is_open and finished.seq is null then kind else 0 end
    from carray(?) as given
    cross join backlane_edge as edge on edge.job = given.value
    cross join backlane_job as job on job.seq = edge.job
    left join backlane_finished as finished on finished.seq = job.seq
    where true
    on conflict do nothing
    """
)


@dataclass(slots=True)
class Ties:
    """What a job waits for, and waited for beyond its `after`."""

    open: list[Edge] = field(default_factory=list)
    waited: list[bytes] = field(default_factory=list)
    is_stuck: bool = False  # one of them runs: it is not to be moved before that has ended


# -- out --


async def read(tx: SqliteTx, seqs: Sequence[int]) -> dict[int, Ties]:
    """Return the ties of those of these jobs that wait or waited, by seq."""
    found: dict[int, Ties] = {}
    for waiter, jobs in await tx.rows(edges.AWAITED, integers(seqs)):
        ties = found[waiter] = Ties()
        others = numbers("q", jobs)
        rows = await tx.rows(OF_WAITER, integers(others), waiter) if others else []
        for job, kind, is_open, is_running in rows:
            if is_open:
                ties.open.append(Edge(job, WHENS[kind]))
                ties.is_stuck = ties.is_stuck or bool(is_running)
            else:
                ties.waited.append(job)
        for job, kind in await tx.rows(EXPECTED_BY, waiter):
            if kind == WAITED:
                ties.waited.append(job)
            else:
                ties.open.append(Edge(job, WHENS[kind]))
    return found


def told(ties: Ties | None, record: JobRecord) -> tuple[tuple[Edge, ...], tuple[bytes, ...]]:
    """Return what a whole job says of its ties: those open, and further jobs it waited for."""
    if ties is None:
        return (), ()
    said = {edge.job for edge in record.after}
    return tuple(ties.open), tuple(job for job in ties.waited if job not in said)


async def depart(tx: SqliteTx, seqs: Sequence[int]) -> None:
    """Jobs leave: who stays goes on waiting for them by id, and they wait here no more."""
    await edges.drop(tx, seqs)
    await tx.rows(DEPART, integers(seqs))
    await tx.each(edges.FORGET, [(seq,) for seq in seqs])


# -- in --


class Arrival:
    """The edges of jobs that arrived, and of those that were waiting for them here."""

    def __init__(self, tx: SqliteTx, now_ms: int, moves: Moves) -> None:
        self._tx = tx
        self._now = now_ms
        self._moves = moves
        self._rows: list[tuple[int, int, int, int]] = []
        self._lists: dict[int, list[int]] = {}
        self._met: Counter[int] = Counter()
        self._vain: dict[int, End] = {}

    async def tie(self, jobs: Mapping[int, Whole]) -> None:
        """Store the edges of these new jobs, by seq, and follow those that can be."""
        waiting = {seq: whole for seq, whole in jobs.items() if not whole.record.state.is_final}
        wanted = {seq: _wanted(whole) for seq, whole in waiting.items()}
        asked = {job for edges_of in wanted.values() for job in edges_of}
        asked |= {whole.record.id for whole in jobs.values()}
        known = {row[0]: row[1:] for row in await self._tx.rows(KNOWN, array(list(asked)))}
        expected = []
        for waiter, edges_of in wanted.items():
            for job, kind in edges_of.items():
                if job in known:
                    self._tie(waiter, job, kind, *known[job])
                else:
                    expected.append((job, waiter, kind))
            if edges_of:
                self._lists.setdefault(waiter, [])
        ids = [whole.record.id for whole in jobs.values()]
        for job, waiter, kind in await self._tx.rows(ARRIVED, array(ids)):
            self._tie(waiter, job, kind, *known[job])
        await self._tx.each(EXPECT_NO_MORE, [(job,) for job in ids])
        await self._tx.each(EXPECT, expected)
        await self._store()

    def _tie(self, waiter: int, job: bytes, kind: int, other: int, code: int | None) -> None:
        is_open = kind != WAITED and code is None
        self._rows.append((other, waiter, kind or KINDS[When.ENDED], int(is_open)))
        self._lists.setdefault(waiter, []).append(other)
        if kind != WAITED and code is not None:
            self._met[waiter] += 1
            if not is_met(kind, code):
                self._vain.setdefault(waiter, End(job, FINAL_STATES[code]))

    async def _store(self) -> None:
        await self._tx.each(edges.TIE, self._rows)
        for waiter, jobs in self._lists.items():
            await self._tx.rows(edges.MARK, waiter)
            await edges.remember(self._tx, waiter, jobs)
        if self._met:
            await edges.carry_on(self._tx, self._now, self._moves, self._met, self._vain)
            await ends.follow(self._tx, self._now, self._moves)


def _wanted(whole: Whole) -> dict[bytes, int]:
    """For whom a job waits and waited, and what it waits for."""
    wanted = dict.fromkeys((edge.job for edge in whole.record.after), WAITED)
    wanted |= dict.fromkeys(whole.waited, WAITED)
    return wanted | {edge.job: KINDS[edge.when] for edge in whole.open}
