"""Edges: which jobs wait for which, and what comes of it once those have ended.

An edge is a row by the job that is waited for, so that a batch of jobs that end finds who
waits by one walk, and counts each of these down once, however many of them it waited for.
The rows stay until the job that waited has ended: what it waited for is not pruned.
"""

from __future__ import annotations

import uuid
from array import array as numbers
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite.bells.ringing import ring_queues
from backlane.engine.sqlite.record.exits import take_out
from backlane.engine.sqlite.record.moves import FINAL_STATES, Moves
from backlane.engine.sqlite.record.record import Standing, standings
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.rows import UNBLOCK
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model.job import Edge, State, When
from backlane.model.outcome import ErrorRecord

# How a job must end, as bits: 1 success, 2 any other end.
KINDS = {When.SUCCEEDED: 1, When.FAILED: 2, When.ENDED: 3}
WHENS = {kind: when for when, kind in KINDS.items()}
WAITED = 0  # for: of a job elsewhere, which is not waited for any more
SUCCEEDED = 1  # code of the state

# What is known of jobs: who they are, and how they ended.
KNOWN: Sql[tuple[bytes, int, int | None]] = Sql(
    """
    select id, job.seq, state
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    left join backlane_finished as finished on finished.seq = job.seq
    """
)
TIE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_edge (job, waiter, kind, is_open)
    values (?, ?, ?, ?)
    on conflict do update
    set kind = excluded.kind,
        is_open = excluded.is_open
    """
)
# All edges of an `Awaiting`, whose jobs may end in any way.
AWAIT: Sql[tuple[int, int]] = Sql(
    """
    insert into backlane_edge (job, waiter, kind, is_open)
    select job.seq, ?2, 3, finished.seq is null
    from carray(?1) as given
    cross join backlane_job as job on job.id = given.value
    left join backlane_finished as finished on finished.seq = job.seq
    where job.seq <> ?2
    on conflict do update
    set kind = excluded.kind,
        is_open = excluded.is_open
    returning job, is_open
    """
)
# From now on its lease is not plain: its end has its edges to forget.
MARK: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set extra = x'90'
    where seq = ?
    and extra is null
    """
)
AWAITED: Sql[tuple[int, bytes]] = Sql(
    """
    select seq, jobs
    from carray(?) as given
    cross join backlane_awaited as awaited on awaited.seq = given.value
    """
)
SET_AWAITED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_awaited (seq, jobs)
    values (?, ?)
    on conflict do update
    set jobs = excluded.jobs
    """
)
# Who waits for these jobs: for how many of them, and of those that ended otherwise than the
# edge asks for the first. ?2 is the bit of how they ended. Where nobody waits for anything it
# does not look at a single job.
FOLLOWED: Sql[tuple[int, int, int | None]] = Sql(
    """
    select waiter, count(*), min(case when not kind & ?2 then job end)
    from (select 1 from backlane_edge limit 1)
    cross join carray(?1) as given
    cross join backlane_edge as edge on edge.job = given.value
    where is_open
    group by waiter
    """
)
# Once for each job that waits, however many jobs it waited for.
COUNT_DOWN: Sql[tuple[int, int]] = Sql(
    """
    update backlane_blocked
    set waits_for = waits_for - ?
    where seq = ?
    and gate is null
    returning seq, waits_for
    """
)
UNBLOCKED: Sql[tuple[object, ...]] = Sql(
    """
    select id, token, blocked.seq, blocked.queue, blocked.priority, attempt, revision + 1,
        blocked.size, started_ms, owner, 0, 0, blocked.lane, blocked.place, crashes, parked_ms
    from carray(?) as given
    cross join backlane_blocked as blocked on blocked.seq = given.value
    cross join backlane_job as job on job.seq = blocked.seq
    """
)
IDS: Sql[tuple[int, bytes]] = Sql(
    """
    select seq, id
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    """
)
CLOSE: Sql[tuple[()]] = Sql(
    """
    update backlane_edge
    set is_open = 0
    where job = ?
    """
)
UNTIE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_edge
    where job in (select value from carray(?))
    and waiter = ?
    """
)
UNAWAIT: Sql[tuple[()]] = Sql(
    """
    delete from backlane_awaited
    where seq = ?
    """
)
UNEXPECT: Sql[tuple[()]] = Sql(
    """
    delete from backlane_expected
    where waiter = ?
    """
)
FORGET: Sql[tuple[()]] = Sql(
    """
    delete from backlane_edge
    where job = ?
    """
)
NEEDED: Sql[tuple[int]] = Sql(
    """
    select value
    from carray(?) as given
    where exists (select 1 from backlane_edge where job = given.value)
    """
)


