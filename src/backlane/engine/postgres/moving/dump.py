"""Dump: whole jobs on their way to another store; and discard, once they are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backlane.engine.moving import PART_BYTES, PART_ROWS, Part, Repeat, Whole
from backlane.engine.plan import Sql
from backlane.engine.postgres.limits.limits import turns_of
from backlane.engine.postgres.record import steps
from backlane.engine.postgres.record.forget import forget
from backlane.engine.postgres.record.moves import FINAL_CODES, Moves
from backlane.engine.postgres.record.record import RUNNING, WAITING, seqs_of, standings, wholes
from backlane.engine.postgres.record.taking import hold, let_go, take_out
from backlane.engine.postgres.store.seal import sealed_for_changes
from backlane.engine.postgres.store.text import loaded
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep import edges
from backlane.model.job import State

# $3 is a set of final states as bits. Each sub-select is one look-up by key.
ROWS: Sql[tuple[int, int, bool, bool]] = Sql(
    """
    select job.seq,
        job.size + coalesce(
            (select octet_length(result) from backlane.finished where finished.seq = job.seq), 0
        ),
        coalesce(
            (
                select $3::int >> state & 1 = 1
                    or exists (select 1 from backlane.edge where awaited = job.id)
                from backlane.ended
                where ended.seq = job.seq
            ),
            (select false from backlane.lease where lease.id = job.id),
            not exists (
                select 1
                from backlane.edge
                join backlane.lease on lease.id = edge.awaited
                where edge.waiting = job.seq
                and is_open
            )
        ),
        exists (select 1 from backlane.ended where ended.seq = job.seq)
    from backlane.job
    where job.seq >= $1::bigint
    order by job.seq
    limit $2::int
    """
)
REPEATS: Sql[tuple[bytes, str, str, bytes, bytes, int]] = Sql(
    """
    select digest, scope, name, id, print, until_ms
    from backlane.idempotency
    where digest > $1::bytea
    order by digest
    limit $2::int
    """
)
JOBS, REPEATED = 0, 1  # what a cursor goes on with
LOOKS = 20  # at a job that moves while we want to discard it


async def dump(tx: PostgresTx, limit: int, cursor: bytes | None, final: Sequence[State]) -> Part:
    """Read whole jobs in the order of their append, then idempotency keys."""
    place: list[Any] = msgspec.msgpack.decode(cursor) if cursor else [JOBS, 0]
    if place[0] == REPEATED:
        return await _dump_repeats(tx, limit, place[1])
    bits = sum(1 << FINAL_CODES[state] for state in set(final))
    rows = await tx.rows(ROWS, place[1], PART_ROWS, bits)
    seqs: list[int] = []
    held = 0
    behind: list[Any] | None = None
    over: set[int] = set()
    for seq, size, is_wanted, is_over in rows:
        if len(seqs) >= limit or held >= PART_BYTES:
            behind = [JOBS, seq]
            break
        if is_wanted:
            seqs.append(seq)
            held += size
            if is_over:
                over.add(seq)
    if behind is None:
        behind = [JOBS, rows[-1][0] + 1] if len(rows) == PART_ROWS else [REPEATED, b""]
    done = await steps.recall_all(tx, seqs) if seqs else {}
    kept = await wholes(tx, seqs)
    turns = await turns_of(tx, [(one.seq, record.uses) for one, record in kept])
    waiting = [one for one, _ in kept if one.code in WAITING]
    tied = await edges.edges_of(tx, waiting)
    found = [
        Whole(
            record,
            one.crashes,
            one.parked_ms,
            open=tied[one.seq][0] if one.seq in tied else (),
            waited=tied[one.seq][1] if one.seq in tied else (),
            turns=tuple(turns.get(one.seq, ())),
            steps=done.get(one.seq, ()),
        )
        for one, record in reversed(kept)
        if one.code in WAITING or one.seq in over or one.state in final
    ]
    return Part(found, cursor=msgspec.msgpack.encode(behind))


async def _dump_repeats(tx: PostgresTx, limit: int, digest: bytes) -> Part:
    rows = await tx.rows(REPEATS, digest, limit)
    behind = [REPEATED, rows[-1][0]] if len(rows) == limit else None
    repeats = [Repeat(loaded(row[1]), loaded(row[2]), *row[3:]) for row in rows]
    return Part(repeats=repeats, cursor=msgspec.msgpack.encode(behind) if behind else None)


# -- once they are elsewhere --


async def discard(tx: PostgresTx, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """Forget jobs that are elsewhere by now; return those that were not forgotten."""
    seal, _ = await sealed_for_changes(tx)
    if not jobs or seal is None:
        return [job for job, _ in jobs]
    revisions = dict(jobs)
    gone: set[bytes] = set()
    seqs = await seqs_of(tx, list(revisions))
    for _ in range(LOOKS):
        found = [
            one
            for one in await standings(tx, seqs)
            if one.code != RUNNING and one.revision == revisions[one.id]
        ]
        held = await hold(tx, found)
        mine = [one for one in found if one.seq in held]
        if mine:
            moves = Moves()
            await take_out(tx, mine, moves)
            await let_go(tx, [one for one in mine if one.code in WAITING], moves)
            await forget(tx, [one.seq for one in mine])
            # Of those that wait, the edges stay: they end elsewhere.
            await edges.forget(tx, [one.id for one in mine if one.code not in WAITING])
            await moves.store(tx)
            gone |= {one.id for one in mine}
        seqs = [one.seq for one in found if one.seq not in held]
        if not seqs:
            break
    tx.rings.jobs += gone
    return [job for job, _ in jobs if job not in gone]
