"""Queues: as they are, as they are set, and what their speed is measured by."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.protocol import Declare, Measured, Tune
from backlane.engine.redis.record.sheet import raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.redis.upkeep.workers import Present, read_present
from backlane.model.queue import (
    DEFAULT_BOUNDS,
    Bounds,
    Depth,
    Kind,
    LineSample,
    QueueRecord,
    QueueSample,
    in_line,
)

LIVE_MS = 30_000  # a worker whose last beat is older is not counted on
CLOCK_AHEAD_MS = 600_000  # further ahead no virtual clock is believed

SECRET_BYTES = 32  # what tickets of this store are signed with

LIST = Script("list_queues", "model", "moves", "queues")
MEASURE = Script("measure", "model", "moves", "queues")
RESERVE = Script("reserve", "model")
TUNE = Script("tune", "model", "moves", "bells", "making", "queues")

Fields = Mapping[bytes, bytes]


async def list_queues(tx: RedisTx) -> list[QueueRecord]:
    """Return all queues by name."""
    _, told = await tx.call(LIST)
    return sorted((queue_record(one) for one in told), key=lambda record: record.name)


async def measure(tx: RedisTx, queues: Sequence[str]) -> Measured:
    """Return samples of those of these queues that exist, by name."""
    given = sorted(set(queues)), raw(os.urandom(SECRET_BYTES))
    wall, boot, secret, kept, told = await tx.call(MEASURE, *given)
    present = read_present(kept)
    samples = [_sample(one, withheld, present, wall, boot) for one, withheld in told]
    return Measured(samples, secret)


async def reserve(tx: RedisTx, queue: str, after_ms: int, spacing_us: int, number: int) -> int:
    """Move the queue's virtual clock on; return when the first slot begins, from now."""
    _, begins = await tx.call(RESERVE, queue, after_ms, spacing_us, number)
    return int(begins)


async def tune(tx: RedisTx, queue: str, change: Declare | Tune) -> QueueRecord | None:
    """Declare or tune a queue."""
    if isinstance(change, Declare):
        kind: Any = str(change.kind)
        fields = [*declared_fields(change.bounds), "fair", "1" if change.is_fair else False]
    else:
        kind, fields = False, _changed_fields(change)
    _, told = await tx.call(TUNE, queue, kind, fields)
    return queue_record(told) if told is not None else None


def declared_fields(bounds: Bounds) -> list[Any]:
    """Return what was declared as the fields of a queue; texts, for numbers end at 2^53."""
    return _fields(
        ("d1", bounds.max_jobs),
        ("d2", bounds.max_bytes),
        ("d3", bounds.max_wait_ms),
        ("d4", bounds.group_share),
    )


def tuned_fields(
    max_jobs: int | None, max_bytes: int | None, max_wait_ms: int | None, share: float | None
) -> list[Any]:
    """Return what was tuned, or was not, as the fields of a queue."""
    return _fields(("t1", max_jobs), ("t2", max_bytes), ("t3", max_wait_ms), ("t4", share))


def _changed_fields(change: Tune) -> list[Any]:
    fields = tuned_fields(None, None, None, None) if change.reset else []
    if change.max_jobs:
        fields += _fields(("t1", change.max_jobs))
    if change.max_bytes:
        fields += _fields(("t2", change.max_bytes))
    if change.max_wait_ms is not None:  # 0 lifts the bound
        fields += _fields(("t3", change.max_wait_ms))
    if change.group_share:
        fields += _fields(("t4", change.group_share))
    if change.paused is not None:
        fields += ["paused", "1" if change.paused else False]
    return fields


def _fields(*values: tuple[str, float | None]) -> list[Any]:
    return [part for name, value in values for part in (name, _text(value))]


def _text(value: float | None) -> str | bool:
    return False if value is None else repr(value)


# -- what a queue's hash says --


