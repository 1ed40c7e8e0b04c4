"""Random jobs under limits: every engine does with them what the memory engine does.

Jobs are under limits of all kinds, take turns and wait in fair queues; limits are tuned, places
are taken outside of jobs, clocks are set back. After each verb both engines must have answered
alike and hold the same records, and no limit may be passed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
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

from backlane.engine.limiting import Tuned
from backlane.engine.memory import MemoryEngine
from backlane.engine.plan import Plan
from backlane.engine.protocol import Admission, Claimed, Engine, Tune, Turn, Wanted
from backlane.engine.retention import Retention
from backlane.engine.selection import Cancel, Change, Delete, Move, Redrive, Reprioritise, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import WAITING, Job, JobRecord, Lease, Policy, State
from backlane.model.limit import Limit, Rate, Use
from backlane.model.outcome import Awaiting, Outcome, Settlement
from backlane.model.queue import Depth, QueueRecord

T = TypeVar("T")

STORIES = 40 if os.environ.get("BACKLANE_PROVE") else 6
STEPS = 80
QUEUES = ("mail", "video")
LIMITS = {
    "stripe": Limit(concurrency=2),
    "eu": Limit(concurrency=1, per_group=True),
    "slow": Limit(rate=Rate(3, 1_000, 2)),
    "queue:mail": Limit(concurrency=3),
}
TUNED = [None, Limit(), Limit(concurrency=0), Limit(concurrency=1), Limit(rate=Rate(1, 1_000))]
GROUPS = (None, "ann", "bob")
CHANGES: list[Change] = [
    Cancel(),
    Redrive(),
    Reprioritise(7),
    Reprioritise(2),
    Delete(),
    Move("video"),
]
OUTCOMES = [SUCCEEDED, SUCCEEDED, SUCCEEDED, FAILED, STOPPED, RELEASED, CRASHED_ALONE]
OUTCOMES += [retry(0), retry(3), snooze(0), snooze(3)]
KEEP = Retention(3_600_000, failed_ms=3_600_000)


class Story:
    """The same verbs on two engines; the one in memory says what is right."""

    def __init__(self, engine: Engine, clock: FakeClock, seed: int) -> None:
        self.clock, self.chance = clock, random.Random(seed)
        self.memory, self.engine = MemoryEngine(clock), engine
        self.desk = Desk(engine, clock)
        self.jobs: list[bytes] = []
        self.leases: list[Lease] = []
        self.turns: dict[Use, bytes] = {}  # who had the turn when last looked at
        self.told: list[str] = []

    def both(self, name: str, right: Plan[T], plan: Plan[T], what: object = "") -> T:
        """Carry a verb out on both engines, which must answer alike."""
        self.told.append(f"{name} {briefly(what)}")
        expected, answer = self.memory.run(right), self.engine.run(plan)
        if isinstance(expected, QueueRecord) and isinstance(answer, QueueRecord):
            assert expected.depth == answer.depth, self.told[-5:]
            return answer
        if not is_like(expected, answer):
            pytest.fail(f"{briefly(answer)}, not {briefly(expected)}\nafter {self.told[-4:]}")
        return answer

    def step(self) -> None:
        verbs = [self.append] * 4 + [self.turn] * 8 + [self.amend] * 2 + [self.wait] * 2
        self.chance.choice([*verbs, self.tune, self.acquire, self.sweep])()
        records = self.records(self.engine)
        expected = self.records(self.memory)
        if records != expected:
            pytest.fail(f"{differences(records, expected)}\nafter {self.told[-4:]}")
        assert self.counts(self.engine) == self.counts(self.memory), self.told[-5:]
        self.both("list", self.memory.list_limits(), self.engine.list_limits())
        self.check_turns(records)

    def records(self, engine: Engine) -> list[JobRecord]:
        return engine.run(engine.find(Selection(), 1_000)).records

    def counts(self, engine: Engine) -> list[tuple[str, Depth, bool, int | None]]:
        queues = engine.run(engine.list_queues())
        return [(it.name, it.depth, it.is_fair, it.oldest_ready_ms) for it in queues]

    def check_turns(self, records: list[JobRecord]) -> None:
        running = [it for it in records if it.state is State.RUNNING]
        held = Counter(use for record in running for use in record.uses if use.turn)
        assert not held or max(held.values()) == 1, self.told[-5:]

    def some(self, most: int) -> list[bytes]:
        recent = self.jobs[-30:]
        return self.chance.sample(recent, min(len(recent), self.chance.randint(0, most)))

    # -- verbs --

    def append(self) -> None:
        jobs = [self.job() for _ in range(self.chance.randint(1, 6))]
        names = {use.limit for job in jobs for use in job.uses if not use.turn}
        names |= {f"queue:{job.queue}" for job in jobs}
        limits = {name: LIMITS[name] for name in sorted(names & LIMITS.keys())}
        fair = frozenset({"video"})
        admission = Admission(limits=limits, fair=fair)
        self.both(
            "append", self.memory.append(jobs, admission), self.engine.append(jobs, admission), jobs
        )
        self.jobs += [job.id for job in jobs]

    def job(self) -> Job:
        chance, group, queue = self.chance, self.chance.choice(GROUPS), self.chance.choice(QUEUES)
        uses = [Use("stripe"), Use("eu", group or ""), Use("slow")]
        uses = chance.sample(uses, chance.choice([0, 0, 1, 1, 2]))
        if group and chance.random() < 0.5:
            uses.insert(chance.randint(0, len(uses)), Use(f"queue:{queue}", group, turn=True))
        return Job(
            id=self.desk.new_id(),
            queue=queue,
            task="send",
            body=b"x",
            priority=chance.choice([5, 5, 2, 9]),
            delay_ms=chance.choice([0, 0, 0, 2_000]),
            policy=chance.choice([Policy(), Policy(attempts=2)]),
            group=group,
            uses=tuple(uses),
        )

    def turn(self) -> None:
        chance = self.chance
        # One at a time: the order within a settle is no matter of the contract.
        settled = chance.sample(self.leases, min(len(self.leases), chance.choice([0, 1, 1, 1])))
        self.leases = [lease for lease in self.leases if lease not in settled]
        settlements = [
            Settlement(it.job, it.token, self.outcome(it), chance.randint(0, 300)) for it in settled
        ]
        wanted = [
            Wanted(
                owner="ann",
                number=chance.randint(0, 4),
                lease_ms=20_000,
                queues=chance.choice([QUEUES, QUEUES, ("mail",), ("video",)]),
                lane=chance.choice([None, None, 0]),
            )
            for _ in range(chance.choice([1, 1, 2]))
        ]
        turn = self.both(
            "turn",
            self.memory.turn(settlements, wanted),
            self.engine.turn(settlements, wanted),
            (settlements, wanted),
        )
        self.leases += [lease for claimed in turn.claimed for lease in claimed.leases]

    def outcome(self, lease: Lease) -> Outcome:
        awaiting = Awaiting(tuple(job for job in self.some(2) if job < lease.job))
        return self.chance.choice([*OUTCOMES, awaiting])

    def amend(self) -> None:
        selection = Selection(ids=tuple(self.some(4)) or (b"n" * 16,))
        change = self.chance.choice(CHANGES)
        self.both(
            "amend",
            self.memory.amend(selection, change),
            self.engine.amend(selection, change),
            (selection.ids, change),
        )

    def tune(self) -> None:
        if self.chance.random() < 0.3:
            paused = Tune(paused=self.chance.random() < 0.4)
            queue = self.chance.choice(QUEUES)
            self.both(
                "pause",
                self.memory.tune(queue, paused),
                self.engine.tune(queue, paused),
                (queue, paused),
            )
            return
        name = self.chance.choice([*LIMITS, "queue:video"])
        change = Tuned(self.chance.choice(TUNED))
        self.both(
            "regulate",
            self.memory.regulate(name, change),
            self.engine.regulate(name, change),
            (name, change),
        )

    def acquire(self) -> None:
        use = self.chance.choice([Use("stripe"), Use("slow"), Use("queue:mail"), Use("eu", "ann")])
        holder = self.chance.choice([b"a", b"b"])
        if self.chance.random() < 0.5:
            self.both(
                "release",
                self.memory.release(use, holder),
                self.engine.release(use, holder),
                (use, holder),
            )
        else:
            self.both(
                "acquire",
                self.memory.acquire(use, None, holder, 5_000),
                self.engine.acquire(use, None, holder, 5_000),
                (use, holder),
            )

    def sweep(self) -> None:
        self.both("sweep", self.memory.sweep(10_000, KEEP), self.engine.sweep(10_000, KEEP))

    def wait(self) -> None:
        passed = self.chance.choice([1, 100, 334, 1_000, 5_000, 21_000])
        self.keep()
        self.clock.advance(milliseconds=passed)
        self.told.append(f"waited {passed}")
        if self.chance.random() < 0.1:
            self.clock.jump(seconds=-30)
            self.told.append("jumped")

    def keep(self) -> None:
        """But one: engines may let all that lapse at once leave before any comes back."""
        held = [(it.job, it.token) for it in self.leases[1:]]
        self.both("extend", self.memory.extend(held, 30_000), self.engine.extend(held, 30_000))

    def end(self) -> None:
        """Let all that can run do so: nothing is blocked for ever."""
        for queue in QUEUES:
            self.both(
                "open",
                self.memory.tune(queue, Tune(paused=False)),
                self.engine.tune(queue, Tune(paused=False)),
            )
        for name in (*LIMITS, "queue:video"):
            self.both(
                "reset",
                self.memory.regulate(name, Tuned(None)),
                self.engine.regulate(name, Tuned(None)),
            )
        for _ in range(400):
            self.keep()
            self.clock.advance(seconds=1)
            wanted = [Wanted(owner="ann", number=50, lease_ms=20_000, queues=QUEUES, lane=None)]
            done = [Settlement(it.job, it.token, SUCCEEDED) for it in self.leases[:1]]
            turn = self.both("end", self.memory.turn(done, wanted), self.engine.turn(done, wanted))
            self.leases = [*self.leases[1:], *turn.claimed[0].leases]
        states = {record.state for record in self.records(self.engine)}
        assert not states & set(WAITING), states


def briefly(told: object) -> str:
    """What a verb was given, for the message of a test that failed."""
    match told:
        case Job():
            uses = [(use.limit, use.part, "turn" if use.turn else "") for use in told.uses]
            rest = (told.queue, told.priority, told.delay_ms, told.expires_ms, told.group)
            return f"{told.id[-1]}:{rest}{uses}"
        case Settlement():
            return f"{told.job[-1]} {briefly(told.outcome)} {told.ran_ms} ms"
        case Awaiting():
            return f"waits for {[job[-1] for job in told.jobs]}"
        case Wanted():
            return f"{told.number} of {told.queues}, lane {told.lane}"
        case Turn():
            return f"{told.settled.lost} {briefly(told.claimed)}"
        case Claimed():
            return f"{[(it.job[-1], it.token) for it in told.leases]}, due {told.next_due_ms}"
        case bytes():
            return str(told[-1])
        case list() | tuple():
            return f"[{'; '.join(briefly(one) for one in told)}]"
        case _:
            return str(told)[:60]


def differences(answer: list[JobRecord], right: list[JobRecord]) -> list[str]:
    """What is told otherwise, job by job."""
    if [it.id for it in answer] != [it.id for it in right]:
        return [f"jobs {[it.id[-1] for it in answer]}, not {[it.id[-1] for it in right]}"]
    return [
        f"job {one.id[-1]} (uses {one.uses}): {field} {getattr(one, field)!r}, not "
        f"{getattr(two, field)!r}"
        for one, two in zip(answer, right, strict=True)
        for field in one.__struct_fields__
        if getattr(one, field) != getattr(two, field)
    ]


@pytest.fixture(params=engines.SHARED, ids=lambda maker: maker.name)
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    clock = FakeClock()
    with request.param.opened(tmp_path, clock) as engine:
        yield Story(engine, clock, request.getfixturevalue("seed"))


@pytest.mark.parametrize("seed", range(STORIES))
def test_limits_come_to_the_same_on_every_engine(story: Story, seed: int) -> None:
    for _ in range(STEPS):
        story.step()

    story.end()
