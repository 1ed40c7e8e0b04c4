"""Random verbs, the same on two engines: the one in memory says what is right.

Two owners and a few jobs on two small queues; the clock is advanced, and the wall
clock set back and forth; owners die with their leases, and come back with old ones.
After every step both engines must have answered alike and hold the same rows. At the end
of each story everything must still be able to finish.

`BACKLANE_PROVE=1` tells more and longer stories.
"""

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
from tests.engine.contract.desk import (
    CRASHED,
    CRASHED_ALONE,
    FAILED,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    retry,
    snooze,
)

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
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise, Selection
from backlane.model.clock import FakeClock
from backlane.model.job import (
    WAITING,
    Idempotency,
    Job,
    JobRecord,
    Key,
    Lane,
    Lease,
    Note,
    Policy,
    Progress,
    Receipt,
    Refusal,
    State,
)
from backlane.model.outcome import Settlement, Succeeded
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, Depth, Kind, QueueRecord, headroom

T = TypeVar("T")

IS_PROOF = bool(os.environ.get("BACKLANE_PROVE"))
STORIES, STEPS = (2_000, 60) if IS_PROOF else (160, 30)
STORIES_OF_SERVERS = 400 if IS_PROOF else 60  # each verb is a round trip there

QUEUES = ("mail", "video")
OWNERS = ("ann", "bob")
BOUNDS = {
    "mail": Bounds(max_jobs=6, max_bytes=14, max_wait_ms=4_000),
    "video": Bounds(max_jobs=3, group_share=0.7),
}
SLOW = Pace((0.0, *[0.1] * 4, *[0.3] * 5), slots=1, service_ms=400.0)
FAST = Pace((3.0,) * 10, slots=2)
BUSY = Pace((3.0,) * 10, slots=0)
PACES = [{}, {"mail": SLOW}, {"mail": FAST, "video": SLOW}, {"mail": BUSY}]
ASKED = [Idempotency("ann", "k", asked, 60_000) for asked in (b"1", b"2")]
HISTORY = Retention(done_ms=3_600_000, failed_ms=2 * 3_600_000)
FOREVER_MS = 10**15
WAITS = (31_000, 400_000, 4_000_000)  # a lease lapses, a job ages, history is old

OUTCOMES = [
    SUCCEEDED, Succeeded(b"42"), FAILED, STOPPED, RELEASED, CRASHED, CRASHED_ALONE, retry(0),
    retry(5), snooze(0), snooze(40), snooze(5, parked=True),
]  # fmt: skip
CHANGES = [
    Cancel(), Redrive(), Reprioritise(1), Reprioritise(9), Delete(), Move("mail"), Move("video"),
]  # fmt: skip

