"""A claim costs the same however many jobs are blocked, limited or scheduled.

What is counted are the steps of SQLite's own machine, which no other load changes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement

from backlane.engine.protocol import Wanted
from backlane.model.job import Job
from backlane.model.limit import Limit, Rate, Use

STRIPE = Use("stripe")
GROUPS = 50
EVERY = 20  # steps between two counts

LIMITS = {
    "stripe": Limit(concurrency=1),
    "slow": Limit(rate=Rate(1, 3_600_000)),
    "parts": Limit(concurrency=1, per_group=True),
}
LATER_MS = 24 * 3_600_000

# What may wait in masses, by number.
KINDS: dict[str, Callable[[Desk, int], Job]] = {
    "a full limit": lambda desk, _: desk.job(uses=(STRIPE,)),
    "a token": lambda desk, _: desk.job(uses=(Use("slow"),)),
    "full parts": lambda desk, n: desk.job(uses=(Use("parts", f"g{n % GROUPS}"),)),
    "turns": lambda desk, n: desk.job(uses=(Use("turns", f"g{n % GROUPS}", turn=True),)),
    "a time": lambda desk, _: desk.job(delay_ms=LATER_MS),
    "a time, then a limit": lambda desk, _: desk.job(delay_ms=LATER_MS, uses=(STRIPE,)),
}


def cost(desk: Desk) -> int:
    """The steps of a turn that settles one plain job, and takes the next."""
    desk.add(3, task="plain")
    first = desk.claim(1).leases
    connection = desk.engine._process.handles().store._connection
    counted = 0

    def count() -> bool:
        nonlocal counted
        counted += 1
        return False

    connection.set_progress_handler(count, EVERY)
    wanted = Wanted(owner="ann", number=1, lease_ms=30_000, queues=("mail",))
    turn = desk.run(desk.engine.turn([settlement(first[0], SUCCEEDED)], [wanted]))
    connection.set_progress_handler(None)

    assert [lease.task for lease in turn.claimed[0].leases] == ["plain"]
    desk.settle(turn.claimed[0].leases[0], SUCCEEDED)
    while leases := desk.claim(100).leases:
        for lease in leases:
            desk.settle(lease, SUCCEEDED)
    return counted


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_touches_none_of_those_that_wait(desk: Desk, kind: str):
    desk.limits |= LIMITS
    make = KINDS[kind]
    desk.append(*[make(desk, n) for n in range(GROUPS)])
    held = desk.claim(1_000, seconds=86_400)  # what has room: it goes on running
    desk.append(*[make(desk, n) for n in range(GROUPS)])
    desk.claim(1_000)
    few = cost(desk)

    for _ in range(4):
        desk.append(*[make(desk, n) for n in range(1_000)])
    many = cost(desk)

    waiting = desk.depth().blocked + desk.depth().scheduled
    assert waiting >= 4_000
    assert len(held.leases) <= GROUPS
    assert many <= few * 1.1 + 5
