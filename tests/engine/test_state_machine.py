"""Random verbs, the same on two engines: the one in memory says what is right.

Two owners and a few jobs on two small queues; the clock is advanced, and the wall
clock set back and forth; owners die with their leases, and come back with old ones.
In some stories jobs hang together (edges, rules of keys, tags, workflows), in some they
are under limits, in some both. After every step both engines must have answered alike and
hold the same rows. At the end of each story everything must still be able to finish.

`BACKLANE_PROVE=1` tells more and longer stories.
"""

# long: one story can only be told by one machine, whose rules share what happened so far

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.engine.alike import is_like
from tests.engine.contract import engines
from tests.engine.contract.desk import SUCCEEDED, retry
from tests.engine.drafts import (
    ACQUIRED,
    CHANGES,
    LIMITS,
    OF_SCHEDULES,
    OUTCOMES,
    QUEUES,
    TASKS,
    TUNED,
    drafts_of,
    queues,
    selections,
    uses_of,
)

from backlane.engine.limiting import Tuned
from backlane.engine.plan import Plan
from backlane.engine.protocol import (
    Admission,
    Claimed,
    Close,
    Declare,
    Engine,
    Open,
    Presence,
    Tune,
    Turn,
    Wanted,
)
from backlane.engine.retention import Retention
from backlane.engine.scheduling import Put, ScheduleRecord, Tick
from backlane.engine.selection import Cancel, Redrive, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import (
    WAITING,
    Edge,
    Job,
    JobRecord,
    Lane,
    Lease,
    Note,
    Progress,
    Receipt,
    Refusal,
    State,
    Step,
)
from backlane.model.limit import Use
from backlane.model.outcome import Awaiting, Outcome, Released, Settlement
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, Depth, Kind, QueueRecord, headroom

T = TypeVar("T")

IS_PROOF = bool(os.environ.get("BACKLANE_PROVE"))
STORIES, STEPS = (2_000, 60) if IS_PROOF else (80, 30)
STORIES_OF_SERVERS = 400 if IS_PROOF else 25  # each verb is a round trip there

OWNERS = ("ann", "bob")
ONE_PLACE = {"queue": "mail", "group": "x", "uses": ("eu",), "delay_ms": 0}
BOUNDS = {
    "mail": Bounds(max_jobs=6, max_bytes=14, max_wait_ms=4_000),
    "video": Bounds(max_jobs=3, group_share=0.7),
}
KINDS = ("plain", "plain", "tied", "limited", "fair", "tied and fair")  # of stories
WIDE = {
    "mail": Bounds(max_jobs=10, max_bytes=30, max_wait_ms=6_000),
    "video": Bounds(max_jobs=6, group_share=0.5),
}
SLOW = Pace((0.0, *[0.1] * 4, *[0.3] * 5), slots=1, service_ms=400.0)
FAST = Pace((3.0,) * 10, slots=2)
BUSY = Pace((3.0,) * 10, slots=0)
PACES = [{}, {"mail": SLOW}, {"mail": FAST, "video": SLOW}, {"mail": BUSY}]
HISTORY = Retention(done_ms=3_600_000, failed_ms=2 * 3_600_000)
FOREVER_MS = 10**15
WAITS = (31_000, 400_000, 4_000_000)  # a lease lapses, a job ages, history is old

AWAITING = "awaiting"  # older jobs, in a story of jobs that hang together

owners = st.sampled_from(OWNERS)
outcomes_of_all_kinds = st.sampled_from([*OUTCOMES, AWAITING, AWAITING])

