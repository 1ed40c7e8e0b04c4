"""Random graphs of jobs: every engine does with them what the memory engine does.

Jobs wait for others, hold keys by any rule, have tags, and are kept for times of their own;
they end in all ways, are amended, pruned and begun anew. After each verb both engines must
have answered alike and hold the same records.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.engine.alike import is_like
from tests.engine.contract import engines
from tests.engine.contract.desk import (
    CRASHED_ALONE,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    retry,
    snooze,
)

from backlane.engine.memory import MemoryEngine
from backlane.engine.plan import Plan
from backlane.engine.protocol import Admission, Engine, Wanted
from backlane.engine.retention import Retention
from backlane.engine.selection import Cancel, Change, Delete, Move, Redrive, Reprioritise, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import (
    WAITING,
    Edge,
    Job,
    JobRecord,
    Key,
    KeyRule,
    Lease,
    Note,
    Policy,
    State,
    Step,
    When,
)
from backlane.model.outcome import Awaiting, Outcome, Settlement, Succeeded
from backlane.model.queue import Depth

T = TypeVar("T")

STORIES = 40 if os.environ.get("BACKLANE_PROVE") else 6
STEPS = 60
QUEUES = ("mail", "video")
HELD_FOR = [("started", None), ("finished", None), ("succeeded", None), ("finished", 20_000)]
MET_BY = [("existing", None), ("raise", None), ("replace", None), ("debounce", 15_000)]
RULES = [
    KeyRule(until, window_ms, conflict, most_ms)
    for until, window_ms in HELD_FOR
    for conflict, most_ms in MET_BY
]
POLICIES = [Policy(), Policy(attempts=2), Policy(keep_ms=5_000), Policy(keep_ms=-1)]
POLICIES += [Policy(keeps_latest=True)] * 2
CHANGES: list[Change] = [Cancel(), Redrive(), Redrive(), Reprioritise(7), Delete(), Move("video")]
RESULTS = [SUCCEEDED, Succeeded(b"one"), Succeeded(b"two")]


class Story:
    """The same verbs on two engines; the one in memory says what is right."""

    def __init__(self, engine: Engine, clock: FakeClock, seed: int) -> None:
        self.clock, self.chance = clock, random.Random(seed)
        self.memory, self.engine = MemoryEngine(clock), engine
        self.desk = Desk(engine, clock)
        self.jobs: list[bytes] = []
        self.leases: list[Lease] = []
        self.told: list[str] = []

    def both(self, name: str, right: Plan[T], plan: Plan[T]) -> T:
        """Carry a verb out on both engines, which must answer alike."""
        expected, answer = self.memory.run(right), self.engine.run(plan)
        assert is_like(expected, answer), (name, expected, answer, self.told[-3:])
        self.told.append(f"{name}: {answer}")
        return answer

    def step(self) -> None:
        verbs = [self.append] * 4 + [self.turn] * 6 + [self.amend] * 2
        self.chance.choice([*verbs, self.note, self.sweep, self.wait])()
        assert self.records(self.engine) == self.records(self.memory), self.told[-3:]
        assert self.counts(self.engine) == self.counts(self.memory), self.told[-3:]

    def records(self, engine: Engine) -> list[JobRecord]:
        found: list[JobRecord] = []
        cursor = None
        while True:
            page = engine.run(engine.find(Selection(), 100, cursor))
            ids = tuple(record.id for record in page.records)
            if ids:
                found += engine.run(engine.find(Selection(ids=ids), 100)).records
            cursor = page.cursor
            if cursor is None:
                return found

    def counts(self, engine: Engine) -> list[tuple[str, Depth, int, int]]:
        queues = engine.run(engine.list_queues())
        return [(it.name, it.depth, it.succeeded, it.cancelled) for it in queues]

    def some(self, most: int) -> list[bytes]:
        recent = self.jobs[-30:]
        return self.chance.sample(recent, min(len(recent), self.chance.randint(0, most)))

    # -- verbs --

    def append(self) -> None:
        number = self.chance.randint(1, 6)
        ids = [self.desk.new_id() for _ in range(number)]
        jobs = [self.job(ids, at) for at in range(number)]
        self.chance.shuffle(jobs)
        self.both(
            "append",
            self.memory.append(jobs, Admission()),
            self.engine.append(jobs, Admission()),
        )
        self.jobs += ids

    def job(self, ids: list[bytes], at: int) -> Job:
        chance = self.chance
        others = [*chance.sample(ids[:at], min(at, chance.randint(0, 2))), *self.some(2)]
        after = tuple(Edge(job, chance.choice([*When])) for job in others)
        key = chance.choice([None, None, None, Key("send", "a"), Key("send", "b")])
        return Job(
            id=ids[at],
            queue=chance.choice(QUEUES),
            task=chance.choice(["send", "index"]),
            body=b"x" * chance.randint(0, 9),
            priority=chance.choice([5, 5, 2, 9]),
            delay_ms=chance.choice([0, 0, 0, 8_000]),
            expires_ms=chance.choice([None, None, None, 30_000]),
            policy=chance.choice(POLICIES),
            key=key,
            rule=chance.choice(RULES) if key else KeyRule(),
            group=chance.choice([None, None, "acme"]),
            after=after if chance.random() < 0.6 else (),
            workflow=chance.choice([None, b"w" * 16]),
            tags=chance.choice([(), (), ("red",), ("red", "blue")]),
        )

    def turn(self) -> None:
        chance = self.chance
        settled = [lease for lease in self.leases if chance.random() < 0.7]
        self.leases = [lease for lease in self.leases if lease not in settled]
        settlements = [Settlement(it.job, it.token, self.outcome(it), 7) for it in settled]
        wanted = [
            Wanted(
                owner="ann", number=chance.randint(0, 4), lease_ms=20_000, queues=QUEUES, lane=None
            )
        ]
        turn = self.both(
            "turn",
            self.memory.turn(settlements, wanted),
            self.engine.turn(settlements, wanted),
        )
        self.leases += turn.claimed[0].leases

    def outcome(self, lease: Lease) -> Outcome:
        # Of older ones alone, so that no two wait for each other.
        awaiting = Awaiting(tuple(job for job in self.some(4) if job < lease.job))
        outcomes: list[Outcome] = [*RESULTS, *RESULTS, FAILED, STOPPED, RELEASED, CRASHED_ALONE]
        outcomes += [retry(0), snooze(9), awaiting, awaiting]
        return self.chance.choice(outcomes)

    def amend(self) -> None:
        selection = Selection(ids=tuple(self.some(4)) or (b"n" * 16,))
        change = self.chance.choice(CHANGES)
        self.both(
            "amend", self.memory.amend(selection, change), self.engine.amend(selection, change)
        )

    def note(self) -> None:
        step = Step(self.chance.choice("abc"), b"%d" % self.chance.randint(0, 9))
        notes = [Note(it.job, it.token, steps=(step,)) for it in self.leases[:2]]
        self.both("note", self.memory.note(notes), self.engine.note(notes))
        for job in self.some(3):
            self.both("recall", self.memory.recall(job), self.engine.recall(job))
        self.both("latest", self.memory.latest("send"), self.engine.latest("send"))

    def sweep(self) -> None:
        most = Retention(self.chance.choice([10_000, 3_600_000]), failed_ms=20_000, least_ms=1_000)
        self.both("sweep", self.memory.sweep(10_000, most), self.engine.sweep(10_000, most))

    def wait(self) -> None:
        self.clock.advance(seconds=self.chance.choice([1, 5, 10, 25]))

    def end(self) -> None:
        """Let all that can run do so: nothing is blocked for ever."""
        for _ in range(200):
            self.clock.advance(seconds=10)
            wanted = [Wanted(owner="ann", number=50, lease_ms=20_000, queues=QUEUES, lane=None)]
            done = [Settlement(it.job, it.token, SUCCEEDED) for it in self.leases]
            turn = self.both("end", self.memory.turn(done, wanted), self.engine.turn(done, wanted))
            self.leases = turn.claimed[0].leases
        states = {record.state for record in self.records(self.engine)}
        assert not states & set(WAITING), states


@pytest.fixture(params=engines.SHARED, ids=lambda maker: maker.name)
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    clock = FakeClock()
    with request.param.opened(tmp_path, clock) as engine:
        yield Story(engine, clock, request.getfixturevalue("seed"))


@pytest.mark.parametrize("seed", range(STORIES))
def test_a_graph_comes_to_the_same_on_every_engine(story: Story, seed: int) -> None:
    for _ in range(STEPS):
        story.step()

    story.end()

    assert {record.state for record in story.records(story.engine)} <= set(State) - set(WAITING)
