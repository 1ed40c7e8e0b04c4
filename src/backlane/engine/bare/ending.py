"""Ending: outcomes are carried out, each by publishing what it asks for, then acknowledging.

So a worker that dies between the two leaves both, and never none: a job may run again, and
is not lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import assert_never

import msgspec
from msgspec.structs import replace

from backlane.engine import wire
from backlane.engine.bare.burying import dead_letter
from backlane.engine.bare.core import Core, Held, Owed
from backlane.engine.bare.routing import dead_queue
from backlane.engine.protocol import Extended, Settled
from backlane.engine.transport import Delivery, Fate, Parcel
from backlane.model.job import Lane
from backlane.model.outcome import (
    POISON_CAP,
    Awaiting,
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Reason,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)

_JOINS = ErrorRecord("NotSupported", "a job that waits for other jobs needs a ledger")


class _Copy(msgspec.Struct):
    """A message to be published before a delivery is acknowledged."""

    held: Held
    name: str
    parcel: Parcel


class _Work(msgspec.Struct):
    """What the outcomes of one call come to."""

    done: list[Held] = []
    released: list[Held] = []
    copies: list[_Copy] = []
    lost: list[bytes] = []
    buried: list[bytes] = []


async def settle(core: Core, settlements: Sequence[Settlement], *, awaited: bool = True) -> Settled:
    """Carry outcomes out; those of leases that are not current any more are lost.

    What is published is confirmed on return. What is acknowledged is too where that is
    `awaited`; else it is on its way, and the next jobs are claimed meanwhile.
    """
    if not settlements:
        return Settled()
    work = _Work()
    for settlement in settlements:
        held = core.held.get(settlement.job)
        if held is None or held.lease.token != settlement.token:
            work.lost.append(settlement.job)
        elif held.has_copy:  # the call before published it, and could not acknowledge
            work.done.append(held)
        else:
            await _judge(core, held, settlement, work)
    await _publish(core, work)
    await _acknowledge(core, work, awaited=awaited)
    return Settled(lost=work.lost, buried=work.buried)


async def _judge(core: Core, held: Held, settlement: Settlement, work: _Work) -> None:
    letter, policy = held.letter, held.lease.policy
    now_ms = core.clock.wall_ms()
    match settlement.outcome:
        case Succeeded() | Cancelled():
            work.done.append(held)
        case Released():
            work.released.append(held)
        case Snoozed(delay_ms=delay_ms, parked=parked):
            since = (letter.parked or now_ms) if parked else None
            await _copy(core, held, replace(letter, due=now_ms + delay_ms, parked=since), work)
        case RetryAfter(delay_ms=delay_ms, error=error):
            tried = replace(letter, attempt=letter.attempt + 1, due=now_ms + delay_ms, parked=None)
            if tried.attempt >= policy.attempts:
                await _bury(core, held, Reason.ATTEMPTS, error, work)
            else:
                await _copy(core, held, tried, work)
        case Crashed(alone=alone, error=error):
            crashes = letter.crashes + alone
            tried = replace(letter, attempt=letter.attempt + 1, crashes=crashes, parked=None)
            if crashes >= POISON_CAP or tried.attempt >= policy.attempts:
                await _bury(core, held, Reason.CRASHED, error, work)
            else:
                await _copy(core, held, tried, work, Lane.EXCLUSIVE)
        case Failed(reason=reason, error=error):
            await _bury(core, held, reason, error, work)
        case Awaiting():
            await _bury(core, held, Reason.ERROR, _JOINS, work)
        case _:
            assert_never(settlement.outcome)


async def _copy(
    core: Core, held: Held, letter: wire.Letter, work: _Work, lane: Lane | None = None
) -> None:
    lease = held.lease
    name = await core.declare(lease.queue, Lane(lease.lane) if lane is None else lane)
    body = held.delivery.body if lease.task is None else None
    parcel = core.parcel(lease.job, letter, body, held.headers)
    work.copies.append(_Copy(held, name, parcel))


async def _bury(core: Core, held: Held, reason: Reason, error: ErrorRecord, work: _Work) -> None:
    counted = reason is not Reason.UNKNOWN_TASK
    held.letter = replace(held.letter, attempt=held.letter.attempt + counted)
    name = await core.declare(dead_queue(held.lease.queue))
    work.copies.append(_Copy(held, name, dead_letter(core, held, reason, error)))
    work.buried.append(held.lease.job)


async def _publish(core: Core, work: _Work) -> None:
    """Publish all copies; what is not confirmed is tried until it is."""
    by_name: dict[str, list[_Copy]] = {}
    for copy in work.copies:
        by_name.setdefault(copy.name, []).append(copy)
    answers = await asyncio.gather(
        *(core.publish(name, [it.parcel for it in part]) for name, part in by_name.items())
    )
    now = time.monotonic()
    for part, fates in zip(by_name.values(), answers, strict=True):
        core.depths.sent(part[0].name, len(part))
        for copy, fate in zip(part, fates, strict=True):
            held = copy.held
            if fate is Fate.CONFIRMED:
                held.has_copy = True
                work.done.append(held)
                continue
            # The worker is done with it. The delivery stays ours until the copy is there.
            held.until = float("inf")
            held.lease = replace(held.lease, token=core.new_token())
            core.owed.append(Owed(held, copy.name, copy.parcel, now))
            core.keep()


async def _acknowledge(core: Core, work: _Work, *, awaited: bool) -> None:
    """Acknowledge what is done. Where that fails nothing is forgotten, and it comes again."""
    if work.done:
        deliveries = [one for held in work.done for one in held.deliveries]
        if awaited:
            await core.transport.ack(deliveries)
        for held in work.done:
            core.finish(held)
        if not awaited:
            await core.send_off(deliveries)
    if work.released:
        for held in work.released:
            core.drop(held)
        await core.transport.release([one for held in work.released for one in held.deliveries])


async def extend(core: Core, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Extended:
    """Keep deliveries for so long from now. One that is shown to us again is ours still."""
    lost, current = [], list[Held]()
    for job, token in leases:
        held = core.held.get(job)
        if held is None or held.lease.token != token:
            lost.append(job)
        else:
            current.append(held)
    if not current:
        return Extended(lost=lost)
    asked = [one for held in current for one in held.deliveries]
    gone = await core.transport.extend(asked, by_ms / 1000)
    until = time.monotonic() + by_ms / 1000
    for held in current:
        left = _without(held.deliveries, gone) if gone else held.deliveries
        if not left:
            lost.append(held.lease.job)
            core.drop(held)
            continue
        held.delivery, held.same, held.until = left[0], left[1:], until
    return Extended(lost=lost)


def _without(deliveries: list[Delivery], gone: Sequence[Delivery]) -> list[Delivery]:
    return [one for one in deliveries if not any(one is other for other in gone)]
