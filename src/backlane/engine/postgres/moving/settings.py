"""Settings: what a store knows beside jobs, as one store hands it to another."""

from __future__ import annotations

from typing import Any

from backlane.engine.moving import Settings
from backlane.engine.plan import Sql
from backlane.engine.postgres.append import schedules
from backlane.engine.postgres.append.enter import make_line
from backlane.engine.postgres.lease.head import Heads
from backlane.engine.postgres.limits import limits, resource
from backlane.engine.postgres.moving.arriving import LINES
from backlane.engine.postgres.record import steps
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.upkeep import tune
from backlane.engine.postgres.upkeep.measure import SECRET
from backlane.model.queue import QueueRecord

COUNTED_AT = 5  # the priority under which the lifetime counts of another store are kept

FORGOTTEN: Sql[tuple[int]] = Sql(
    """
    select number
    from backlane.meta
    where name = 'forgotten_ms'
    """
)
SET_QUEUE: Sql[tuple[()]] = Sql(
    """
    update backlane.queue
    set declared_jobs = $3::bigint,
        declared_bytes = $4::bigint,
        declared_wait_ms = $5::bigint,
        declared_share = $6::float8,
        tuned_jobs = $7::bigint,
        tuned_bytes = $8::bigint,
        tuned_wait_ms = $9::bigint,
        tuned_share = $10::float8,
        paused = $11::boolean,
        is_fair = $12::boolean
    where name = $1::text
    and kind = $2::text
    """
)
# Lifetime counts may be longer than those of a verb: they go to the sum itself.
COUNT: Sql[tuple[()]] = Sql(
    """
    insert into backlane.counter as held (queue, priority, appended, retried, succeeded,
        failed, cancelled, expired, started, ended, ran_ms)
    values ($1::int, $2::smallint, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint,
        $8::bigint, $9::bigint, $10::bigint, $11::bigint)
    on conflict (queue, priority) do update
    set appended = held.appended + excluded.appended,
        retried = held.retried + excluded.retried,
        succeeded = held.succeeded + excluded.succeeded,
        failed = held.failed + excluded.failed,
        cancelled = held.cancelled + excluded.cancelled,
        expired = held.expired + excluded.expired,
        started = held.started + excluded.started,
        ended = held.ended + excluded.ended,
        ran_ms = held.ran_ms + excluded.ran_ms
    """
)
SET_SECRET: Sql[tuple[()]] = Sql(
    """
    update backlane.meta
    set value = $1::bytea
    where name = 'secret'
    """
)
RAISE_FORGOTTEN: Sql[tuple[()]] = Sql(
    """
    update backlane.meta
    set number = greatest(number, $1::bigint)
    where name = 'forgotten_ms'
    """
)


async def dump_settings(tx: PostgresTx) -> Settings:
    """Read what is known beside jobs."""
    return Settings(
        queues=await tune.list_queues(tx, Heads()),
        resources=await resource.breakers_of_all(tx),
        secret=(await tx.rows(SECRET))[0][0],
        forgotten_ms=(await tx.rows(FORGOTTEN))[0][0],
        limits=await limits.dump_limits(tx),
        schedules=await schedules.schedules_of_all(tx),
        latest=await steps.latest_of_all(tx),
    )


async def restore_settings(tx: PostgresTx, settings: Settings) -> None:
    """Take in what another store knew beside jobs."""
    known = dict(await tx.rows(LINES, [queue.name for queue in settings.queues]))
    for queue in sorted(settings.queues, key=lambda queue: queue.name):
        if queue.name not in known:
            number = await make_line(tx, queue.name, queue.kind.value, queue.declared)
            await tx.rows(COUNT, number, COUNTED_AT, *_counts(queue))
        await tx.rows(SET_QUEUE, *_set(queue))
        tx.rings.queues.add(queue.name)
    await limits.restore_limits(tx, settings.limits)
    await resource.keep_all(tx, settings.resources)
    if settings.secret:
        await tx.rows(SET_SECRET, settings.secret)
    await tx.rows(RAISE_FORGOTTEN, settings.forgotten_ms)
    await schedules.keep_all(tx, settings.schedules)
    if settings.latest:
        await steps.keep_latest(tx, settings.latest)


def _set(queue: QueueRecord) -> tuple[Any, ...]:
    declared = queue.declared
    return (
        queue.name,
        queue.kind.value,
        declared.max_jobs,
        declared.max_bytes,
        declared.max_wait_ms,
        declared.group_share,
        queue.tuned_max_jobs,
        queue.tuned_max_bytes,
        queue.tuned_max_wait_ms,
        queue.tuned_group_share,
        queue.paused,
        queue.is_fair,
    )


def _counts(queue: QueueRecord) -> tuple[int, ...]:
    """The lifetime counts of the same queue elsewhere."""
    ended = (queue.succeeded, queue.failed, queue.cancelled, queue.expired)
    return (queue.appended, queue.retried, *ended, queue.started, queue.ended, queue.ran_ms)
