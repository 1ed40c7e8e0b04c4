"""Workers: who announced themselves, and when they were last heard of."""

from __future__ import annotations

import json

from backlane.engine.plan import Sql
from backlane.engine.protocol import Presence, WorkerRecord
from backlane.engine.sqlite.append.schedules import begin_silence
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import Clock

LISTED = 1_000
SILENT_MS = 60_000  # without a beat: the worker is forgotten

LEAVE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_worker
    where owner = ?
    """
)
BEAT: Sql[tuple[()]] = Sql(
    """
    insert into backlane_worker (owner, host, pid, queues, slots, running, started_ms, beat_ms,
        most)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (owner) do update
    set host = excluded.host,
        pid = excluded.pid,
        queues = excluded.queues,
        slots = excluded.slots,
        running = excluded.running,
        beat_ms = excluded.beat_ms,
        most = excluded.most
    """
)
WORKERS: Sql[tuple[str, str, int, str, int, int, int, int]] = Sql(
    """
    select owner, host, pid, queues, slots, running, started_ms, beat_ms
    from backlane_worker
    order by rowid
    limit ?
    """
)
FORGET_SILENT: Sql[tuple[()]] = Sql(
    """
    delete from backlane_worker
    where beat_ms < ?
    """
)


async def announce(tx: SqliteTx, clock: Clock, presence: Presence) -> None:
    """Say that a worker is there, or that it leaves."""
    if presence.leaving:
        await tx.rows(LEAVE, presence.owner)
        return
    await begin_silence(tx, clock)
    await tx.rows(
        BEAT,
        presence.owner,
        presence.host,
        presence.pid,
        json.dumps(presence.queues),
        presence.slots,
        presence.running,
        clock.wall_ms(),
        clock.boot_ms(),
        json.dumps(dict(presence.most)),
    )


async def list_workers(tx: SqliteTx, clock: Clock) -> list[WorkerRecord]:
    """Return the workers that announced themselves, the first ones first."""
    now = clock.boot_ms()
    return [
        WorkerRecord(
            owner=owner,
            host=host,
            pid=pid,
            queues=tuple(json.loads(queues)),
            slots=slots,
            running=running,
            started_ms=started_ms,
            beat_age_ms=max(0, now - beat_ms),
        )
        for owner, host, pid, queues, slots, running, started_ms, beat_ms in await tx.rows(
            WORKERS, LISTED
        )
    ]


async def forget_silent(tx: SqliteTx, clock: Clock) -> None:
    """Forget the workers that have not been heard of for a minute."""
    await tx.rows(FORGET_SILENT, clock.boot_ms() - SILENT_MS)
