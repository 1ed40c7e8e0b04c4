"""Counters and indexes: after any verbs they equal the rows, and no job is in two places."""

from __future__ import annotations

import random

import pytest
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    retry,
    settlement,
    snooze,
)
from tests.engine.redis.ledger import Ledger

from backlane.engine.protocol import Close, Open
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.model.job import Key, Lane

OUTCOMES = [SUCCEEDED, FAILED, RELEASED, STOPPED, CRASHED, retry(0), retry(5), snooze(5)]
CHANGES = [Cancel(), Redrive(), Reprioritise(2), Reprioritise(9), Delete(), Move("other")]
QUEUES = ("mail", "other")


def step(desk: Desk, chance: random.Random) -> None:
    match chance.randrange(8):
        case 0 | 1:
            keys = [None, None, Key("send", f"k{chance.randrange(9)}")]
            jobs = [
                desk.job(
                    chance.choice(QUEUES),
                    priority=chance.randint(0, 9),
                    delay_ms=chance.choice([0, 0, 3_000]),
                    expires_ms=chance.choice([None, 20_000]),
                    resource=chance.choice([None, None, "stripe"]),
                    body=b"x" * chance.randint(0, 50),
                    group=chance.choice([None, "acme", "zenith"]),
                    key=chance.choice(keys),
                )
                for _ in range(chance.randint(1, 6))
            ]
            desk.append(*jobs)
        case 2 | 3:
            lane = chance.choice([None, Lane.SHARED])
            leases = desk.claim(chance.randint(0, 5), *QUEUES, lane=lane).leases
            kept = chance.sample(leases, len(leases) * 2 // 3)
            outcomes = [settlement(lease, chance.choice(OUTCOMES)) for lease in kept]
            desk.run(desk.engine.settle(outcomes))
        case 4 | 5:
            found = desk.found_ids()
            ids = tuple(chance.sample(found, min(len(found), 4)))
            if ids:
                desk.run(desk.engine.amend(Selection(ids=ids), chance.choice(CHANGES)))
        case 6:
            desk.clock.advance(seconds=chance.choice([1, 10, 40, 400]))
            desk.sweep(chance.randint(1, 20), done_jobs=5, failed_jobs=5, least_ms=0)
        case 7:
            change = chance.choice([Open(), Open(for_ms=5_000), Close()])
            desk.run(desk.engine.steer("stripe", change))


@pytest.mark.parametrize("seed", range(8))
def test_counters_equal_rows_after_random_verbs(desk: Desk, ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    desk.add()

    for _ in range(80):
        step(desk, chance)
        ledger.check()

    assert ledger.rows()


@pytest.mark.parametrize("seed", range(3))
def test_when_all_jobs_are_gone_only_settings_are_left(
    desk: Desk, ledger: Ledger, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        step(desk, chance)
    desk.clock.advance(hours=1)

    while desk.sweep().more:
        pass
    desk.run(desk.engine.amend(Selection(), Cancel()))
    desk.clock.advance(days=31)
    while desk.sweep().more:
        pass

    assert ledger.rows() == {}
    assert ledger.leaks() == set()
    ledger.check()


def test_what_is_deleted_leaves_nothing(desk: Desk, ledger: Ledger) -> None:
    desk.add(2_500, key=None, group="acme")
    for number in range(20):
        desk.finished(FAILED, key=Key("send", str(number)))
    while desk.run(desk.engine.amend(Selection(), Delete())).changed:
        pass

    assert ledger.leaks() == set()
    ledger.check()