MUST_HAPPEN = {
    *("append", "claim", "settle", "turn", "extend", "note", "amend", "sweep", "tune", "announce"),
    *("reserve", "steer", "claimed turned", "settled turned"),
    *("new", "duplicate", "refused for jobs", "refused for bytes", "refused for group"),
    *("refused for wait", "refused for deadline", "refused for reused", "foretold"),
    *("claimed leases", "claimed buried", "claimed cancelled"),
    *("settled lost", "settled buried", "extended lost"),
    *("amended changed", "amended flagged", "amended skipped"),
    "came back late",
    *("swept lapsed", "swept expired", "swept aged", "swept pruned"),
    *("recall", "latest", "step", "latest result", "replaced", "refused for key"),
    *("refused for after", "waits for jobs", "blocked on a limit", "blocked on a turn"),
    *("regulate", "acquire", "release", "acquired is_given", "not acquired", "released"),
    *("list_schedules", "alter_schedule", "tick", "ticked is_applied", "tick was late"),
    *("ticked refusal", "awaited", "skipped"),
}
# In a few stories too: what these are made of depends on which modules are loaded.
ALWAYS_HAPPENS = {
    *("append", "claim", "settle", "turn", "extend", "note", "amend", "sweep", "tune", "announce"),
    *("reserve", "steer", "recall", "latest", "alter_schedule", "tick", "regulate", "acquire"),
    *("new", "duplicate", "claimed leases", "settled lost", "amended changed", "amended skipped"),
    *("swept lapsed", "waits for jobs", "blocked on a limit"),
}
happened: Counter[str] = Counter()  # in all stories: what never happened proves nothing