def queue_record(told: Sequence[Any]) -> QueueRecord:
    """Return a queue as scripts tell of it."""
    fields, oldest = pairs(told[0]), told[1]
    declared = Bounds(
        _integer(fields, b"d1") or DEFAULT_BOUNDS.max_jobs,
        _integer(fields, b"d2") or DEFAULT_BOUNDS.max_bytes,
        _known(fields, b"d3"),
        float(fields[b"d4"]) if b"d4" in fields else None,
    )
    tuned = (
        _known(fields, b"t1"),
        _known(fields, b"t2"),
        _known(fields, b"t3"),
        float(fields[b"t4"]) if b"t4" in fields else None,
    )
    return QueueRecord(
        name=fields[b"name"].decode(),
        kind=Kind(fields[b"kind"].decode()),
        paused=fields.get(b"paused") == b"1",
        is_fair=fields.get(b"fair") == b"1",
        bounds=declared.tuned(*tuned),
        declared=declared,
        tuned_max_jobs=tuned[0],
        tuned_max_bytes=tuned[1],
        tuned_max_wait_ms=tuned[2],
        tuned_group_share=tuned[3],
        depth=Depth(
            _integer(fields, b"s1"),
            _integer(fields, b"s2"),
            _integer(fields, b"s4"),
            _integer(fields, b"s3"),
            _integer(fields, b"bytes"),
        ),
        oldest_ready_ms=oldest,
        appended=_over_priorities(fields, b"a"),
        succeeded=_integer(fields, b"f5"),
        failed=_integer(fields, b"f6"),
        cancelled=_integer(fields, b"f7"),
        expired=_integer(fields, b"f8"),
        retried=_over_priorities(fields, b"y"),
        started=_over_priorities(fields, b"b"),
        ended=_integer(fields, b"ended"),
        ran_ms=_integer(fields, b"ran_ms"),
    )


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a hash as it was told: field, value, field, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _integer(fields: Fields, name: bytes) -> int:
    return int(fields.get(name, 0))


def _known(fields: Fields, name: bytes) -> int | None:
    return int(fields[name]) if name in fields else None


def _over_priorities(fields: Fields, letter: bytes) -> int:
    return sum(_integer(fields, b"%b%d" % (letter, priority)) for priority in range(10))


# -- samples --


def _sample(
    told: Sequence[Any], withheld: list[int], present: Sequence[Present], wall: int, boot: int
) -> QueueSample:
    record, fields = queue_record(told), pairs(told[0])
    held = Counter[int]()  # of each priority: lanes and resources tell of it one by one
    for priority, number in zip(withheld[::2], withheld[1::2], strict=True):
        held[priority] += number
    lines = _lines(fields, held)
    return QueueSample(
        name=record.name,
        bounds=record.bounds,
        is_paused=record.paused,
        lines=tuple(it for it in lines if it != LineSample(it.priority)),
        scheduled=record.depth.scheduled,
        bytes=record.depth.bytes,
        ended=record.ended,
        ran_ms=record.ran_ms,
        foretold=_integer(fields, b"foretold"),
        foretold_ms=_integer(fields, b"foretold_ms"),
        waited_ms=_integer(fields, b"waited_ms"),
        oldest_ready_ms=record.oldest_ready_ms,
        slots=_slots(record, present, boot),
        reserved_ms=_ahead_ms(_integer(fields, b"clock_us"), wall),
    )


def _lines(fields: Fields, withheld: Mapping[int, int]) -> list[LineSample]:
    ready = {priority: _integer(fields, b"r%d" % priority) for priority in range(10)}
    left = in_line(ready, withheld)
    return [
        LineSample(
            priority,
            left[priority],
            _integer(fields, b"u%d" % priority),
            _integer(fields, b"a%d" % priority) + _integer(fields, b"y%d" % priority),
            _integer(fields, b"b%d" % priority),
        )
        for priority in range(10)
    ]


def _slots(record: QueueRecord, present: Sequence[Present], boot: int) -> int | None:
    """The slots of live workers; None if there never was one, as far as is known."""
    serving = [it for it in present if record.name in it.presence.queues]
    # A worker that left is forgotten, and what it did is not: then nobody is there now.
    if not serving and not (record.kind is Kind.TASKS and record.started):
        return None
    return sum(
        min(it.presence.slots, it.presence.most.get(record.name, it.presence.slots))
        for it in serving
        if it.beat >= boot - LIVE_MS
    )


def _ahead_ms(clock_us: int, wall: int) -> int:
    """How far a virtual clock is ahead of now, as far as it is believed."""
    ahead = clock_us - wall * 1000
    return ahead // 1000 if 0 < ahead <= CLOCK_AHEAD_MS * 1000 else 0