queues = st.sampled_from(QUEUES)
owners = st.sampled_from(OWNERS)
selections = st.one_of(
    st.builds(lambda queue: Selection(queue=queue), queues),
    st.builds(lambda state: Selection(states=(state,)), st.sampled_from(State)),
    st.builds(lambda key: Selection(key=key), st.sampled_from(["a", "b"])),
    st.builds(lambda text: Selection(text=text), st.sampled_from(["BOOM", "nothing"])),
    st.builds(lambda group: Selection(group=group, task="send"), st.sampled_from(["x", "y"])),
)
drafts = st.fixed_dictionaries(
    {
        "queue": queues,
        "task": st.sampled_from(["send", "resize"]),
        "body": st.binary(max_size=6),
        "headers": st.none() | st.just(b"h"),
        "priority": st.sampled_from([0, 5, 5, 9]),
        "lane": st.sampled_from(Lane),
        "delay_ms": st.sampled_from([0, 0, 0, 5_000, 400_000]),
        "expires_ms": st.sampled_from([None, None, 1, 20_000, 500_000]),
        "policy": st.sampled_from([Policy(), Policy(attempts=1), Policy(attempts=2)]),
        "key": st.sampled_from([None, None, None, Key("send", "a"), Key("send", "b")]),
        "group": st.sampled_from([None, "x", "y"]),
        "parent": st.sampled_from([None, None, b"p" * 16]),
        "resource": st.sampled_from([None, None, "stripe", "mailgun"]),
        "idempotency": st.sampled_from([*[None] * 10, *ASKED]),
    }
)


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

    @initialize(drafts=st.lists(drafts, min_size=3, max_size=6))
    def open(self, drafts: list[dict[str, Any]]) -> None:
        for maker in (engines.MAKERS[0], self.beside):
            opened = maker.opened(self.folder, self.clock)
            self.engines[maker.name] = self.open_ones.enter_context(opened)
        for draft in drafts:
            self.append([draft])

    def teardown(self) -> None:
        try:
            if self.engines:
                self.everything_can_finish()
        finally:
            self.open_ones.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, verb: str, *args: Any) -> Any:
        """Run a verb everywhere, compare the answers, and return the one that is right."""
        answers = {}
        for name, engine in self.engines.items():
            plan: Plan[Any] = getattr(engine, verb)(*args)
            answers[name] = engine.run(plan)
        right = answers["memory"]
        happened.update([verb, *kinds(right)])
        for name, answer in answers.items():
            assert is_like(right, answer), (
                f"{name} answers {answer}\nto {verb} {args},\nnot {right}"
            )
        return right

    # -- verbs --

    @rule(drafts=st.lists(drafts, min_size=1, max_size=3), paces=st.sampled_from(PACES))
    def append_some(self, drafts: list[dict[str, Any]], paces: dict[str, Pace]) -> None:
        self.append(drafts, paces)

    def append(self, drafts: list[dict[str, Any]], paces: dict[str, Pace] | None = None) -> None:
        jobs = [Job(id=self.new_id(), **draft) for draft in drafts]
        self.jobs += jobs
        self.send(jobs, paces)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), paces=st.sampled_from(PACES))
    def append_again(self, data: st.DataObject, paces: dict[str, Pace]) -> None:
        jobs = data.draw(st.lists(st.sampled_from(self.jobs), min_size=1, max_size=3))
        self.send(jobs, paces)

    def send(self, jobs: list[Job], paces: dict[str, Pace] | None = None) -> None:
        before = {queue: self.depth(queue) for queue in QUEUES}
        known = {record.id for record in self.dump()}
        answer = self.run("append", jobs, Admission(BOUNDS, paces=paces or {}))
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
                    departed=departed,
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
    @rule(data=st.data(), outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3))
    def settle(self, data: st.DataObject, outcomes: list[Any]) -> None:
        self.run("settle", self.settlements(data, outcomes))

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=3),
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
        first = self.claim_one(job, "ann", departed=OWNERS)
        second = self.claim_one(job, "bob", departed=("ann",))
        if first and second:
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
    @rule(data=st.data(), progress=st.sampled_from([Progress(0.5), Progress(None, "half")]))
    def note(self, data: st.DataObject, progress: Progress) -> None:
        self.run("note", [Note(one.job, one.token, progress) for one in self.recent(data)])

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
            job = Job(id=self.new_id(), queue=queue, task="send", body=b"", **more)
            self.jobs.append(job)
            self.send([job], {queue: pace})

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
        """With a small limit engines may begin with different rows; they end with the same."""
        self.clock.advance(milliseconds=after_ms)
        if limit == 1_000:
            self.run("sweep", limit, HISTORY)
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
                Declare(Kind.MESSAGES, Bounds(max_jobs=5)),
            ]
        ),
    )
    def tune(self, queue: str, change: Any) -> None:
        if isinstance(change, Declare) and not self.line(queue):
            return  # the first append is to fix the kind
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
        draft=drafts,
        owner=owners,
        resource=st.sampled_from(["stripe", "mailgun"]),
        is_well=st.booleans(),
    )
    def try_a_resource(
        self, draft: dict[str, Any], owner: str, resource: str, is_well: bool
    ) -> None:
        """Open it for a moment, then let what may be claimed of it end alike."""
        self.append([draft | {"resource": resource, "delay_ms": 0, "expires_ms": None}])
        self.run("steer", resource, Open(1))
        self.clock.advance(milliseconds=1)
        wanted = Wanted(owner=owner, number=4, lease_ms=30_000, queues=QUEUES, lane=None)
        for _ in range(3):
            claimed = self.run("claim", wanted)
            self.take(claimed)
            outcome = SUCCEEDED if is_well else retry(0)
            ended = [Settlement(it.job, it.token, outcome, 5) for it in claimed.leases]
            self.run("settle", ended)

    # -- time --

    @rule(ms=st.sampled_from([1, 999, 5_000, *WAITS]))
    def advance(self, ms: int) -> None:
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
        right = self.dump()
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
        leases = st.sampled_from(self.leases[-8:])
        drawn = [(data.draw(leases), outcome) for outcome in outcomes]
        return [Settlement(lease.job, lease.token, outcome, 5) for lease, outcome in drawn]

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
        most = line.tuned_max_jobs or BOUNDS[queue].max_jobs
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
        wanted = Wanted(owner="cid", number=1_000, lease_ms=FOREVER_MS, queues=QUEUES, lane=None)
        self.clock.advance(days=2)
        claimed = self.run("claim", msgspec.structs.replace(wanted, departed=OWNERS))
        self.take(claimed)
        self.run("settle", [Settlement(one.job, one.token, SUCCEEDED) for one in claimed.leases])
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
            return ["new" if answer.is_new else "duplicate", *told]
        case msgspec.Struct() if not isinstance(answer, JobRecord | QueueRecord):
            name = type(answer).__name__.lower()
            return [
                f"{name} {field}" for field in answer.__struct_fields__ if getattr(answer, field)
            ]
        case _:
            return []


@pytest.mark.timeout(3_600 if IS_PROOF else 120)
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
        assert set(happened) >= MUST_HAPPEN, f"no story told of {MUST_HAPPEN - set(happened)}"


def test_a_receipt_is_compared_by_what_it_says() -> None:
    """The comparison itself must see a difference, or the stories prove nothing."""
    assert not is_like([Receipt(b"1")], [Receipt(b"1", b"2")])
    assert not is_like(Claimed(next_due_ms=5), Claimed(next_due_ms=6))
    assert is_like(Claimed(next_due_ms=5), Claimed(next_due_ms=4))
