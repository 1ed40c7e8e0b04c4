"""What people do while workers are at the same jobs: nothing is lost, and counters are true."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from backlane.engine.moving import Seal
from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Declare, Wanted
from backlane.engine.selection import (
    Cancel,
    Change,
    Delete,
    Move,
    Redrive,
    Reprioritise,
    Selection,
)
from backlane.model.clock import FakeClock, SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job, JobRecord, Key, State
from backlane.model.outcome import ErrorRecord, Failed, Reason, RetryAfter, Settlement, Succeeded
from backlane.model.queue import Bounds, Kind

JOBS = 400
BOOM = ErrorRecord("builtins.ValueError", "boom")


def job(queue: str = "mail", **fields: object) -> Job:
    given = {
        "id": new_id(SystemClock().wall_ms()),
        "queue": queue,
        "task": "send",
        "body": b"{}",
    } | fields
    return Job(**given)  # type: ignore[arg-type]


def records(engine: PostgresEngine, **selection: object) -> list[JobRecord]:
    found: list[JobRecord] = []
    cursor = None
    while True:
        page = engine.run(engine.find(Selection(**selection), 1_000, cursor))  # type: ignore[arg-type]
        found += page.records
        cursor = page.cursor
        if cursor is None:
            return found


def all_at_once(*works: Callable[[], None]) -> None:
    """Run these in threads, and raise what any of them raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def assert_counted(engine: PostgresEngine) -> None:
    """The counters of every queue are what its rows say."""
    for queue in engine.run(engine.list_queues()):
        held = Counter(one.state for one in records(engine, queue=queue.name))
        depth = queue.depth
        assert (depth.scheduled, depth.ready, depth.running) == (
            held[State.SCHEDULED],
            held[State.READY],
            held[State.RUNNING],
        ), queue.name
        assert depth.bytes == sum(held[state] for state in held if not state.is_final) * 2


def worker(engine: PostgresEngine, name: str, until: threading.Event) -> Callable[[], None]:
    """What claims and settles jobs, each with another outcome, until there are none."""
    outcomes = itertools.cycle(
        [Succeeded(), RetryAfter(0, BOOM), Failed(Reason.ERROR, BOOM), RetryAfter(60_000, BOOM)]
    )

    def work() -> None:
        settlements: list[Settlement] = []
        wanted = Wanted(owner=name, number=7, lease_ms=30_000, queues=("mail", "slow"))
        while True:
            turn = engine.run(engine.turn(settlements, [wanted]))
            assert turn.settled.lost == []
            leases = turn.claimed[0].leases
            settlements = [Settlement(it.job, it.token, next(outcomes)) for it in leases]
            if not leases and until.is_set():
                return

    return work


