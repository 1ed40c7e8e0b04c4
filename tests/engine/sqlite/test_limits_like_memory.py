"""Random verbs on jobs under limits, turns and in fair queues: answered as memory does."""

from __future__ import annotations

import random

import pytest
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    RELEASED,
    SUCCEEDED,
    Desk,
    retry,
    snooze,
)

from backlane.engine.limiting import Declared, Tuned
from backlane.engine.memory import MemoryEngine
from backlane.engine.protocol import Admission, Wanted
from backlane.engine.retention import Retention
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock
from backlane.model.job import Lease
from backlane.model.limit import Limit, Rate, Use
from backlane.model.outcome import Settlement

QUEUES = ("mail", "sms")
TURN = Use("turns", "a", turn=True)
USES = [
    (),
    (Use("stripe"),),
    (Use("eu"), Use("stripe")),
    (Use("fast"),),
    (Use("both"), TURN),
    (TURN,),
    (Use("turns", "b", turn=True), Use("stripe")),
    (Use("parts", "x"),),
    (Use("parts", "y"), Use("fast")),
]
LIMITS = {
    "stripe": Limit(concurrency=2),
    "eu": Limit(concurrency=1),
    "fast": Limit(rate=Rate(2, 1_000)),
    "both": Limit(concurrency=2, rate=Rate(3, 2_000, 2)),
    "parts": Limit(concurrency=1, per_group=True),
}
OUTCOMES = [SUCCEEDED, SUCCEEDED, FAILED, RELEASED, CRASHED, retry(0), retry(2), snooze(1)]
CHANGES = [Cancel(), Redrive(), Reprioritise(8), Delete(), Move("sms")]


class Pair:
    """The same verbs on two engines."""

    def __init__(self, sqlite: SqliteEngine, clock: FakeClock, chance: random.Random) -> None:
        self._engines = (MemoryEngine(clock), sqlite)
        self._clock = clock
        self._chance = chance
        self._desk = Desk(sqlite, clock)
        self._jobs: list[bytes] = []
        self._leases: list[Lease] = []
        self._fair = frozenset(chance.choice([(), ("mail",), QUEUES]))

    def both(self, make: object) -> object:
        """Carry out what `make` plans; the answers have to be alike."""
        answers = [engine.run(make(engine)) for engine in self._engines]  # type: ignore[operator]
        assert answers[1] == answers[0]
        return answers[1]

    def step(self) -> None:
        chance = self._chance
        verbs = (self.append, self.append, self.turn, self.turn, self.turn, self.amend, self.rest)
        chance.choice(verbs)()
        self.check()

    def append(self) -> None:
        chance = self._chance
        jobs = [
            self._desk.job(
                chance.choice(QUEUES),
                uses=chance.choice(USES),
                priority=chance.choice([5, 5, 5, 8]),
                group=chance.choice([None, "ann", "bob"]),
                delay_ms=chance.choice([0, 0, 0, 1_500]),
                expires_ms=chance.choice([None, None, 9_000]),
            )
            for _ in range(chance.randint(1, 4))
        ]
        admission = Admission(limits=LIMITS, fair=self._fair)
        self.both(lambda engine: engine.append(jobs, admission))
        self._jobs += [job.id for job in jobs]

    def turn(self) -> None:
        chance = self._chance
        ended = [lease for lease in self._leases if chance.random() < 0.6]
        self._leases = [lease for lease in self._leases if lease not in ended]
        outcomes = [
            Settlement(lease.job, lease.token, chance.choice(OUTCOMES), chance.randint(0, 40))
            for lease in ended
        ]
        # One by one: of several that end at once SQLite lets all leave before any comes back.
        for outcome in outcomes:
            self.both(lambda engine, one=outcome: engine.settle([one]))
        queues = chance.choice([QUEUES, QUEUES, ("mail",), ("sms",)])
        wanted = Wanted(owner="ann", number=chance.randint(0, 4), lease_ms=8_000, queues=queues)
        claimed = [engine.run(engine.claim(wanted)) for engine in self._engines]
        assert claimed[1].leases == claimed[0].leases
        self._leases += claimed[1].leases

    def amend(self) -> None:
        chance = self._chance
        if self._jobs:
            picked = Selection(ids=tuple(chance.sample(self._jobs, min(2, len(self._jobs)))))
            change = chance.choice(CHANGES)
            self.both(lambda engine: engine.amend(picked, change))

    def rest(self) -> None:
        chance = self._chance
        use = Use(chance.choice(["stripe", "fast", "queue:mail"]))
        match chance.randrange(5):
            case 0:
                self._clock.advance(milliseconds=chance.choice([300, 1_000, 5_000, 20_000]))
            case 1:
                limit = Limit(concurrency=chance.randint(1, 3), rate=Rate(5, 1_000, 3))
                self._regulate("queue:mail", limit)
            case 2:
                self._regulate("stripe", Limit(concurrency=chance.randint(0, 3)))
            case 3:
                holder = chance.choice([b"me", b"you"])
                self.both(lambda engine: engine.acquire(use, None, holder, 4_000))
            case _:
                self.both(lambda engine: engine.release(use, b"me"))
                self.both(lambda engine: engine.sweep(50, Retention()))

    def _regulate(self, name: str, limit: Limit) -> None:
        change = self._chance.choice([Declared(limit), Tuned(limit), Tuned(None)])
        self.both(lambda engine: engine.regulate(name, change))

    def check(self) -> None:
        """Both hold the same jobs, in the same places."""
        found = [engine.run(engine.find(Selection(), 1_000)).records for engine in self._engines]
        for stored, told in zip(found[1], found[0], strict=True):
            assert stored == told
        self.both(lambda engine: engine.list_limits())


@pytest.mark.parametrize("seed", range(12))
def test_random_verbs_are_answered_as_memory_does(
    engine: SqliteEngine, clock: FakeClock, seed: int
):
    pair = Pair(engine, clock, random.Random(seed))

    for _ in range(80):
        pair.step()
