"""Dump: whole jobs and settings out of a namespace, for a move."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from backlane.engine.moving import PART_BYTES, PART_ROWS, Part, Repeat, Settings, Whole
from backlane.engine.redis.append import schedules
from backlane.engine.redis.lease.hold import read_steps
from backlane.engine.redis.limits import limits, resource
from backlane.engine.redis.record import latest as newest
from backlane.engine.redis.record.sheet import (
    NUMBERS,
    job_record,
    known,
    raw,
    read_edges,
    read_row,
    read_sheet,
)
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.engine.redis.upkeep import queues
from backlane.model.job import State

DUMP = Script("dump", "model", "moves")
DUMP_REPEATS = Script("dump_repeats", "model")
DISCARD = Script("discard", "model", "moves", "changes", "bells")
KNOWN = Script("known", "model")

STEP_ROWS = 1_000  # looked at in one script, so that nobody waits for long
STEP_BYTES = 2 * 1024 * 1024
TOLD = 9  # values of a job
REPEATS = 1_000  # a part, about
BEHIND_JOBS = b"r"  # begins the cursor of idempotency keys


async def dump(tx: RedisTx, limit: int, cursor: bytes | None, final: Sequence[State]) -> Part:
    """Read whole jobs in the order of their append, then idempotency keys."""
    if cursor is not None and cursor.startswith(BEHIND_JOBS):
        return await _repeats(tx, [], cursor[1:].decode())
    wanted = {NUMBERS[it]: True for it in (State.SCHEDULED, State.READY, State.BLOCKED, *final)}
    begins = int.from_bytes(cursor or b"")
    jobs: list[Whole] = []
    looked = held = 0
    while True:
        answer = await tx.call(
            DUMP,
            begins,
            limit - len(jobs),
            min(STEP_ROWS, PART_ROWS - looked),
            min(STEP_BYTES, PART_BYTES - held),
            wanted,
        )
        _, begins, rows, size, names, told = answer
        jobs += _wholes(names, told)
        looked, held = looked + rows, held + size
        if begins is None:
            return await _repeats(tx, jobs, "0")
        if len(jobs) >= limit or looked >= PART_ROWS or held >= PART_BYTES:
            return Part(jobs, cursor=begins.to_bytes(8))


def _wholes(queues: list[Any], told: list[Any]) -> list[Whole]:
    names = {queues[at]: queues[at + 1].decode() for at in range(0, len(queues), 2)}
    found = []
    for at in range(0, len(told), TOLD):
        job, text, sheet, progress, result, errors, steps, still, waited = told[at : at + TOLD]
        row = read_row(text)
        record = job_record(
            job, row, names[row.queue], read_sheet(sheet), progress, (result, errors)
        )
        found.append(
            Whole(
                record,
                row.crashes,
                known(row.parked),
                open=read_edges(still),
                turns=row.extra.turns_held if row.extra else (),
                steps=tuple(read_steps(steps or ())),
                waited=tuple(waited[at : at + 16] for at in range(0, len(waited), 16)),
            )
        )
    return found


async def _repeats(tx: RedisTx, jobs: list[Whole], at: str) -> Part:
    _, following, told = await tx.call(DUMP_REPEATS, at, REPEATS)
    repeats = [_repeat(told[i].decode(), told[i + 1]) for i in range(0, len(told), 2)]
    return Part(jobs, repeats, None if following == b"0" else BEHIND_JOBS + following)


def _repeat(field: str, kept: bytes) -> Repeat:
    length, _, rest = field.partition(":")
    text = rest.encode()
    scope, name = text[: int(length)].decode(), text[int(length) :].decode()
    return Repeat(scope, name, kept[6:22], kept[22:], int.from_bytes(kept[:6]))


async def discard(tx: RedisTx, jobs: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """Forget jobs that are elsewhere by now; return those that were not forgotten."""
    left: list[bytes] = []
    for at in range(0, len(jobs), STEP_ROWS):
        some = [(raw(job), revision) for job, revision in jobs[at : at + STEP_ROWS]]
        left += (await tx.call(DISCARD, some))[1]
    return left


async def dump_settings(tx: RedisTx) -> Settings:
    """Read what is known beside jobs."""
    records = await queues.list_queues(tx)
    _, found = await resource.read(tx, None)
    _, secret, forgotten = await tx.call(KNOWN, raw(os.urandom(queues.SECRET_BYTES)))
    return Settings(
        records,
        {one.name: one.breaker for one in found},
        secret,
        forgotten,
        limits=[replace(one, running=0, blocked=0) for one in await limits.list_limits(tx)],
        schedules=(await schedules.list_schedules(tx, due=False)).schedules,
        latest=await newest.all_latest(tx),
    )