@pytest.mark.parametrize(
    "changes",
    [
        [Cancel(), Redrive()],
        [Reprioritise(9), Reprioritise(1)],
        [Move("slow"), Move("mail")],
        [Delete()],
    ],
    ids=["cancel", "reprioritise", "move", "delete"],
)
def test_jobs_that_workers_are_at_are_changed_or_not_and_never_lost(
    engine: PostgresEngine, changes: list[Change]
) -> None:
    jobs = [job(key=Key("send", str(n)), group=f"g{n % 3}") for n in range(JOBS)]
    engine.run(engine.append(jobs, Admission()))
    done = threading.Event()
    answered: Counter[str] = Counter()

    def people() -> None:
        try:
            for change in changes * (8 // len(changes)):
                cursor = None
                while True:
                    amended = engine.run(engine.amend(Selection(), change, cursor))
                    answered["changed"] += len(amended.changed)
                    answered["seen"] += sum(
                        map(len, (amended.changed, amended.flagged, amended.skipped))
                    )
                    cursor = amended.cursor
                    if cursor is None:
                        break
        finally:
            done.set()

    all_at_once(people, worker(engine, "ann", done), worker(engine, "bob", done))

    assert answered["changed"] > 0
    left = records(engine)
    assert len({one.id for one in left}) == len(left)
    if not isinstance(changes[0], Delete):
        assert {one.id for one in left} == {one.id for one in jobs}
        assert answered["seen"] == JOBS * 8
    assert_counted(engine)
    assert keys_are_free(engine, left)


def keys_are_free(engine: PostgresEngine, left: list[JobRecord]) -> bool:
    """Whether just the jobs that are not over hold their keys."""
    holding = {one.key.name for one in left if one.key and not one.state.is_final}
    again = [job(key=Key("send", str(n))) for n in range(JOBS)]
    receipts = engine.run(engine.append(again, Admission()))
    assert isinstance(receipts, list)
    taken = {
        one.key.name for one, it in zip(again, receipts, strict=True) if one.key and not it.is_new
    }
    return taken == holding


def test_slots_of_a_virtual_clock_are_given_once(url: str) -> None:
    engine = PostgresEngine(url, clock=FakeClock())
    engine.run(engine.tune("mail", Declare(Kind.TASKS, Bounds())))
    begins: list[int] = []

    def reserve() -> None:
        for _ in range(50):
            begins.append(engine.run(engine.reserve("mail", 7_000, 1_000_000, 1)))  # noqa: PERF401

    all_at_once(*[reserve] * 4)
    engine.close()

    assert sorted(begins) == [7_000 + 1_000 * n for n in range(200)]


def test_redrives_and_appends_together_do_not_pass_the_bound(engine: PostgresEngine) -> None:
    dead = [job() for _ in range(60)]
    engine.run(engine.append(dead, Admission()))
    engine.run(engine.amend(Selection(), Cancel()))
    bounds = {"mail": Bounds(max_jobs=100)}
    engine.run(engine.tune("mail", Declare(Kind.TASKS, bounds["mail"])))

    def redrive() -> None:
        for one in dead:
            engine.run(engine.amend(Selection(ids=(one.id,)), Redrive()))

    def append() -> None:
        for _ in range(60):
            engine.run(engine.append([job()], Admission(bounds)))

    all_at_once(redrive, append, append)

    assert engine.run(engine.list_queues())[0].depth.jobs == 100


def test_a_seal_lets_no_job_slip_in_behind_the_dump(engine: PostgresEngine) -> None:
    taken: list[bytes] = []
    is_busy = threading.Event()
    dumped: set[bytes] = set()

    def append() -> None:
        for _ in range(300):
            one = job()
            if isinstance(engine.run(engine.append([one], Admission())), list):
                taken.append(one.id)
            if len(taken) > 100:
                is_busy.set()

    def seal() -> None:
        assert is_busy.wait(30)
        engine.run(engine.seal(Seal("elsewhere")))
        cursor = None
        while True:
            part = engine.run(engine.dump(50, cursor))
            dumped.update(one.record.id for one in part.jobs)
            cursor = part.cursor
            if cursor is None:
                break

    all_at_once(append, append, append, seal)

    assert 100 < len(taken) < 900
    assert dumped == set(taken)


def test_a_seal_lets_no_claim_slip_in(engine: PostgresEngine) -> None:
    engine.run(engine.append([job() for _ in range(3_000)], Admission()))
    is_busy, is_sealed = threading.Event(), threading.Event()
    late: list[bytes] = []

    def claim() -> None:
        wanted = Wanted(owner="ann", number=2, lease_ms=30_000, queues=("mail",))
        for _ in range(300):
            was_sealed = is_sealed.is_set()
            claimed = engine.run(engine.claim(wanted))
            is_busy.set()
            if was_sealed:
                late.extend(lease.job for lease in claimed.leases)

    def seal() -> None:
        assert is_busy.wait(30)
        engine.run(engine.seal(Seal("elsewhere")))
        is_sealed.set()

    all_at_once(claim, claim, seal)

    assert late == []
    assert_counted(engine)
