"""Sweep: mend what lapsed, end what expired, age what waits, prune what is old.

Each part is a statement and a transaction of its own, bounded and safe beside the same
part of another sweep: what one has locked, the other passes by.
"""

from __future__ import annotations

from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.postgres.append.reading import FOLD, FOLDED
from backlane.engine.postgres.append.schedules import forget_undeclared
from backlane.engine.postgres.lease.turn import QUEUE_NAMES
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep.workers import forget_silent
from backlane.engine.retention import Retention, Swept

TIME: Sql[tuple[int]] = Sql("select coalesce($1::bigint, backlane.now_ms())")
BRING_BACK: Sql[tuple[int, list[bytes] | None, list[bytes] | None, list[int] | None]] = Sql(
    """
    select lapsed, gone, buried, rung
    from backlane.bring_back(coalesce($1::bigint, backlane.now_ms()),
        coalesce($2::bigint, backlane.now_ms()), '{}', '-9223372036854775808'::bigint, $3::int)
    """
)
EXPIRE: Sql[tuple[int | None, list[bytes] | None, list[bytes] | None, list[int] | None]] = Sql(
    "select met, expired, changed, rung from backlane.expire($1::bigint, $2::int)"
)
AGE: Sql[tuple[int]] = Sql("select backlane.age($1::bigint, $2::int)")
AGE_FAIRLY: Sql[tuple[int]] = Sql("select backlane.age_fairly($1::bigint, $2::int)")
TIDY_LIMITS: Sql[tuple[int]] = Sql(
    """
    select backlane.tidy_limits($1::bigint, coalesce($2::bigint, backlane.now_ms()), $3::int)
    """
)
PRUNE: Sql[tuple[list[bytes]]] = Sql(
    """
    select backlane.prune($1::bigint, $2::boolean, $3::bigint, $4::bigint, $5::bigint, $6::int)
    """
)
CLEAR: Sql[tuple[int]] = Sql("select backlane.clear($1::bigint, $2::int)")
FOLD_GROUPS: Sql[tuple[int]] = Sql("select backlane.fold_groups($1::int)")
ARRANGE: Sql[tuple[int]] = Sql("select backlane.arrange_parts()")


async def sweep(tx: PostgresTx, limit: int, retention: Retention) -> Swept:
    """Do one bounded round; `more` says that it stopped at its limit."""
    now = (await tx.rows(TIME, tx.wall_ms))[0][0]
    lapsed, gone, buried, rung = (await tx.rows(BRING_BACK, tx.wall_ms, tx.boot_ms, limit))[0]
    left = limit - lapsed
    met = expired = changed = more_rung = None
    if left > 0:
        met, expired, changed, more_rung = (await tx.rows(EXPIRE, now, left))[0]
    left -= met or 0
    aged = await _number(tx, AGE, now, left) if left > 0 else 0
    aged += await _number(tx, AGE_FAIRLY, now, left - aged) if left > aged else 0
    left -= aged
    pruned = await _prune(tx, now, retention, left)
    left -= len(pruned)
    left -= await _number(tx, CLEAR, now, max(0, left))
    await forget_silent(tx)
    await forget_undeclared(tx)
    await _number(tx, TIDY_LIMITS, now, tx.boot_ms, limit)
    await _number(tx, FOLD, FOLDED)
    await _number(tx, FOLD_GROUPS, FOLDED)
    await _number(tx, ARRANGE)
    tx.rings.jobs += [*(gone or ()), *(expired or ()), *(changed or ()), *pruned]
    rung = [*(rung or ()), *(more_rung or ())]
    if rung:
        names = dict(await tx.rows(QUEUE_NAMES))
        tx.rings.queues |= {names[queue] for queue in rung if queue in names}
    return Swept(
        lapsed=lapsed,
        buried=buried or [],
        expired=len(expired or ()),
        aged=aged,
        pruned=len(pruned),
        more=left <= 0,
    )


async def _prune(tx: PostgresTx, now: int, kept: Retention, limit: int) -> list[bytes]:
    """Forget history past its age or number, of what failed and of all else."""
    if limit <= 0:
        return []
    done = (False, kept.done_ms, kept.done_jobs, kept.least_ms)
    pruned = (await tx.rows(PRUNE, now, *done, limit))[0][0]
    if len(pruned) < limit:
        failed = (True, kept.failed_ms, kept.failed_jobs, kept.least_ms)
        pruned = pruned + (await tx.rows(PRUNE, now, *failed, limit - len(pruned)))[0][0]
    return pruned


async def _number(tx: PostgresTx, statement: Sql[tuple[int]], *params: Any) -> int:
    return (await tx.rows(statement, *params))[0][0]
