"""The dispatcher beside an engine that is away, in doubt, or refuses one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backlane.engine.memory import MemoryEngine
from backlane.engine.plan import Plan
from backlane.engine.protocol import Admission
from backlane.engine.selection import Cancel, Selection
from backlane.errors import EngineUnavailable, OutcomeUnknown
from backlane.model.clock import FakeClock
from backlane.model.ids import new_ids
from backlane.model.job import Job, JobRecord, Lane, State
from backlane.model.outcome import (
    ErrorRecord,
    Outcome,
    Released,
    RetryAfter,
    Settlement,
    Succeeded,
)
from backlane.worker.channel import Completed, Drain, Ended, Frame, Halt, Run, TakeBack
from backlane.worker.crew import ENDED, STARTED, UNSTARTED
from backlane.worker.dispatcher import Dispatcher
from backlane.worker.pacing import Pacing
from backlane.worker.post import Post, places
from backlane.worker.posts import Posts
from backlane.worker.wants import Wants


class Recorder:
    """A channel to nowhere, which keeps what was sent."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)

    def close(self) -> None:
        self.frames.append(Drain())


class Moody(MemoryEngine):
    """A memory engine whose next runs do what the test says."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.moods: list[Callable[[Plan[Any]], Any]] = []

    async def arun(self, plan: Plan[Any]) -> Any:
        return self.moods.pop(0)(plan) if self.moods else self.run(plan)

    def away(self, plan: Plan[Any]) -> Any:
        raise EngineUnavailable("away")

    def in_doubt(self, plan: Plan[Any]) -> Any:
        self.run(plan)
        raise OutcomeUnknown("no answer")

    def broken(self, plan: Plan[Any]) -> Any:
        raise RuntimeError("a bind error")

    def enqueue(self, number: int, resource: str | None = None) -> list[bytes]:
        ids = new_ids(self._store.clock.wall_ms(), number)
        jobs = [
            Job(id=each, queue="mail", task="send", body=b"{}", resource=resource) for each in ids
        ]
        self.run(self.append(jobs, Admission()))
        return ids

    def record(self, job: bytes) -> JobRecord:
        return self.run(self.find(Selection(ids=(job,)))).records[0]


class Desk:
    """A dispatcher with one shared post, whose executor is the test."""

    def __init__(self, engine: Moody, slots: int = 10, limit: int | None = None) -> None:
        self.engine = engine
        self.channel = Recorder()
        self.marks = bytearray(places(slots))
        self.post = Post("desk", Lane.SHARED, slots, self.marks)
        wants = Wants("me", 30_000, {"mail": limit})
        pacing = Pacing(30_000)
        self.posts = Posts(pacing, wants.limits, 0, self._hire)
        self.posts.all.append(self.post)
        self.post.open(self.channel)
        self.dispatcher = Dispatcher(engine, wants, pacing, self.posts)

    def _hire(self) -> Post:
        raise AssertionError("no job is exclusive")

    @property
    def given(self) -> list[bytes]:
        runs = [frame for frame in self.channel.frames if isinstance(frame, Run)]
        return [lease.job for frame in runs for lease in frame.leases]

    def end(self, jobs: Sequence[bytes], outcome: Outcome = Succeeded()) -> None:  # noqa: B008
        settlements = [Settlement(job, self.post.held[job].lease.token, outcome) for job in jobs]
        self.dispatcher.hear(self.post, Ended(settlements))

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the dispatcher take turns until something holds."""
        serving = asyncio.ensure_future(self.dispatcher.serve())
        try:
            async with asyncio.timeout(5):
                while not holds():  # noqa: ASYNC110 - whatever the test waits for
                    await asyncio.sleep(0.001)
        finally:
            serving.cancel()


@pytest.fixture
def engine() -> Moody:
    return Moody()


def test_it_claims_for_free_slots_only(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=2)
        engine.enqueue(5)
        await desk.until(lambda: desk.given)
        assert len(desk.given) == 2

    asyncio.run(main())


