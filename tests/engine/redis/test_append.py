"""Two scripts append: the usual job's and any job's. Both answer what memory answers."""

from __future__ import annotations

import random

import pytest
from tests.engine.contract.desk import Desk, settlement
from tests.engine.redis.ledger import Ledger

from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Admission, Tune
from backlane.model.job import Job
from backlane.model.outcome import Succeeded
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds


def admission(chance: random.Random) -> Admission:
    bounds = Bounds(
        max_jobs=chance.choice([15, 40, 2**62]),
        max_bytes=chance.choice([300, 2**62]),
        max_wait_ms=chance.choice([None, 400, 5_000]),
    )
    speeds = tuple(chance.choice([0.0, 0.3, 7.0, 1e-320]) for _ in range(10))
    pace = Pace(speeds, slots=chance.choice([0, 1, 5]), service_ms=12.5)
    return Admission(
        declared={"mail": bounds} if chance.random() < 0.7 else {},
        paces={"mail": pace} if chance.random() < 0.6 else {},
    )


def batch(desk: Desk, chance: random.Random, seen: list[Job]) -> list[Job]:
    usual = {"priority": chance.choice([5, 5, 9, 0]), "body": b"x" * chance.choice([1, 20])}
    jobs = []
    for _ in range(chance.choice([1, 1, 1, 3, 7])):
        odd = {"delay_ms": 50, "group": "g", "expires_ms": 700, "parent": bytes(16)}
        name = chance.choice(list(odd))
        more = {name: odd[name]} if chance.random() < 0.1 else {}
        jobs.append(desk.job(**{**usual, **more}))
    if seen and chance.random() < 0.1:
        jobs.append(chance.choice(seen))
    seen += jobs
    return jobs


@pytest.mark.parametrize("seed", range(8))
def test_both_ways_of_appending_answer_as_memory_does(desk: Desk, ledger: Ledger, seed: int):
    chance = random.Random(seed)
    memory = Desk(MemoryEngine(desk.clock), desk.clock)
    seen: list[Job] = []
    for _ in range(60):
        jobs, judged = batch(desk, chance, seen), admission(chance)
        answers = [one.run(one.engine.append(jobs, judged)) for one in (desk, memory)]
        assert answers[0] == answers[1]
        if chance.random() < 0.4:
            claims = [
                one.claim(chance_number)
                for chance_number in [chance.choice([1, 9])]
                for one in (desk, memory)
            ]
            assert claims[0] == claims[1]
            for one in (desk, memory):
                one.run(one.engine.settle([settlement(it, Succeeded()) for it in claims[0].leases]))
        if chance.random() < 0.1:
            change = Tune(
                max_jobs=chance.choice([None, 30]), max_wait_ms=chance.choice([None, 0, 900])
            )
            for one in (desk, memory):
                one.run(one.engine.tune("mail", change))
        desk.clock.advance(milliseconds=chance.choice([0, 10, 300]))

    assert desk.run(desk.engine.list_queues()) == memory.run(memory.engine.list_queues())
    ours, theirs = (one.run(one.engine.measure(["mail"])).queues for one in (desk, memory))
    assert ours == theirs
    assert ledger.counters() == ledger.counters_by_rows()
    assert ledger.order() == ledger.order_by_rows()