class EnginesAgree(RuleBasedStateMachine):
    """An engine beside the one in memory, and what the test itself knows of them."""

    beside = engines.MAKERS[1]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp(prefix="backlane-agree-"))
        self.open_ones = contextlib.ExitStack()
        self.engines: dict[str, Engine] = {}
        self.numbers = itertools.count(1)
        self.jobs: list[Job] = []  # all that was ever sent
        self.leases: list[Lease] = []  # all that were ever given
        self.tokens: Counter[bytes] = Counter()  # the newest of each job
        self.lapsing: tuple[bytes, int] | None = None  # where one lease at a time may lapse
        self.seen: list[ScheduleRecord] = []  # as they ever were
        self.given: list[tuple[Use, bytes]] = []  # places that were ever acquired

    @initialize(
        data=st.data(),
        kind=st.sampled_from(KINDS),
    )
    def open(self, data: st.DataObject, kind: str) -> None:
        self.is_tied = "tied" in kind
        self.is_limited = kind not in ("plain", "tied")
        self.fair = frozenset({"video"} if "fair" in kind else ())
        self.bounds = BOUNDS if kind == "plain" else WIDE
        self.drafts = drafts_of(is_tied=self.is_tied, is_limited=self.is_limited)
        for maker in (engines.MAKERS[0], self.beside):
            opened = maker.opened(self.folder, self.clock)
            self.engines[maker.name] = self.open_ones.enter_context(opened)
        drafts = data.draw(st.lists(self.drafts, min_size=3, max_size=6))
        if self.is_limited:  # two that want one place, or hardly any story tells of a limit
            drafts[:2] = [draft | ONE_PLACE for draft in drafts[:2]]
        for draft in drafts:
            self.append([draft])

    def teardown(self) -> None:
        try:
            if self.engines:
                self.everything_can_finish()
        finally:
            self.open_ones.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, verb: str, *args: Any, **more: Any) -> Any:
        """Run a verb everywhere, compare the answers, and return the one that is right."""
        answers = {}
        for name, engine in self.engines.items():
            plan: Plan[Any] = getattr(engine, verb)(*args, **more)
            answers[name] = engine.run(plan)
        right = answers["memory"]
        happened.update([verb, *kinds(right)])
        for name, answer in answers.items():
            assert is_like(right, answer), (
                f"{name} answers {answer}\nto {verb} {args},\nnot {right}"
            )
        return right

    # -- verbs --

    @rule(data=st.data(), paces=st.sampled_from(PACES), is_turned_round=st.booleans())
    def append_some(
        self, data: st.DataObject, paces: dict[str, Pace], is_turned_round: bool
    ) -> None:
        drafts = data.draw(st.lists(self.drafts, min_size=1, max_size=3))
        self.append(drafts, paces, is_turned_round=is_turned_round)

    def append(
        self,
        drafts: list[dict[str, Any]],
        paces: dict[str, Pace] | None = None,
        *,
        is_turned_round: bool = False,
    ) -> None:
        jobs = self.made(drafts)
        self.send(jobs[::-1] if is_turned_round else jobs, paces)

    def made(self, drafts: list[dict[str, Any]]) -> list[Job]:
        """Jobs of drafts; who waits for others waits for older ones, so that none wait in vain."""
        made = []
        for draft in drafts:
            older = [
                self.jobs[-back].id for back, _ in draft.get("after", ()) if back <= len(self.jobs)
            ]
            whens = [when for back, when in draft.get("after", ()) if back <= len(self.jobs)]
            more = {
                "after": tuple(map(Edge, older, whens)),
                "uses": uses_of(draft.get("uses", ()), draft["queue"], draft["group"]),
            }
            self.jobs.append(Job(id=self.new_id(), **draft | more))
            made.append(self.jobs[-1])
        return made

    def admission(self, jobs: list[Job], paces: dict[str, Pace] | None = None) -> Admission:
        names = {use.limit for job in jobs for use in job.uses}
        names |= {f"queue:{job.queue}" for job in jobs} if self.is_limited else set()
        limits = {name: LIMITS[name] for name in sorted(names & LIMITS.keys())}
        return Admission(self.bounds, paces=paces or {}, limits=limits, fair=self.fair)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), paces=st.sampled_from(PACES))
    def append_again(self, data: st.DataObject, paces: dict[str, Pace]) -> None:
        jobs = data.draw(st.lists(st.sampled_from(self.jobs), min_size=1, max_size=3))
        self.send(jobs, paces)

    def send(self, jobs: list[Job], paces: dict[str, Pace] | None = None) -> None:
        before = {queue: self.depth(queue) for queue in QUEUES}
        known = {record.id for record in self.dump()}
        answer = self.run("append", jobs, self.admission(jobs, paces))
        if isinstance(answer, Refusal):
            assert {queue: self.depth(queue) for queue in QUEUES} == before
            return
        new = {receipt.job for receipt in answer if receipt.is_new}
        for job in new - known:
            self.tokens[job] = 0  # forgotten and sent again: another life
        for queue in QUEUES:
            mine = [job for job in jobs if job.id in new and job.queue == queue]
            if mine:
                self.check_bound(queue, all(job.parent for job in mine))

    @rule(
        owner=owners,
        number=st.integers(0, 4),
        names=st.sampled_from([("mail",), ("video",), QUEUES]),
        lane=st.sampled_from([None, 0, 1]),
        seconds=st.sampled_from([1, 30, 3_600]),
        departed=st.sampled_from([(), (), (), ("ann",), ("bob",), OWNERS]),
    )
    def claim(self, owner, number, names, lane, seconds, departed) -> None:
        self.take(
            self.run(
                "claim",
                Wanted(
                    owner=owner,
                    number=number,
                    lease_ms=seconds * 1000,
                    queues=names,
                    lane=lane,
                    departed=self.that_may_depart(departed),
                ),
            )
        )

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), owner=owners)
    def claim_by_id(self, data: st.DataObject, owner: str) -> None:
        jobs = data.draw(st.lists(st.sampled_from(self.jobs), min_size=1, max_size=3))
        ids = tuple(dict.fromkeys(job.id for job in jobs))
        wanted = Wanted(owner=owner, number=2, lease_ms=30_000, lane=None, ids=ids)
        self.take(self.run("claim", wanted))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcomes=st.lists(outcomes_of_all_kinds, min_size=1, max_size=3))
    def settle(self, data: st.DataObject, outcomes: list[Any]) -> None:
        self.run("settle", self.settlements(data, outcomes))

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        outcomes=st.lists(outcomes_of_all_kinds, max_size=3),
        owner=owners,
    )
    def turn(self, data: st.DataObject, outcomes: list[Any], owner: str) -> None:
        wanted = [
            Wanted(owner=owner, number=2, lease_ms=30_000, queues=QUEUES, lane=lane)
            for lane in Lane
        ]
        turn: Turn = self.run("turn", self.settlements(data, outcomes), wanted)
        for claimed in turn.claimed:
            self.take(claimed)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def come_back_late(self, data: st.DataObject, outcome: Any) -> None:
        """A holder is thought dead, its job is given to another, and then it speaks."""
        job = data.draw(st.sampled_from(self.jobs)).id
        first = self.claim_one(job, "ann", departed=self.that_may_depart(OWNERS))
        second = self.claim_one(job, "bob", departed=self.that_may_depart(("ann",)))
        if first and second and first.token < second.token:
            assert self.run("settle", [Settlement(job, first.token, outcome)]).lost == [job]
            assert self.run("note", [Note(job, first.token, Progress(1.0))]) == [job]
            assert self.run("extend", [(job, first.token)], 30_000).lost == [job]
            happened["came back late"] += 1

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def again_and_again(self, data: st.DataObject, outcome: Any) -> None:
        """The same outcome until the job is at its end, or four times."""
        job = data.draw(st.sampled_from(self.jobs)).id
        for _ in range(4):
            lease = self.claim_one(job, "ann")
            if lease:
                self.run("settle", [Settlement(job, lease.token, outcome)])

    def claim_one(self, job: bytes, owner: str, departed: tuple[str, ...] = ()) -> Lease | None:
        wanted = Wanted(
            owner=owner, number=1, lease_ms=30_000, lane=None, ids=(job,), departed=departed
        )
        claimed = self.run("claim", wanted)
        self.take(claimed)
        return claimed.leases[0] if claimed.leases else None

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), seconds=st.sampled_from([0, 30, 3_600]))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        leases = self.recent(data)
        self.run("extend", [(one.job, one.token) for one in leases], seconds * 1000)

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        progress=st.sampled_from([None, Progress(0.5), Progress(None, "half")]),
        steps=st.lists(st.builds(Step, st.sampled_from("ab"), st.binary(max_size=2)), max_size=2),
    )
    def note(self, data: st.DataObject, progress: Progress | None, steps: list[Step]) -> None:
        recent = self.recent(data)
        self.run("note", [Note(one.job, one.token, progress, tuple(steps)) for one in recent])
        for one in recent:
            self.run("recall", one.job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), task=st.sampled_from(TASKS))
    def look_back(self, data: st.DataObject, task: str) -> None:
        self.run("recall", data.draw(st.sampled_from(self.jobs)).id)
        happened["latest result"] += self.run("latest", task) is not None

    @rule(selection=selections, change=st.sampled_from(CHANGES))
    def amend_some(self, selection: Selection, change: Any) -> None:
        self.amend(selection, change)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), change=st.sampled_from(CHANGES))
    def amend_one(self, data: st.DataObject, change: Any) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.amend(Selection(ids=(job.id,)), change)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def stop_some(self, data: st.DataObject) -> None:
        """Cancel what runs, and let its owner hear of it."""
        ids = tuple(lease.job for lease in self.recent(data))
        self.amend(Selection(ids=ids), Cancel())
        for owner in OWNERS:
            self.run("claim", Wanted(owner=owner, number=0, lease_ms=30_000, queues=QUEUES))

    def amend(self, selection: Selection, change: Any) -> None:
        before = {queue: self.depth(queue).jobs for queue in QUEUES}
        self.run("amend", selection, change)
        for queue in QUEUES:
            if isinstance(change, Redrive) and self.depth(queue).jobs > before[queue]:
                self.check_bound(queue, has_headroom=False)

    @rule(
        queue=queues,
        expires_ms=st.sampled_from([None, 500]),
        group=st.sampled_from([None, "x"]),
        pace=st.sampled_from([SLOW, BUSY]),
    )
    def stand_in_line(
        self, queue: str, expires_ms: int | None, group: str | None, pace: Pace
    ) -> None:
        """Jobs of no size one after another, to a queue that is known to be slow."""
        for _ in range(4):
            more = {"expires_ms": expires_ms, "group": group}
            draft = {"queue": queue, "task": "send", "body": b""} | more
            self.send(self.made([draft]), {queue: pace})

    @rule(owner=owners, names=st.sampled_from([("mail",), QUEUES]))
    def die_unheard(self, owner: str, names: tuple[str, ...]) -> None:
        """Claim, and let the leases end; a sweep finds them."""
        wanted = Wanted(owner=owner, number=2, lease_ms=30_000, queues=names, lane=None)
        self.take(self.run("claim", wanted))
        self.mend(1_000, 31_000)

    @rule(limit=st.sampled_from([2, 1_000, 1_000]), after_ms=st.sampled_from([0, *WAITS]))
    def sweep(self, limit: int, after_ms: int) -> None:
        self.mend(limit, after_ms)

    def mend(self, limit: int, after_ms: int) -> None:
        """With a small limit engines may begin with different rows; they end with the same.

        But for which one is named to a job that hoped for two in vain.
        """
        self.pass_time(after_ms)
        if limit == 1_000 or self.is_tied:
            self.run("sweep", 1_000, HISTORY)
            return
        for engine in self.engines.values():
            rounds = 0
            while engine.run(engine.sweep(limit, HISTORY)).more:
                rounds += 1
                assert rounds < 1_000

    @rule(
        queue=queues,
        change=st.sampled_from(
            [
                Tune(paused=True),
                Tune(paused=False),
                Tune(paused=False),
                Tune(max_jobs=2),
                Tune(max_bytes=9),
                Tune(max_wait_ms=2_000, group_share=0.5),
                Tune(max_wait_ms=0),
                Tune(max_wait_ms=0),
                Tune(max_wait_ms=2_000, group_share=0.5),
                Tune(reset=True),
                Declare(Kind.TASKS, Bounds(max_jobs=5)),
                Declare(Kind.TASKS, Bounds(max_jobs=5), is_fair=True),
                Declare(Kind.MESSAGES, Bounds(max_jobs=5)),
            ]
        ),
    )
    def tune(self, queue: str, change: Any) -> None:
        if isinstance(change, Declare) and not self.line(queue):
            return  # the first append is to fix the kind
        if isinstance(change, Declare) and not self.is_limited:
            change = msgspec.structs.replace(change, is_fair=False)
        self.run("tune", queue, change)

    @rule(
        owner=owners,
        leaving=st.booleans(),
        running=st.integers(0, 3),
        most=st.sampled_from([{}, {"mail": 1}]),
    )
    def announce(self, owner: str, leaving: bool, running: int, most: dict[str, int]) -> None:
        presence = Presence(
            owner=owner,
            host="h",
            pid=1,
            queues=QUEUES,
            slots=4,
            running=running,
            most=most,
            leaving=leaving,
        )
        self.run("announce", presence)

    @rule(
        queue=st.sampled_from([*QUEUES, "nothing"]),
        after_ms=st.sampled_from([-5, 0, 700, 90_000]),
        spacing_us=st.sampled_from([300, 1_000_000]),
        number=st.integers(1, 5),
    )
    def reserve(self, queue: str, after_ms: int, spacing_us: int, number: int) -> None:
        self.run("reserve", queue, after_ms, spacing_us, number)

    @rule(
        resource=st.sampled_from(["stripe", "mailgun"]),
        change=st.sampled_from([Open(), Open(5_000), Close(), Close()]),
    )
    def steer(self, resource: str, change: Any) -> None:
        self.run("steer", resource, change)

    @rule(
        data=st.data(),
        owner=owners,
        resource=st.sampled_from(["stripe", "mailgun"]),
        is_well=st.booleans(),
    )
    def try_a_resource(self, data: st.DataObject, owner: str, resource: str, is_well: bool) -> None:
        """Open it for a moment, then let what may be claimed of it end alike."""
        draft = data.draw(self.drafts)
        self.append([draft | {"resource": resource, "delay_ms": 0, "expires_ms": None}])
        self.run("steer", resource, Open(1))
        self.pass_time(1)
        wanted = Wanted(owner=owner, number=4, lease_ms=30_000, queues=QUEUES, lane=None)
        for _ in range(3):
            claimed = self.run("claim", wanted)
            self.take(claimed)
            outcome = SUCCEEDED if is_well else retry(0)
            ended = [Settlement(it.job, it.token, outcome, 5) for it in claimed.leases]
            self.end_all(ended)

    # -- limits --

    @precondition(lambda self: self.is_limited)
    @rule(name=st.sampled_from([*LIMITS, "queue:video", "nothing"]), limit=st.sampled_from(TUNED))
    def regulate(self, name: str, limit: Any) -> None:
        self.run("regulate", name, Tuned(limit))

    @precondition(lambda self: self.is_limited)
    @rule(
        use=st.sampled_from(ACQUIRED),
        holder=st.sampled_from([b"a", b"b"]),
        is_declared=st.booleans(),
    )
    def acquire(self, use: Use, holder: bytes, is_declared: bool) -> None:
        declared = LIMITS[use.limit] if is_declared else None
        given = self.run("acquire", use, declared, holder, 5_000)
        happened["not acquired"] += not given.is_given
        self.given += [(use, holder)] * given.is_given

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        happened["released"] += self.run("release", *data.draw(st.sampled_from(self.given[-3:])))

    # -- schedules --

    @rule(name=st.sampled_from(["dawn", "dusk"]), change=st.sampled_from(OF_SCHEDULES))
    def alter_schedule(self, name: str, change: Any) -> None:
        self.run("alter_schedule", name, change)
        self.see_schedules()

    @rule(
        data=st.data(),
        next_ms=st.sampled_from([None, -5_000, 0, 5_000, 60_000]),
        paces=st.sampled_from(PACES),
    )
    def tick(self, data: st.DataObject, next_ms: int | None, paces: dict[str, Pace]) -> None:
        """Apply schedules as they are, or as they were."""
        if not self.seen:
            self.run("alter_schedule", "noon", Put(spec=b"0 12", task="send"))
        self.see_schedules()
        seen = data.draw(st.lists(st.sampled_from(self.seen[-4:]), min_size=1, max_size=2))
        now = self.clock.wall_ms()
        ticks = [
            Tick(
                name=record.name,
                revision=record.revision,
                last_ms=now,
                next_ms=None if next_ms is None else now + next_ms,
                jobs=tuple(self.made(data.draw(st.lists(self.drafts, max_size=2)))),
            )
            for record in seen
        ]
        before = {record.id for record in self.dump()}
        jobs = [job for tick in ticks for job in tick.jobs]
        ticked = self.run("tick", ticks, self.admission(jobs, paces))
        happened["tick was late"] += any(not (it.is_applied or it.refusal) for it in ticked)
        for record in self.dump():
            if record.id not in before:
                self.tokens[record.id] = 0

    def see_schedules(self) -> None:
        self.run("list_schedules")
        timetable = self.engines["memory"].run(self.engines["memory"].list_schedules())
        self.seen += [record for record in timetable.schedules if record not in self.seen]

    # -- time --

    @rule(ms=st.sampled_from([1, 999, 5_000, *WAITS]))
    def advance(self, ms: int) -> None:
        self.pass_time(ms)

    def pass_time(self, ms: int) -> None:
        """Under limits but one lease is extended first: of several that lapse at once engines
        may let all leave before any comes back in line."""
        if self.is_limited:
            running = [(row.id, row.token) for row in self.dump() if row.state is State.RUNNING]
            if self.lapsing not in running:
                self.lapsing = running[0] if running else None
            kept = [lease for lease in running if lease != self.lapsing]
            if kept:
                self.run("extend", kept, ms + 1)
        self.clock.advance(milliseconds=ms)

    @rule(ms=st.sampled_from([-7_200_000, -61_000, -1, 61_000, 7_200_000]))
    def jump(self, ms: int) -> None:
        self.clock.jump(milliseconds=ms)

    # -- what must hold after each step --

    @invariant()
    def all_hold_the_same(self) -> None:
        if not self.engines:
            return
        self.run("list_queues")
        self.run("list_workers")
        self.run("list_resources")
        self.run("measure", QUEUES)
        if self.is_limited:
            self.run("list_limits")
        if self.seen:
            self.run("list_schedules", due=True)
        right = self.dump()
        happened.update(ways_of(right))
        for name, engine in self.engines.items():
            for ours, theirs in zip(right, dump(engine), strict=True):
                assert theirs == ours, f"{name} has {theirs}\nnot {ours}"

    @invariant()
    def counters_equal_rows(self) -> None:
        rows = self.dump() if self.engines else []
        for queue in QUEUES:
            line = self.line(queue)
            if line:
                assert line.depth == recount(rows, queue)

    # -- what the rules share --

    def new_id(self) -> bytes:
        number = 0x7 << 76 | 0b10 << 62 | next(self.numbers)
        return (self.clock.wall_ms() << 80 | number).to_bytes(16)

    def take(self, claimed: Claimed) -> None:
        for lease in claimed.leases:
            assert lease.token > self.tokens[lease.job], "a token was given twice"
            self.tokens[lease.job] = lease.token
        self.leases += claimed.leases

    def recent(self, data: st.DataObject) -> list[Lease]:
        """Some leases, rather of the newest: current ones, lapsed ones, settled ones."""
        return data.draw(st.lists(st.sampled_from(self.leases[-8:]), min_size=1, max_size=3))

    def settlements(self, data: st.DataObject, outcomes: list[Any]) -> list[Settlement]:
        """Under limits one at a time: in which order those of a call are carried out is open."""
        leases = st.sampled_from(self.leases[-8:])
        some = outcomes[:1] if self.is_limited else outcomes
        drawn = [(data.draw(leases), outcome) for outcome in some]
        return [
            Settlement(it.job, it.token, self.outcome(data, it.job, outcome), 5)
            for it, outcome in drawn
        ]

    def outcome(self, data: st.DataObject, job: bytes, outcome: Outcome | str) -> Outcome:
        """Let a job wait for older ones, so that no two wait for each other."""
        if not isinstance(outcome, str):
            return outcome
        older = list(itertools.takewhile(lambda other: other != job, (it.id for it in self.jobs)))
        if not older or not self.is_tied:
            return Released()
        happened["awaited"] += 1
        return Awaiting(tuple(data.draw(st.lists(st.sampled_from(older[-6:]), max_size=3))))

    def that_may_depart(self, owners: tuple[str, ...]) -> tuple[str, ...]:
        """Under limits one lease at a time lapses, by time."""
        return () if self.is_limited else owners

    def end_all(self, settlements: list[Settlement]) -> None:
        if not self.is_limited:
            self.run("settle", settlements)
            return
        for one in settlements:
            self.run("settle", [one])

    def dump(self) -> list[JobRecord]:
        return dump(self.engines["memory"])

    def line(self, queue: str) -> QueueRecord | None:
        engine = self.engines["memory"]
        return next((q for q in engine.run(engine.list_queues()) if q.name == queue), None)

    def depth(self, queue: str) -> Depth:
        line = self.line(queue)
        return line.depth if line else Depth()

    def check_bound(self, queue: str, has_headroom: bool) -> None:
        line = self.line(queue)
        assert line is not None
        most = line.tuned_max_jobs or self.bounds[queue].max_jobs
        if not has_headroom:
            assert line.depth.jobs <= max(most, line.bounds.max_jobs)
        else:
            assert line.depth.jobs <= most + headroom(most)

    def everything_can_finish(self) -> None:
        """Whatever happened: jobs that are not finished come to an end."""
        for queue in QUEUES:
            self.run("tune", queue, Tune(paused=False))
        for resource in ("stripe", "mailgun"):
            self.run("steer", resource, Close())
        for name in (*LIMITS, "queue:video") if self.is_limited else ():
            self.run("regulate", name, Tuned(None))
        left = [(row.id, row.token) for row in self.dump() if row.state is State.RUNNING]
        self.end_all([Settlement(*lease, SUCCEEDED) for lease in left])
        self.clock.advance(days=2)
        wanted = Wanted(owner="cid", number=1_000, lease_ms=FOREVER_MS, queues=QUEUES, lane=None)
        for _ in range(100):
            claimed = self.run("claim", wanted)
            self.take(claimed)
            self.end_all([Settlement(it.job, it.token, SUCCEEDED) for it in claimed.leases])
            if not any(self.depth(queue).jobs for queue in QUEUES):
                break
            self.clock.advance(seconds=10)  # a rate has tokens again
        rows = self.dump()
        assert all(row.state.is_final for row in rows)
        assert all(row.reason is not None for row in rows if row.state is State.FAILED)
        for queue in QUEUES:
            assert self.depth(queue) == Depth()
        self.all_hold_the_same()