class End(NamedTuple):
    """A job that ended, as those are told who waited for another end of it."""

    job: bytes
    state: State

    def error(self) -> ErrorRecord:
        job = uuid.UUID(bytes=self.job)
        return ErrorRecord("Skipped", f"job {job}, which it waited for, ended as {self.state}")


class Tied(NamedTuple):
    """What jobs with edges come to: for how many they wait, and which of them in vain."""

    open: dict[int, int]
    vain: dict[int, End]


NOTHING = Tied({}, {})


def by_job(after: Iterable[Edge]) -> dict[bytes, When]:
    """The edges of a job; of several to the same job the first counts."""
    found: dict[bytes, When] = {}
    for edge in after:
        found.setdefault(edge.job, edge.when)
    return found


def is_met(kind: int, code: int) -> bool:
    """Whether a job that ended in this state (its code) ended as it had to."""
    return bool(kind & (1 if code == SUCCEEDED else 2))


# -- beginning to wait --


async def tie(
    tx: SqliteTx, waiting: Mapping[int, Sequence[Edge]], new: Mapping[bytes, int]
) -> Tied:
    """Store the edges of jobs, by seq; `new` are jobs that are being stored with them."""
    asked = {edge.job for after in waiting.values() for edge in after} - new.keys()
    found = await tx.rows(KNOWN, array(list(asked))) if asked else []
    known = {row[0]: row[1:] for row in found}
    tied = Tied(dict.fromkeys(waiting, 0), {})
    rows, lists = [], []
    for seq, after in waiting.items():
        jobs = numbers("q")
        for job, when in by_job(after).items():
            other, code = (new[job], None) if job in new else known.get(job, (None, None))
            if other is None:
                continue
            kind = KINDS[when]
            rows.append((other, seq, kind, int(code is None)))
            jobs.append(other)
            if code is None:
                tied.open[seq] += 1
            elif not is_met(kind, code):
                tied.vain.setdefault(seq, End(job, FINAL_STATES[code]))
        lists.append((seq, jobs.tobytes()))
    await tx.each(TIE, rows)
    await tx.each(SET_AWAITED, lists)
    return tied


async def await_jobs(tx: SqliteTx, moves: Moves, held: Held, jobs: Collection[bytes]) -> None:
    """Let a job whose lease has ended wait for others; ready, if all of those have ended."""
    held = held._replace(is_plain=0)
    found = dict(await tx.rows(AWAIT, array(list(set(jobs))), held.seq)) if jobs else {}
    if found:
        await tx.rows(MARK, held.seq)
        await remember(tx, held.seq, found)
    waits_for = sum(found.values())
    if waits_for:
        moves.block(held, waits_for=waits_for)
    else:
        moves.stand_in_line(held)


async def remember(tx: SqliteTx, waiter: int, jobs: Iterable[int]) -> None:
    """Keep in mind for whom a job waits or waited, beside those of before."""
    rows = await tx.rows(AWAITED, integers([waiter]))
    union = numbers("q", rows[0][1] if rows else b"")
    union.extend(sorted(set(jobs) - set(union)))
    await tx.rows(SET_AWAITED, waiter, union.tobytes())


# -- following --


