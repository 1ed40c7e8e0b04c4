"""One group sends 99 % of the jobs of a fair queue: the others hardly notice (simulated).

Time passes by the clock alone, and jobs run for as long as they were drawn to, so that a run
of the same seed is always the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk

from backlane.engine.memory import MemoryEngine
from backlane.model.clock import FakeClock
from backlane.model.job import Lease
from backlane.model.queue import Bounds

SLOTS = 4
RUN_MS = (20, 60)  # of a job, drawn evenly
QUIET = 99  # groups that send little: together they need half of the slots
QUIET_A_SECOND = 50
SECONDS = 10
ROOMY = {"mail": Bounds(max_jobs=1_000_000)}


def waits_ms(seed: int, *, fair: bool, noisy_a_ms: int) -> list[int]:
    """How long the jobs of quiet groups waited, in order."""
    clock, chance, noise = FakeClock(), random.Random(seed), random.Random(seed + 1)
    desk = Desk(MemoryEngine(clock), clock)
    desk.fair = {"mail"} if fair else set()
    running: list[tuple[int, Lease]] = []
    waits: list[int] = []
    for _ in range(SECONDS * 1_000):
        now = clock.wall_ms()
        for until, lease in [it for it in running if it[0] <= now]:
            started = desk.record(lease.job).started_ms or now
            desk.end(lease.job, outcome=SUCCEEDED, ran_ms=now - started)
            running.remove((until, lease))
        jobs = [desk.job(group="noisy") for _ in range(noisy_a_ms)]
        if chance.random() < QUIET_A_SECOND / 1_000:
            jobs.append(desk.job(group=f"quiet-{chance.randrange(QUIET)}"))
        if jobs:
            desk.append(*jobs, declared=ROOMY)
        if len(running) < SLOTS:
            for lease in desk.claim(SLOTS - len(running)).leases:
                running.append((now + noise.randint(*RUN_MS), lease))
                if lease.group != "noisy":
                    waits.append(now - lease.enqueued_ms)
        clock.advance(milliseconds=1)
    return sorted(waits)


def p95(waits: Sequence[int]) -> int:
    return waits[len(waits) * 95 // 100]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_quiet_groups_wait_hardly_longer_beside_a_noisy_one(seed: int):
    alone = waits_ms(seed, fair=True, noisy_a_ms=0)
    beside = waits_ms(seed, fair=True, noisy_a_ms=5)

    assert len(beside) > 0.95 * len(alone)  # all but the last of them have run
    # All slots are taken where they were free: until the next one is, somebody waits.
    assert p95(beside) <= 2 * p95(alone) + RUN_MS[1] // SLOTS


def test_in_a_queue_that_is_not_fair_they_would_not_run_at_all():
    beside = waits_ms(1, fair=False, noisy_a_ms=5)

    assert p95(beside) > 1_000
