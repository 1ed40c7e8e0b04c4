"""Restore: whole jobs that another store had, and idempotency keys."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.moving import Part, Whole
from backlane.engine.moving import Repeat as MovedRepeat
from backlane.engine.plan import Sql
from backlane.engine.postgres.moving.arriving import Arriving
from backlane.engine.postgres.store.text import stored
from backlane.engine.postgres.store.transaction import PostgresTx

KNOWN: Sql[tuple[bytes]] = Sql(
    """
    select id
    from unnest($1::bytea[]) as given (wanted)
    join backlane.job on id = wanted
    """
)
# One whose time is over gives way.
KEEP_REPEATS: Sql[tuple[()]] = Sql(
    """
    insert into backlane.idempotency as known (digest, scope, name, id, print, until_ms)
    select backlane.digest(scope, name), scope, name, id, print, until_ms
    from unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bigint[])
        as given (scope, name, id, print, until_ms)
    order by 1
    on conflict (digest) do update
    set id = excluded.id,
        print = excluded.print,
        until_ms = excluded.until_ms
    where known.until_ms <= coalesce($6::bigint, backlane.now_ms())
    """
)
ARRIVED: Sql[tuple[bytes]] = Sql(
    """
    select value
    from backlane.meta
    where name = $1::text
    """
)
SET_ARRIVED: Sql[tuple[()]] = Sql(
    """
    insert into backlane.meta (name, value)
    values ($1::text, $2::bytea)
    on conflict (name) do update
    set value = excluded.value
    """
)
FORGET_ARRIVED: Sql[tuple[()]] = Sql(
    """
    delete from backlane.meta
    where name = $1::text
    """
)


async def restore(tx: PostgresTx, part: Part, move: bytes) -> list[bytes]:
    """Take whole jobs in; return those that were new."""
    new = await _new(tx, part.jobs, await _arrived(tx, move))
    taken: set[bytes] = set()
    if new:
        taken = await Arriving(tx).take_in(new)
    if part.repeats:
        await _keep_repeats(tx, part.repeats)
    if move:
        name = f"arrived {move.hex()}"
        if part.jobs:
            await tx.rows(SET_ARRIVED, name, b"".join(whole.record.id for whole in part.jobs))
        else:
            await tx.rows(FORGET_ARRIVED, name)
    return [whole.record.id for whole in new if whole.record.id in taken]


async def _arrived(tx: PostgresTx, move: bytes) -> set[bytes]:
    """Return the jobs of the latest part of this move."""
    rows = await tx.rows(ARRIVED, f"arrived {move.hex()}") if move else []
    ids = rows[0][0] if rows else b""
    return {ids[at : at + 16] for at in range(0, len(ids), 16)}


async def _new(tx: PostgresTx, jobs: Sequence[Whole], known: set[bytes]) -> list[Whole]:
    if not jobs:
        return []
    ids = [whole.record.id for whole in jobs]
    known = known | {job for (job,) in await tx.rows(KNOWN, ids)}
    return [whole for whole in jobs if whole.record.id not in known]


async def _keep_repeats(tx: PostgresTx, repeats: Sequence[MovedRepeat]) -> None:
    await tx.rows(
        KEEP_REPEATS,
        [stored(one.scope) for one in repeats],
        [stored(one.name) for one in repeats],
        [one.job for one in repeats],
        [one.print for one in repeats],
        [one.until_ms for one in repeats],
        tx.wall_ms,
    )