def test_it_holds_no_more_of_a_queue_than_its_concurrency(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=10, limit=1)
        first, second = engine.enqueue(2)
        await desk.until(lambda: desk.given)
        assert desk.given == [first]

        desk.end([first])
        await desk.until(lambda: len(desk.given) > 1)
        assert desk.given == [first, second]

    asyncio.run(main())


def test_outcomes_are_kept_while_the_engine_is_away(engine: Moody):
    async def main() -> None:
        desk = Desk(engine)
        (job,) = engine.enqueue(1)
        await desk.until(lambda: desk.given)

        engine.moods = [engine.away, engine.away]
        desk.end([job])
        await desk.until(lambda: engine.record(job).state is State.SUCCEEDED)

    asyncio.run(main())


def test_an_outcome_in_doubt_is_sent_again_and_is_no_lost_lease(
    engine: Moody, caplog: pytest.LogCaptureFixture
):
    async def main() -> None:
        desk = Desk(engine)
        (job,) = engine.enqueue(1)
        await desk.until(lambda: desk.given)

        engine.moods = [engine.in_doubt]
        desk.end([job])
        await desk.until(lambda: not engine.moods and not desk.dispatcher.is_in_trouble)

    asyncio.run(main())
    assert "lease was lost" not in caplog.text


def test_one_outcome_that_cannot_be_stored_does_not_hold_up_the_others(engine: Moody):
    async def main() -> None:
        desk = Desk(engine)
        good, bad = engine.enqueue(2)
        await desk.until(lambda: len(desk.given) == 2)

        engine.moods = [engine.broken, engine.run, engine.broken]  # the turn; one; the other
        desk.end([good, bad])
        await desk.until(lambda: engine.record(bad).state is State.FAILED)

        assert engine.record(good).state is State.SUCCEEDED
        assert str(engine.record(bad).reason) == "unstorable"

    asyncio.run(main())


def test_a_lost_lease_is_told_to_its_executor_and_its_outcome_dropped(engine: Moody):
    async def main() -> None:
        desk = Desk(engine)
        (job,) = engine.enqueue(1)
        await desk.until(lambda: desk.given)
        token = desk.post.held[job].lease.token

        desk.posts.lose([(job, token)])
        desk.dispatcher.hear(desk.post, Ended([Settlement(job, token, Succeeded())]))

        assert isinstance(desk.channel.frames[-1], Halt)
        assert engine.record(job).state is State.RUNNING
        assert desk.post.is_idle

    asyncio.run(main())


def test_a_lost_lease_counts_no_more_against_its_queue(engine: Moody):
    """A queue with a concurrency of its own lost a slot with each, until the restart."""

    async def main() -> None:
        desk = Desk(engine, limit=1)
        (job,) = engine.enqueue(1)
        await desk.until(lambda: desk.given)

        desk.posts.lose([(job, desk.post.held[job].lease.token)])

        assert desk.posts.held_of == {"mail": 0}

    asyncio.run(main())


def test_a_job_that_settled_itself_is_neither_settled_nor_extended(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=1, limit=1)
        (job,) = engine.enqueue(1)
        await desk.until(lambda: desk.given)
        token = desk.post.held[job].lease.token

        desk.dispatcher.hear(desk.post, Completed(job, token))

        assert not desk.post.held
        assert not desk.post.is_idle  # its function still runs, and keeps its slot
        assert desk.posts.held_of == {"mail": 0}

        desk.dispatcher.hear(desk.post, Ended([Settlement(job, token, Succeeded())]))

        assert desk.post.is_idle
        assert desk.dispatcher.give_up() == 0
        assert not [frame for frame in desk.channel.frames if isinstance(frame, Halt)]

    asyncio.run(main())


def test_a_cancelled_job_is_halted_while_no_slot_is_free(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=1)
        first, _ = engine.enqueue(2)
        await desk.until(lambda: desk.given)

        engine.run(engine.amend(Selection(ids=(first,)), Cancel()))
        await desk.until(lambda: any(isinstance(each, Halt) for each in desk.channel.frames))

    asyncio.run(main())


