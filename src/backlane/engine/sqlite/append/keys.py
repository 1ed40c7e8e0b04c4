"""Keys: who holds each and for how long, and what a holder takes of a newcomer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.admission import most_delayed
from backlane.engine.plan import Sql
from backlane.engine.sqlite.record.exits import take_out
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.record.record import (
    BLOCKED,
    READY,
    SCHEDULED,
    SEQS,
    Standing,
    standings,
)
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.job import Job, JobRecord, Key, KeyRule, State

WAITING = (SCHEDULED, READY, BLOCKED)

# What `until` of backlane_unique_key means.
UNTIL = {"started": 0, "finished": 1, "succeeded": 2}
WINDOW = 3

HOLDER: Sql[tuple[str, str, bytes, int]] = Sql(
    """
    select scope, name, id, seq
    from backlane_unique_key
    where scope = ?
    and name = ?
    and (until_ms is null or until_ms > ?)
    """
)
# A key that is there all the same was held until a time that is over.
TAKE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_unique_key (scope, name, seq, id, until, until_ms)
    values (?, ?, ?, ?, ?, ?)
    on conflict do update
    set seq = excluded.seq,
        id = excluded.id,
        until = excluded.until,
        until_ms = excluded.until_ms
    """
)
TAKE_FREE: Sql[tuple[()]] = Sql(
    """
    insert into backlane_unique_key (scope, name, seq, id, until, until_ms)
    values (?, ?, ?, ?, ?, ?)
    on conflict do update
    set seq = excluded.seq,
        id = excluded.id,
        until = excluded.until,
        until_ms = excluded.until_ms
    where backlane_unique_key.until_ms <= ?
    """
)
FREE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where scope = ?
    and name = ?
    and seq = ?
    """
)
STARTED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where (scope, name) = (select key_scope, key_name from backlane_job where seq = ?1)
    and seq = ?1
    and until = 0
    """
)
# Of jobs that are pruned: a window outlives them.
PRUNED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where (scope, name) = (select key_scope, key_name from backlane_job where seq = ?1)
    and seq = ?1
    and until < 3
    """
)
# Served by backlane_unique_key_until.
PAST: Sql[tuple[str, str, int]] = Sql(
    """
    select scope, name, seq
    from backlane_unique_key
    where until_ms <= ?
    order by until_ms
    limit ?
    """
)
REWRITE: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set body = ?,
        headers = ?,
        size = ?
    where seq = ?
    """
)
# One of these three finds the job.
RESIZE_READY: Sql[tuple[()]] = Sql(
    """
    update backlane_ready
    set size = ?,
        revision = revision + 1
    where queue = ?
    and lane = ?
    and rank = ?
    and place = ?
    and seq = ?
    """
)
RESIZE_SCHEDULED: Sql[tuple[()]] = Sql(
    """
    update backlane_scheduled
    set size = ?,
        revision = revision + 1
    where due_ms = ?
    and seq = ?
    """
)
RESIZE_BLOCKED: Sql[tuple[()]] = Sql(
    """
    update backlane_blocked
    set size = ?,
        revision = revision + 1
    where seq = ?
    """
)


async def read_holders(
    tx: SqliteTx, keyed: Sequence[Job], now_ms: int
) -> tuple[dict[Key, bytes], dict[bytes, tuple[str, int]]]:
    """Return who holds the keys of these jobs; and those of them that never started, with
    their queue and size, if one of these jobs may replace its holder."""
    asked = [(job.key.scope, job.key.name, now_ms) for job in keyed if job.key]
    rows = await tx.each(HOLDER, asked)
    holders = {Key(scope, name): job for scope, name, job, _ in rows}
    if not rows or all(job.rule.conflict in ("existing", "raise") for job in keyed):
        return holders, {}
    found = await standings(tx, list({seq for *_, seq in rows}))
    unstarted = [one for one in found if one.code in WAITING and not one.token]
    return holders, {one.id: (one.queue_name, one.size) for one in unstarted}


def taking(key: Key, rule: KeyRule, seq: int, job: bytes, enqueued_ms: int) -> tuple[Any, ...]:
    """Return the row of a key that a job holds."""
    if rule.window_ms is not None:
        return (key.scope, key.name, seq, job, WINDOW, enqueued_ms + rule.window_ms)
    return (key.scope, key.name, seq, job, UNTIL.get(rule.until, 1), None)


def would_hold(rule: KeyRule, one: Standing | JobRecord, now_ms: int) -> bool:
    """Whether a job as it stands would hold its key, if nobody else did."""
    if rule.window_ms is not None:
        return one.enqueued_ms + rule.window_ms > now_ms
    match rule.until:
        case "started":
            return not one.token and not one.state.is_final
        case "succeeded":
            return not one.state.is_final or one.state is State.FAILED
        case _:
            return not one.state.is_final


def taking_again(one: Standing, now_ms: int) -> tuple[Any, ...] | None:
    """Return the row of the key that a job holds which begins anew; None: it holds none."""
    rule = decode_extra(one.extra).rule
    if one.key_name is None or (rule.until == "started" and rule.window_ms is None and one.token):
        return None  # it has started, once and for all
    row = taking(Key(one.key_scope or "", one.key_name), rule, one.seq, one.id, one.enqueued_ms)
    return row if row[-1] is None or row[-1] > now_ms else None


async def replace_all(
    tx: SqliteTx, newcomers: Mapping[bytes, Job], now_ms: int, moves: Moves
) -> None:
    """Let jobs that never started take the arguments of newer ones, and when they are due."""
    seqs = [seq for (seq,) in await tx.rows(SEQS, array(list(newcomers)))]
    for one in await standings(tx, seqs):
        await _replace(tx, one, newcomers[one.id], now_ms, moves)
        tx.rings.jobs.append(one.id)
        tx.rings.queues.add(one.queue_name)


async def _replace(tx: SqliteTx, one: Standing, newcomer: Job, now: int, moves: Moves) -> None:
    most_ms, size = newcomer.rule.most_ms, newcomer.size
    delay_ms = most_delayed(newcomer, None if most_ms is None else one.enqueued_ms + most_ms - now)
    await tx.rows(REWRITE, newcomer.body, newcomer.headers, size, one.seq)
    moves.at(one.queue, one.priority).bytes += size - one.size
    due_ms = one.place if one.due_ms is None else one.due_ms
    if delay_ms <= 0 and due_ms <= now:
        place = (one.queue, one.lane, one.rank, one.place, one.seq)
        if one.code == READY:
            await tx.rows(RESIZE_READY, size, *place)
        elif one.code == SCHEDULED:
            await tx.rows(RESIZE_SCHEDULED, size, one.place, one.seq)
        else:
            await tx.rows(RESIZE_BLOCKED, size, one.seq)
        return
    await take_out(tx, moves, [one])
    held = one.held()._replace(size=size)
    if one.waits_for:
        moves.block(held._replace(place=now + max(0, delay_ms)), waits_for=one.waits_for)
    else:
        moves.put_off(held, now + max(0, delay_ms), is_due=delay_ms <= 0)


async def forget_windows(tx: SqliteTx, now_ms: int, limit: int) -> int:
    """Free keys whose window is over, the oldest first; return how many."""
    past = await tx.rows(PAST, now_ms, max(0, limit))
    if past:
        await tx.each(FREE, past)
    return len(past)