def dump(engine: Engine) -> list[JobRecord]:
    """All records with all they carry, in order of their ids."""
    ids: list[bytes] = []
    cursor = None
    while True:
        page = engine.run(engine.find(Selection(), 50, cursor))
        ids += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    if not ids:
        return []
    whole = engine.run(engine.find(Selection(ids=tuple(ids)), len(ids))).records
    assert [record.id for record in whole] == ids, "a list and its records go by another order"
    return sorted(whole, key=lambda record: record.id)


def ways_of(rows: list[JobRecord]) -> Counter[str]:
    """In which ways jobs wait, or waited, that no answer tells of."""
    return Counter(
        {
            "waits for jobs": sum(row.waits_for > 0 for row in rows),
            "blocked on a limit": sum(row.blocked_on in ("stripe", "eu", "slow") for row in rows),
            "blocked on a turn": sum((row.blocked_on or "").startswith("queue:") for row in rows),
            "skipped": sum(any(it.error.kind == "Skipped" for it in row.errors) for row in rows),
        }
    )


def recount(rows: list[JobRecord], queue: str) -> Depth:
    held = [row for row in rows if row.queue == queue and row.state in WAITING]
    counts = Counter(row.state for row in held)
    return Depth(
        counts[State.SCHEDULED],
        counts[State.READY],
        counts[State.RUNNING],
        counts[State.BLOCKED],
        sum(row.size for row in held),
    )


