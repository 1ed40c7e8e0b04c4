"""Windows: which ready jobs a transport carries, as their rows say.

The mark is a column of the row that makes a job ready, so it goes with that row whoever
takes it away. What is offered is counted in an index that has those rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite.rows.head import Order, Place
from backlane.engine.sqlite.store.transaction import SqliteTx, array
from backlane.model.clock import Clock

KNOWN_MS = 1_000  # for so long at most what was found of a full window is believed

OFFERED: Sql[tuple[int, int | None, int | None]] = Sql(
    """
    select count(*), min(offered_ms), max(offered_ms)
    from backlane_ready indexed by backlane_ready_offered
    where queue = ?
    and lane & 1 = ?
    and offered_ms is not null
    """
)
# Reads as many as there are in the window, and what it names.
NEXT: Sql[tuple[int, int, int, bytes, str | None]] = Sql(
    """
    select rank, ready.place, ready.seq, id, group_name
    from backlane_ready as ready
    cross join backlane_job as job on job.seq = ready.seq
    where ready.queue = ?
    and ready.lane = ?
    and offered_ms is null
    order by rank, ready.place, ready.seq
    limit ?
    """
)
MARK: Sql[tuple[()]] = Sql(
    """
    update backlane_ready
    set offered_ms = ?
    where queue = ?
    and lane = ?
    and (rank, place, seq) <= (?, ?, ?)
    and offered_ms is null
    """
)
VOID: Sql[tuple[()]] = Sql(
    """
    update backlane_ready indexed by backlane_ready_offered
    set offered_ms = null
    where queue = ?
    and lane & 1 = ?
    and offered_ms is not null
    and (offered_ms < ? or offered_ms > ?)
    """
)
WITHDRAWN: Sql[Place] = Sql(
    """
    select ready.queue, ready.lane, rank, ready.place, ready.seq
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    cross join backlane_ready as ready indexed by backlane_ready_offered
    on ready.queue = job.queue
    and ready.lane & 1 = job.lane & 1
    and ready.seq = job.seq
    and offered_ms is not null
    """
)
UNMARK: Sql[tuple[()]] = Sql(
    """
    update backlane_ready
    set offered_ms = null
    where queue = ?
    and lane = ?
    and rank = ?
    and place = ?
    and seq = ?
    """
)
# Whatever takes a job out of ready, or brings one in that is not new, changes this.
COUNTED: Sql[tuple[str]] = Sql(
    """
    select format('%d %d %d %d %d %d', sum(ready - appended), sum(started), sum(scheduled),
        sum(blocked), sum(cancelled), sum(expired))
    from backlane_counter
    where queue = ?
    """
)
FULL: Sql[tuple[int, int, int, str, int]] = Sql(
    """
    select jobs, oldest_ms, newest_ms, counted, found_ms
    from backlane_full_window
    where queue = ?
    and kind = ?
    """
)
KEEP_FULL: Sql[tuple[()]] = Sql(
    """
    insert or replace into backlane_full_window (queue, kind, jobs, oldest_ms, newest_ms,
        counted, found_ms)
    values (?, ?, ?, ?, ?, ?, ?)
    """
)
FORGET_FULL: Sql[tuple[()]] = Sql(
    """
    delete from backlane_full_window
    where queue = ?
    """
)


class Window(NamedTuple):
    """What is offered of a queue, for one kind of executor."""

    jobs: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0
    is_full: bool = False  # as was found lately, while jobs waited behind it

    def is_old(self, now_ms: int, for_ms: int) -> bool:
        """Whether an offer is old; one of the future is of a clock since set back."""
        has_old = self.oldest_ms < now_ms - for_ms or self.newest_ms > now_ms + for_ms
        return self.jobs > 0 and has_old


async def read(tx: SqliteTx, clock: Clock, queue: int, kind: int, window: int) -> Window:
    """Look at a window; one that is known to be full is not counted again."""
    found = await tx.rows(FULL, queue, kind)
    if found:
        jobs, oldest_ms, newest_ms, counted, found_ms = found[0]
        is_known = 0 <= clock.boot_ms() - found_ms < KNOWN_MS and jobs >= window
        if is_known and counted == (await tx.rows(COUNTED, queue))[0][0]:
            return Window(jobs, oldest_ms, newest_ms, is_full=True)
    return await count(tx, queue, kind)


async def count(tx: SqliteTx, queue: int, kind: int) -> Window:
    jobs, oldest_ms, newest_ms = (await tx.rows(OFFERED, queue, kind))[0]
    return Window(jobs, oldest_ms or 0, newest_ms or 0)


async def keep_full(tx: SqliteTx, clock: Clock, queue: int, kind: int) -> None:
    """Remember that a window is full, and that jobs wait behind it."""
    window = await count(tx, queue, kind)
    counted = (await tx.rows(COUNTED, queue))[0][0]
    await tx.rows(KEEP_FULL, queue, kind, *window[:3], counted, clock.boot_ms())


async def mark(tx: SqliteTx, now_ms: int, queue: int, last: dict[int, Order]) -> None:
    """Offer all up to the last, in each of these lanes."""
    await tx.each(MARK, [(now_ms, queue, lane, *order) for lane, order in last.items()])


async def void(tx: SqliteTx, queue: int, kind: int, before_ms: int, after_ms: int) -> None:
    """Forget the offers made before the one time or after the other."""
    await tx.rows(VOID, queue, kind, before_ms, after_ms)
    await tx.rows(FORGET_FULL, queue)


async def withdraw(tx: SqliteTx, jobs: Sequence[bytes]) -> None:
    """Forget that these are offered."""
    places = await tx.rows(WITHDRAWN, array(jobs)) if jobs else []
    await tx.each(UNMARK, places)
    await tx.each(FORGET_FULL, [(queue,) for queue in {place[0] for place in places}])