async def follow(tx: SqliteTx, now_ms: int, moves: Moves, ended: Sequence[tuple[Any, ...]]) -> None:
    """Follow the edges of jobs that ended: of each its seq comes first, then its state."""
    done = [row[0] for row in ended if row[1] == SUCCEEDED]
    rest = {row[0]: row[1] for row in ended if row[1] != SUCCEEDED}
    found = await tx.rows(FOLLOWED, integers(done), 1) if done else []
    if rest:
        found += await tx.rows(FOLLOWED, integers(list(rest)), 2)
    if not found:
        return
    failing = [job for _, _, job in found if job is not None]
    ids = moves.deleted | dict(await tx.rows(IDS, integers(failing)) if failing else ())
    met: Counter[int] = Counter()
    vain: dict[int, End] = {}
    for waiter, number, job in found:
        met[waiter] += number
        if job is not None:
            vain[waiter] = End(ids[job], FINAL_STATES[rest.get(job, SUCCEEDED)])
    await carry_on(tx, now_ms, moves, met, vain)


async def carry_on(
    tx: SqliteTx, now_ms: int, moves: Moves, met: Mapping[int, int], vain: Mapping[int, End]
) -> None:
    """Count down for how many jobs others wait; end those that do in vain."""
    counts = [(number, seq) for seq, number in met.items() if seq not in vain]
    left = await tx.each(COUNT_DOWN, counts) if counts else []
    await _unblock(tx, now_ms, moves, [seq for seq, number in left if number <= 0])
    if vain:
        await skip(tx, now_ms, moves, vain)
    await moves.store_rows(tx)


async def _unblock(tx: SqliteTx, now_ms: int, moves: Moves, seqs: Sequence[int]) -> None:
    if not seqs:
        return
    jobs = [Held(*row) for row in await tx.rows(UNBLOCKED, integers(seqs))]  # type: ignore[arg-type]
    await tx.each(UNBLOCK, [(held.seq,) for held in jobs])
    for held in jobs:
        moves.at(held.queue, held.priority).blocked -= 1
        # Who has run already is due whatever the clock says by now: it may have been set.
        if held.token or held.place <= now_ms:
            moves.stand_in_line(held)
        else:
            moves.put_off(held, held.place, is_due=False)
    tx.rings.jobs += [held.id for held in jobs]
    await ring_queues(tx, {held.queue for held in jobs})


async def skip(tx: SqliteTx, now_ms: int, moves: Moves, vain: Mapping[int, End]) -> None:
    """End blocked jobs that waited in vain, each with an error that says for whom."""
    jobs = await standings(tx, list(vain))
    await take_out(tx, moves, jobs)
    for one in jobs:
        held = one.held()
        moves.keep_error(held, vain[one.seq].error(), now_ms)
        moves.finish(held, State.CANCELLED, now_ms)
        tx.rings.jobs.append(one.id)
        tx.rings.queues.add(one.queue_name)


# -- forgetting --


async def close(tx: SqliteTx, job: int) -> None:
    """A finished job begins anew: who waited for its first end goes by that."""
    await tx.rows(CLOSE, job)


async def why_stuck(tx: SqliteTx, jobs: Sequence[Standing]) -> dict[bytes, str]:
    """Return why these ended jobs would wait in vain, those of them that would."""
    after = {one.id: by_job(decode_extra(one.extra).after) for one in jobs if one.state.is_final}
    asked = {job for edges in after.values() for job in edges}
    if not asked:
        return {}
    known = {row[0]: row[2] for row in await tx.rows(KNOWN, array(list(asked)))}
    stuck: dict[bytes, str] = {}
    for waiter, edges in after.items():
        for job, when in edges.items():
            code = known.get(job)
            if code is not None and not is_met(KINDS[when], code):
                told = f"job {uuid.UUID(bytes=job)}, which it waits for, ended as "
                stuck.setdefault(waiter, told + FINAL_STATES[code])
    return stuck


async def drop(tx: SqliteTx, waiters: Sequence[int]) -> None:
    """Forget what jobs waited for that have ended, or are gone."""
    rows = await tx.rows(AWAITED, integers(waiters))
    for waiter, jobs in rows:
        if jobs:
            await tx.rows(UNTIE, integers(numbers("q", jobs)), waiter)
    if rows:
        gone = [(waiter,) for waiter, _ in rows]
        await tx.each(UNAWAIT, gone)
        await tx.each(UNEXPECT, gone)


async def needed(tx: SqliteTx, seqs: Sequence[int]) -> set[int]:
    """Return those of these jobs that another, which has not ended, waits or waited for."""
    return {seq for (seq,) in await tx.rows(NEEDED, integers(seqs))} if seqs else set()
