"""Workers: who announced themselves, and when they were last heard of."""

from __future__ import annotations

from typing import Any

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.text import loaded, stored
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Presence, WorkerRecord

LISTED = 1_000
SILENT_MS = 60_000  # without a beat: the worker is forgotten

LEAVE: Sql[tuple[()]] = Sql(
    """
    delete from backlane.worker
    where owner = $1::text
    """
)
# The first one after none was alive has schedules counted anew: nobody could declare them.
# They are locked in the order in which ticks lock them, so that two never wait for each other.
BEAT: Sql[tuple[()]] = Sql(
    """
    with state as materialized (
        select coalesce($9::bigint, backlane.now_ms()) as boot_ms
    ),
    held as materialized (
        select name
        from backlane.schedule
        cross join state
        where is_declared
        and not exists (select 1 from backlane.worker where beat_ms > boot_ms - $10::bigint)
        order by name
        for update of schedule
    ),
    declared as (
        update backlane.schedule
        set declared_ms = boot_ms
        from state, held
        where schedule.name = held.name
    )
    insert into backlane.worker (owner, host, pid, queues, slots, running, most, started_ms,
        beat_ms)
    select $1::text, $2::text, $3::int, $4::text[], $5::int, $6::int, $7::jsonb,
        coalesce($8::bigint, backlane.now_ms()), boot_ms
    from state
    on conflict (owner) do update
    set host = excluded.host,
        pid = excluded.pid,
        queues = excluded.queues,
        slots = excluded.slots,
        running = excluded.running,
        most = excluded.most,
        beat_ms = excluded.beat_ms
    """
)
WORKERS: Sql[tuple[Any, ...]] = Sql(
    """
    select owner, host, pid, queues, slots, running, started_ms,
        greatest(0, coalesce($2::bigint, backlane.now_ms()) - beat_ms)
    from backlane.worker
    order by started_ms, owner collate "C"
    limit $1::int
    """
)
FORGET_SILENT: Sql[tuple[()]] = Sql(
    """
    delete from backlane.worker
    where owner in (
        select owner
        from backlane.worker
        where beat_ms < coalesce($1::bigint, backlane.now_ms()) - $2::bigint
        for update skip locked
    )
    """
)


async def announce(tx: PostgresTx, presence: Presence) -> None:
    """Say that a worker is there, or that it leaves."""
    owner = stored(presence.owner)
    if presence.leaving:
        await tx.rows(LEAVE, owner)
        return
    await tx.rows(
        BEAT,
        owner,
        stored(presence.host),
        presence.pid,
        [stored(queue) for queue in presence.queues],
        presence.slots,
        presence.running,
        msgspec.json.encode({stored(queue): most for queue, most in presence.most.items()}),
        tx.wall_ms,
        tx.boot_ms,
        SILENT_MS,
    )


async def list_workers(tx: PostgresTx) -> list[WorkerRecord]:
    """Return the workers that announced themselves, the first ones first."""
    return [
        WorkerRecord(
            owner=loaded(owner),
            host=loaded(host),
            pid=pid,
            queues=tuple(map(loaded, queues)),
            slots=slots,
            running=running,
            started_ms=started_ms,
            beat_age_ms=age_ms,
        )
        for owner, host, pid, queues, slots, running, started_ms, age_ms in await tx.rows(
            WORKERS, LISTED, tx.boot_ms
        )
    ]


async def forget_silent(tx: PostgresTx) -> None:
    """Forget the workers that have not been heard of for a minute."""
    await tx.rows(FORGET_SILENT, tx.boot_ms, SILENT_MS)
