"""Enter: new jobs that are not plain, or whose queue is fair, on their way into line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backlane.engine.admission import Answer, Batch, Store
from backlane.engine.plan import Sql
from backlane.engine.sqlite.limits import limits
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.engine.sqlite.workflow.edges import Tied
from backlane.model.job import Job, Refusal
from backlane.model.limit import Limit

SET_FAIR: Sql[tuple[()]] = Sql(
    """
    update backlane_queue
    set is_fair = ?
    where name = ?
    """
)


async def declare(
    tx: SqliteTx, store: Store, batches: Sequence[Batch], answers: Sequence[Answer]
) -> None:
    """Take in what accepted appends say of limits, and of which queues are fair."""
    said: dict[str, Limit] = {}
    for (jobs, admission), answer in zip(batches, answers, strict=True):
        if isinstance(answer, Refusal):
            continue
        said |= admission.limits
        for queue in {job.queue for job in jobs}:
            if queue in store.entered:
                store.entered[queue].is_fair = queue in admission.fair
    if said:
        await limits.declare_all(tx, said)


async def set_fair(tx: SqliteTx, queues: Mapping[str, bool]) -> None:
    """Let queues be fair from now on, or no more."""
    await tx.each(SET_FAIR, [(int(is_fair), name) for name, is_fair in queues.items()])


def held(seq: int, job: Job, queue: int, lane: int, now: int, *, is_plain: bool) -> Held:
    """A new job on its way."""
    return Held(
        id=job.id,
        token=0,
        seq=seq,
        queue=queue,
        priority=job.priority,
        attempt=0,
        revision=1,
        size=len(job.body) + len(job.headers or b""),
        started_ms=None,
        owner=None,
        is_plain=int(is_plain),
        cancelling=0,
        lane=lane,
        place=now + max(0, job.delay_ms),
        crashes=0,
        parked_ms=None,
    )


def enter(moves: Moves, jobs: Sequence[tuple[Held, int]], tied: Tied) -> None:
    """Let new jobs wait for others, for their time, or in line."""
    for it, delay_ms in jobs:
        waits_for = tied.open.get(it.seq, 0)
        if waits_for or it.seq in tied.vain:
            moves.block(it, waits_for=waits_for)
        elif delay_ms > 0:
            moves.put_off(it, it.place, is_due=False)
        else:
            moves.stand_in_line(it)
