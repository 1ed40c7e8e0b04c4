"""Offer and withdraw: which ready jobs a transport is to carry next."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.offering import Carried, Offer, Offered
from backlane.engine.redis.lease.claim import record
from backlane.engine.redis.record.sheet import raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx

OFFER = Script("offer", "model", "moves", "bells", "rooms", "waking", "taking")
WITHDRAW = Script("withdraw", "model")


async def offer(tx: RedisTx, offers: Sequence[Offer], for_ms: int) -> Offered:
    """See `Offering.offer`."""
    asked = [
        (one.queue, int(one.lane), one.window, False if one.void_ms is None else one.void_ms)
        for one in offers
    ]
    wall, told, full, doubtful, next_due_ms, buried = await tx.call(OFFER, asked, for_ms)
    jobs = []
    for i in range(0, len(told), 3):
        one, group = offers[told[i] - 1], told[i + 2]
        named = None if group is None else group.decode()
        jobs.append(Carried(told[i + 1], one.queue, one.lane, named))
    return Offered(
        jobs,
        wall,
        [(offers[nth - 1].queue, offers[nth - 1].lane) for nth in full],
        [(offers[nth - 1].queue, offers[nth - 1].lane) for nth in doubtful],
        next_due_ms,
        [record(it) for it in buried],
    )


async def withdraw(tx: RedisTx, jobs: Sequence[bytes]) -> None:
    """See `Offering.withdraw`."""
    if jobs:
        await tx.call(WITHDRAW, [raw(job) for job in jobs])