def test_what_dies_with_an_executor_depends_on_whether_it_had_started(engine: Moody):
    async def main() -> None:
        desk = Desk(engine)
        started, unstarted, ended = engine.enqueue(3)
        await desk.until(lambda: len(desk.given) == 3)
        for job, mark in ((started, STARTED), (unstarted, UNSTARTED), (ended, ENDED)):
            desk.marks[desk.post.held[job].place] = mark

        desk.posts.all.remove(desk.post)
        desk.dispatcher.take_dead(desk.post.die("killed"))
        await desk.until(lambda: engine.record(started).attempt == 1)

        assert engine.record(started).lane is Lane.EXCLUSIVE
        for job in (unstarted, ended):
            record = engine.record(job)
            assert (record.attempt, record.lane) == (0, Lane.SHARED)

    asyncio.run(main())


def test_unstarted_jobs_behind_long_ones_are_taken_back(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=1)
        jobs = engine.enqueue(2)
        await desk.until(lambda: desk.given)
        (wanted,) = desk.dispatcher.wants.ask({Lane.SHARED: 1}, {}, ())
        ahead = engine.run(engine.claim(wanted)).leases
        now = desk.post.ended_at
        desk.post.give(ahead, now)
        desk.marks[desk.post.held[desk.given[0]].place] = STARTED

        desk.post.take_back_if_stalled(now + 1)

        (back,) = [each for each in desk.channel.frames if isinstance(each, TakeBack)]
        assert back.places == [desk.post.held[jobs[1]].place]
        desk.end([jobs[1]], Released())
        await desk.until(lambda: engine.record(jobs[1]).state is State.READY)

    asyncio.run(main())


def test_what_is_claimed_while_told_to_stop_goes_back_uncounted(engine: Moody):
    async def main() -> None:
        desk = Desk(engine)
        (job,) = engine.enqueue(1)

        def told_meanwhile(plan: Plan[Any]) -> Any:
            turn = engine.run(plan)
            desk.dispatcher.stop_claiming()
            return turn

        engine.moods = [told_meanwhile]
        await desk.until(
            lambda: engine.record(job).token and engine.record(job).state is State.READY
        )

        assert engine.record(job).attempt == 0
        assert desk.given == []

    asyncio.run(main())


def test_what_a_failing_resource_has_not_started_is_taken_back(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=13)
        jobs = engine.enqueue(12, resource="stripe")
        (other,) = engine.enqueue(1)
        await desk.until(lambda: len(desk.given) == 13)
        for job in jobs[:11]:
            desk.marks[desk.post.held[job].place] = STARTED
        unstarted = [desk.post.held[jobs[11]].place]

        desk.end(jobs[:10], RetryAfter(1_000, ErrorRecord("ConnectionError", "refused")))
        await desk.until(lambda: taken_back(desk))

        assert taken_back(desk) == [unstarted]  # not what runs, nor what needs no resource
        desk.end([jobs[11]], Released())
        desk.end([other])
        await desk.until(lambda: engine.record(jobs[11]).state is State.READY)
        assert engine.record(jobs[11]).attempt == 0
        assert jobs[11] not in desk.given[13:]

    asyncio.run(main())


def test_what_no_executor_has_heard_of_is_given_back_by_the_dispatcher_itself(engine: Moody):
    async def main() -> None:
        desk = Desk(engine, slots=13)
        jobs = engine.enqueue(11, resource="stripe")
        await desk.until(lambda: len(desk.given) == 11)
        late = Post("late", Lane.SHARED, 1, bytearray(places(1)))  # it has not opened yet
        desk.posts.all.append(late)
        (waiting,) = engine.enqueue(1, resource="stripe")
        claimed = engine.run(engine.claim(desk.dispatcher.wants.ask({Lane.SHARED: 1}, {}, ())[0]))
        late.give(claimed.leases, 0.0)

        desk.end(jobs[:10], RetryAfter(1_000, ErrorRecord("ConnectionError", "refused")))
        await desk.until(lambda: engine.record(waiting).state is State.READY)

        assert late.is_idle

    asyncio.run(main())


def taken_back(desk: Desk) -> list[list[int]]:
    return [frame.places for frame in desk.channel.frames if isinstance(frame, TakeBack)]
