"""Limits: as they are set and kept, and places that are held under them outside of jobs."""

from __future__ import annotations

from typing import Any

import msgspec

from backlane.engine.limiting import Acquired, Declared, Tuned
from backlane.engine.redis.record.sheet import packed_use, raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.model.limit import Limit, LimitRecord, Rate, Use

_PARTS = ("model", "moves", "bells", "limiting")
REGULATE = Script("regulate", *_PARTS)
LIST = Script("list_limits", *_PARTS)
ACQUIRE = Script("acquire", *_PARTS)
RELEASE = Script("release", *_PARTS)

LISTED = 1_000


class KeptLimit(msgspec.Struct, frozen=True, array_like=True):
    """A limit as scripts read it; False for None."""

    concurrency: int | bool
    interval_us: int | bool
    burst: int = 1
    number: int = 0
    per_ms: int = 0
    per_group: bool = False


_read = msgspec.msgpack.Decoder(KeptLimit).decode


def packed_limit(limit: Limit) -> KeptLimit:
    """Return a limit as `lua/gates.lua` has it."""
    rate = limit.rate
    most = False if limit.concurrency is None else limit.concurrency
    if rate is None:
        return KeptLimit(most, interval_us=False, per_group=limit.per_group)
    return KeptLimit(most, rate.interval_us, rate.burst, rate.number, rate.per_ms, limit.per_group)


def _limit(kept: bytes) -> Limit:
    it = _read(kept)
    rate = None if it.interval_us is False else Rate(it.number, it.per_ms, it.burst)
    return Limit(None if it.concurrency is False else it.concurrency, rate, it.per_group)


async def list_limits(tx: RedisTx) -> list[LimitRecord]:
    """Return the limits by name."""
    _, told = await tx.call(LIST, LISTED)
    return [_record(one) for one in told]


async def regulate(tx: RedisTx, name: str, change: Declared | Tuned) -> LimitRecord | None:
    """Declare or tune a limit."""
    given: tuple[Any, Any]
    if isinstance(change, Declared):
        given = packed_limit(change.limit), False
    else:
        given = False, False if change.limit is None else packed_limit(change.limit)
    _, told = await tx.call(REGULATE, name, *given)
    return _record(told) if told is not None else None


def _record(told: list[Any]) -> LimitRecord:
    name, kept, tuned_kept, running, blocked = told
    declared = _limit(kept)
    tuned = None if tuned_kept is None else _limit(tuned_kept)
    return LimitRecord(
        name=name.decode(),
        limit=tuned or declared,
        declared=declared,
        tuned=tuned,
        running=running,
        blocked=blocked,
    )


async def acquire(
    tx: RedisTx, use: Use, declared: Limit | None, holder: bytes, lease_ms: int
) -> Acquired:
    """Take a place under a limit, or keep the one there is."""
    limit: Any = False if declared is None else packed_limit(declared)
    _, given, wait_ms = await tx.call(
        ACQUIRE, packed_use(use), use.limit, limit, raw(holder), lease_ms
    )
    return Acquired(bool(given), wait_ms)


async def release(tx: RedisTx, use: Use, holder: bytes) -> bool:
    """Give a place back; return whether the holder had it still."""
    _, had = await tx.call(RELEASE, packed_use(use), raw(holder))
    return bool(had)
