"""Dump: whole jobs on their way to another store; and discard, once they are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backlane.engine.moving import PART_BYTES, PART_ROWS, Part, Repeat, Settings, Whole
from backlane.engine.plan import Sql
from backlane.engine.sqlite.append import keys, schedules
from backlane.engine.sqlite.limits import limits
from backlane.engine.sqlite.limits import resource as resources
from backlane.engine.sqlite.limits.letting import ENDED
from backlane.engine.sqlite.limits.line import turns_of
from backlane.engine.sqlite.record import steps
from backlane.engine.sqlite.record.exits import take_out
from backlane.engine.sqlite.record.moves import FINAL_CODES, Moves
from backlane.engine.sqlite.record.record import (
    RUNNING,
    SEQS,
    Standing,
    standings,
    whole_records,
)
from backlane.engine.sqlite.rows import group
from backlane.engine.sqlite.store import seal
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.engine.sqlite.upkeep import tune
from backlane.engine.sqlite.upkeep.amend import FORGET_DEADLINE, forget
from backlane.engine.sqlite.upkeep.measure import SECRET
from backlane.engine.sqlite.workflow import ties
from backlane.model.clock import Clock
from backlane.model.job import State

# ?3 is a set of final states as bits. Each join is one lookup in a primary key.
ROWS: Sql[tuple[int, int, int]] = Sql(
    """
    select job.seq, job.size + coalesce(length(result), 0),
        case
            when finished.seq is null then lease.seq is null
            when ?3 >> finished.state & 1 then 1
            else exists (select 1 from backlane_edge as edge where edge.job = job.seq)
        end
    from backlane_job as job
    left join backlane_finished as finished on finished.seq = job.seq
    left join backlane_lease as lease on lease.id = job.id
    where job.seq >= ?1
    order by job.seq
    limit ?2
    """
)
REPEATS: Sql[tuple[str, str, bytes, bytes, int]] = Sql(
    """
    select scope, name, id, print, until_ms
    from backlane_idempotency
    where (scope, name) > (?, ?)
    order by scope, name
    limit ?
    """
)
FORGOTTEN: Sql[tuple[int]] = Sql(
    """
    select value
    from backlane_meta
    where name = 'forgotten_ms'
    """
)

JOBS, REPEATED = 0, 1  # what a cursor goes on with


async def dump(tx: SqliteTx, limit: int, cursor: bytes | None, final: Sequence[State]) -> Part:
    """Read whole jobs in the order of their append, then idempotency keys."""
    place = msgspec.msgpack.decode(cursor) if cursor else [JOBS, 0]
    if place[0] == REPEATED:
        return await _dump_repeats(tx, limit, *place[1:])
    bits = sum(1 << FINAL_CODES[state] for state in set(final))
    rows = await tx.rows(ROWS, place[1], PART_ROWS, bits)
    seqs: list[int] = []
    held = 0
    behind: list[Any] | None = None
    for seq, size, is_wanted in rows:
        if len(seqs) >= limit or held >= PART_BYTES:
            behind = [JOBS, seq]
            break
        if is_wanted:
            seqs.append(seq)
            held += size
    if behind is None:
        behind = [JOBS, rows[-1][0] + 1] if len(rows) == PART_ROWS else [REPEATED, "", ""]
    return Part(await _whole(tx, seqs), cursor=msgspec.msgpack.encode(behind))


async def _whole(tx: SqliteTx, seqs: Sequence[int]) -> list[Whole]:
    if not seqs:
        return []
    found = {one.id: one for one in await standings(tx, seqs)}
    kept = await steps.recall_all(tx, seqs)
    tied = await ties.read(tx, seqs)
    turns = await turns_of(tx, {one.seq: one.extra for one in found.values()})
    wholes = []
    for record in reversed(await whole_records(tx, seqs)):
        one = found[record.id]
        its = tied.get(one.seq)
        if its and its.is_stuck:
            continue
        still, waited = ties.told(its, record)
        done = kept.get(one.seq, ())
        held = turns.get(one.seq, ())
        whole = Whole(record, one.crashes, one.parked_ms, still, held, done, waited)
        wholes.append(whole)
    return wholes


async def _dump_repeats(tx: SqliteTx, limit: int, scope: str, name: str) -> Part:
    rows = await tx.rows(REPEATS, scope, name, limit)
    behind = [REPEATED, *rows[-1][:2]] if len(rows) == limit else None
    cursor = msgspec.msgpack.encode(behind) if behind else None
    return Part(repeats=[Repeat(*row) for row in rows], cursor=cursor)


async def dump_settings(tx: SqliteTx, clock: Clock) -> Settings:
    """Read what is known beside jobs."""
    return Settings(
        queues=await tune.list_queues(tx, clock),
        resources=await resources.breakers_of_all(tx),
        secret=(await tx.rows(SECRET))[0][0],
        forgotten_ms=(await tx.rows(FORGOTTEN))[0][0],
        limits=[
            msgspec.structs.replace(one, running=0, blocked=0)
            for one in await limits.list_limits(tx, clock)
        ],
        schedules=await schedules.all_schedules(tx),
        latest=await steps.all_latest(tx),
    )


# -- once they are elsewhere --


async def discard(tx: SqliteTx, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """Forget jobs that are elsewhere by now; return those that were not forgotten."""
    if not jobs or await seal.sealed(tx) is None:
        return [job for job, _ in jobs]
    revisions = dict(jobs)
    seqs = [seq for (seq,) in await tx.rows(SEQS, array(list(revisions)))]
    found = [
        one
        for one in await standings(tx, seqs)
        if one.code != RUNNING and one.revision == revisions[one.id]
    ]
    if found:
        await _take_out(tx, found)
    gone = {one.id for one in found}
    tx.rings.jobs += gone
    return [job for job, _ in jobs if job not in gone]


async def _take_out(tx: SqliteTx, found: Sequence[Standing]) -> None:
    moves = Moves()
    await take_out(tx, moves, found)
    waiting = [one for one in found if not one.state.is_final]
    for one in waiting:
        moves.at(one.queue, one.priority).bytes -= one.size
    keyed = [one for one in found if one.key_name is not None]
    await tx.each(keys.FREE, [(one.key_scope, one.key_name, one.seq) for one in keyed])
    ending = [one for one in waiting if one.deadline_ms is not None]
    await tx.each(FORGET_DEADLINE, [(one.deadline_ms, one.seq) for one in ending])
    grouped = [one.seq for one in waiting if one.group is not None]
    if grouped:
        await group.leave(tx, grouped)
    for one in waiting:
        moves.leave(one.seq, one.queue, ENDED)
    await moves.let_go(tx)  # while it is known still what they use
    await ties.depart(tx, [one.seq for one in found])
    await forget(tx, [one.seq for one in found])
    await moves.store_counts(tx)
