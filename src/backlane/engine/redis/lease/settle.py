"""Settle and turn: outcomes as scripts read them, and what they say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from backlane.engine.protocol import Settled, Turn, Wanted
from backlane.engine.redis.lease.claim import CLAIM, claimed, packed
from backlane.engine.redis.limits.resource import feed
from backlane.engine.redis.record.sheet import packed_edges, raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.model.job import Edge, When
from backlane.model.outcome import (
    Awaiting,
    Cancelled,
    Crashed,
    Failed,
    Outcome,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)

SETTLE = Script("settle", "model", "moves", "bells", "settling")
TURN = Script("turn", "model", "moves", "bells", "settling", "rooms", "waking", "taking")


async def settle(tx: RedisTx, settlements: Sequence[Settlement]) -> Settled:
    """See `Verbs.settle`."""
    if not settlements:
        return Settled()
    _, lost, buried, resources = await tx.call(SETTLE, [_packed(it) for it in settlements])
    return await _settled(tx, lost, buried, resources)


async def turn(tx: RedisTx, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> Turn:
    """See `Verbs.turn`. One script, but where settled jobs depend on resources: their
    breakers hear of it before more is claimed."""
    claims = [packed(it) for it in wanted]
    if not settlements:
        wall, answers = await tx.call(CLAIM, claims)
        return Turn(Settled(), [claimed(wall, it) for it in answers])
    wall, lost, buried, resources, answers = await tx.call(
        TURN, [_packed(it) for it in settlements], claims
    )
    settled = await _settled(tx, lost, buried, resources)
    if answers is None:
        wall, answers = await tx.call(CLAIM, claims)
    return Turn(settled, [claimed(wall, it) for it in answers])


async def _settled(
    tx: RedisTx, lost: list[bytes], buried: list[bytes], resources: list[int]
) -> Settled:
    return Settled(lost, buried, await feed(tx, resources) if resources else [])


def _packed(one: Settlement) -> tuple[Any, ...]:
    outcome = one.outcome
    if type(outcome) is Succeeded and outcome.result is None:  # nearly all
        return raw(one.job), one.token, 1, one.ran_ms
    return raw(one.job), one.token, _NUMBERS[type(outcome)], one.ran_ms, *_parts(outcome)


_NUMBERS: dict[type, int] = {
    Succeeded: 1,
    RetryAfter: 2,
    Snoozed: 3,
    Cancelled: 4,
    Failed: 5,
    Released: 6,
    Crashed: 7,
    Awaiting: 8,
}


def _parts(outcome: Outcome) -> tuple[Any, ...]:
    match outcome:
        case Succeeded(result=result):
            return () if result is None else (raw(result),)
        case RetryAfter(delay_ms=delay_ms, error=error):
            return delay_ms, error
        case Snoozed(delay_ms=delay_ms, parked=parked):
            return delay_ms, parked
        case Cancelled(error=error):
            return (error,)
        case Failed(reason=reason, error=error):
            return reason.value, error
        case Released():
            return ()
        case Crashed(alone=alone, error=error):
            return alone, error
        case Awaiting(jobs=jobs):
            return (raw(packed_edges(Edge(job, When.ENDED) for job in jobs)),)
        case _:
            assert_never(outcome)