def kinds(answer: Any) -> list[str]:
    """What an answer tells of."""
    match answer:
        case Refusal():
            return [f"refused for {answer.limit}"]
        case Turn():
            return [kind for one in (answer.settled, *answer.claimed) for kind in kinds(one)]
        case list():
            return [kind for one in answer for kind in kinds(one)]
        case Receipt():
            told = ["foretold"] if answer.expected_ms else []
            told += ["replaced"] if answer.replaced else []
            return ["new" if answer.is_new else "duplicate", *told]
        case Step():
            return ["step"]
        case msgspec.Struct() if not isinstance(answer, JobRecord | QueueRecord):
            name = type(answer).__name__.lower()
            return [
                f"{name} {field}" for field in answer.__struct_fields__ if getattr(answer, field)
            ]
        case _:
            return []


@pytest.mark.timeout(3_600 if IS_PROOF else 300)  # a machine that others use too
@pytest.mark.parametrize("maker", engines.MAKERS[1:], ids=lambda maker: maker.name)
def test_engines_agree_whatever_is_asked_of_them(maker: engines.Maker) -> None:
    happened.clear()

    run_state_machine_as_test(
        type("EnginesAgree", (EnginesAgree,), {"beside": maker}),
        settings=settings(
            max_examples=STORIES if maker is engines.SQLITE else STORIES_OF_SERVERS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not IS_PROOF,
            # Shrinking takes minutes: told in full, a story that fails is short enough.
            phases=list(Phase) if IS_PROOF else [Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

    if IS_PROOF or maker is engines.SQLITE:  # the few stories of servers may leave some out
        told, must = set(+happened), MUST_HAPPEN if IS_PROOF else ALWAYS_HAPPENS
        assert told >= must, f"no story told of {must - told}"


def test_a_receipt_is_compared_by_what_it_says() -> None:
    """The comparison itself must see a difference, or the stories prove nothing."""
    assert not is_like([Receipt(b"1")], [Receipt(b"1", b"2")])
    assert not is_like(Claimed(next_due_ms=5), Claimed(next_due_ms=6))
    assert is_like(Claimed(next_due_ms=5), Claimed(next_due_ms=4))
