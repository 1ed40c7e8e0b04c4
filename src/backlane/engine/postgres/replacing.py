"""Replacing: jobs that never started take the arguments of those that met their key held."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from backlane.engine.admission import most_delayed
from backlane.engine.plan import Sql
from backlane.engine.postgres.moves import Moves
from backlane.engine.postgres.record import WAITING, Standing, seqs_of, standings
from backlane.engine.postgres.taking import hold, placed, take_out, wait_on
from backlane.engine.postgres.transaction import PostgresTx
from backlane.model.job import Job

REPLACING = ("replace", "debounce")
LOOKS = 20  # at one job: each further one means that somebody changed it just then

REWRITE: Sql[tuple[()]] = Sql(
    """
    update backlane.job
    set body = given.body,
        headers = given.headers,
        size = given.size
    from unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::int[])
        as given (seq, body, headers, size)
    where job.seq = given.seq
    """
)


async def held_unstarted(tx: PostgresTx, jobs: Collection[bytes]) -> list[Standing]:
    """Return those of these jobs that wait and were never leased, held where they are."""
    found: list[Standing] = []
    seqs = await seqs_of(tx, sorted(jobs))
    for _ in range(LOOKS):
        there = await standings(tx, seqs)
        chosen = [one for one in there if one.code in WAITING and not one.token]
        held = await hold(tx, chosen)
        found += [one for one in chosen if one.seq in held]
        seqs = [one.seq for one in chosen if one.seq not in held]
        if not seqs:
            break
    return found


async def unstarted(tx: PostgresTx, jobs: Collection[bytes]) -> dict[bytes, tuple[str, int]]:
    """Return the queues and sizes of those of these jobs that can be replaced."""
    return {one.id: (one.queue_name, one.size) for one in await held_unstarted(tx, jobs)}


async def replace(tx: PostgresTx, newcomers: Mapping[bytes, Job], now_ms: int) -> set[bytes]:
    """Let holders of keys take the arguments of newcomers; return those that did."""
    mine = await held_unstarted(tx, newcomers)
    if not mine:
        return set()
    moves = Moves()
    await take_out(tx, mine, moves)
    for one in mine:
        job = newcomers[one.id]
        most_ms = job.rule.most_ms
        left_ms = None if most_ms is None else one.enqueued_ms + most_ms - now_ms
        delay_ms = most_delayed(job, left_ms)
        moves.at(one.queue, one.priority).bytes += job.size - one.size
        if delay_ms <= 0 and (one.place if one.due_ms is None else one.due_ms) <= now_ms:
            wait_on(moves, one, placed(one)._replace(size=job.size))
        else:
            then = placed(one)._replace(size=job.size)
            moves.line_up(then, now_ms + max(0, delay_ms), waits_for=one.waits_for or 0)
    given = [newcomers[one.id] for one in mine]
    await tx.rows(
        REWRITE,
        [one.seq for one in mine],
        [job.body for job in given],
        [job.headers for job in given],
        [job.size for job in given],
    )
    await moves.store(tx)
    tx.rings.jobs += [one.id for one in mine]
    tx.rings.queues |= {one.queue_name for one in mine}
    return {one.id for one in mine}
