"""Extend and note: what the holder of leases says while its jobs run."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.protocol import Extended
from backlane.engine.sqlite.lease.claim import LOWER_EARLIEST
from backlane.engine.sqlite.record import steps
from backlane.engine.sqlite.record.moves import storable
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import Clock
from backlane.model.job import Note

EXTEND: Sql[tuple[bytes, int, int]] = Sql(
    """
    update backlane_lease
    set until_ms = ?
    where id = ?
    and token = ?
    and until_ms > ?
    returning id, token, cancelling
    """
)
REVISE: Sql[tuple[bytes, int]] = Sql(
    """
    update backlane_lease
    set revision = revision + 1
    where id = ?
    and token = ?
    returning id, seq
    """
)
PROGRESS: Sql[tuple[()]] = Sql(
    """
    insert into backlane_progress (seq, token, fraction, message)
    values (?, ?, ?, ?)
    on conflict do update
    set token = excluded.token,
        fraction = excluded.fraction,
        message = excluded.message
    """
)


async def extend(
    tx: SqliteTx, clock: Clock, leases: Sequence[tuple[bytes, int]], by_ms: int
) -> Extended:
    """Move the end of leases; what has lapsed by time already is lost."""
    now = clock.boot_ms()
    until = now + by_ms
    extended = await tx.each(EXTEND, [(until, job, token, now) for job, token in leases])
    held = {(job, token) for job, token, _ in extended}
    if extended:
        await tx.rows(LOWER_EARLIEST, until)
    return Extended(
        lost=[job for job, token in leases if (job, token) not in held],
        cancelled=[job for job, _, cancelling in extended if cancelling],
    )


async def note(tx: SqliteTx, notes: Sequence[Note]) -> list[bytes]:
    """Keep progress and steps; return the jobs whose lease was no longer current."""
    lost = []
    for one in notes:
        held = await tx.rows(REVISE, one.job, one.token)
        if not held:
            lost.append(one.job)
            continue
        seq, progress = held[0][1], one.progress
        if progress is not None:
            text = None if progress.message is None else storable(progress.message)
            await tx.rows(PROGRESS, seq, one.token, progress.fraction, text)
        if one.steps:
            await steps.keep(tx, seq, one.steps)
        tx.rings.jobs.append(one.job)
    return lost
