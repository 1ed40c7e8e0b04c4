"""The dispatcher: claims jobs for free slots, and settles what became of them.

The only part of a worker that talks to the engine about jobs. Each turn settles what
has ended and claims what fits in one transaction; turns follow one another, never two
at once. An outcome is kept until the engine has it: an engine that is busy, full or
away costs time, never an outcome (settling is fenced, so sending twice is safe).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Sequence

from backlane.engine.hearing import Bell
from backlane.engine.protocol import Claimed, Engine, Settled, Wanted
from backlane.errors import EngineUnavailable, OutcomeUnknown
from backlane.model.breaker import ResourceRecord
from backlane.model.job import Lease, Note
from backlane.model.outcome import Crashed, Failed, Outcome, Reason, Released, Settlement
from backlane.worker.channel import Completed, Ended, Frame, Noted, Overdue, Pong, Will
from backlane.worker.pacing import SETTLE_MOST, Pacing
from backlane.worker.post import Post
from backlane.worker.posts import Posts
from backlane.worker.verdict import spoilt
from backlane.worker.wants import Wants

log = logging.getLogger("backlane.worker")

POLL_SECONDS = 1.0  # without a bell; polling is the truth
FRUITLESS_SECONDS = 0.005  # doubled while what is said to be due gives us nothing
RETRY_FIRST_SECONDS = 0.1
RETRY_LONGEST_SECONDS = 5.0
ASK_AGAIN_SECONDS = 0.25  # how often a bell may ask for cancelled jobs while no slot is free

Taken = Sequence[tuple[Settlement, Lease]]


class Dispatcher:
    """Feeds the posts of one worker."""

    def __init__(self, engine: Engine, wants: Wants, pacing: Pacing, posts: Posts) -> None:
        self.engine, self.wants, self.pacing, self.posts = engine, wants, pacing, posts
        self.departed: tuple[str, ...] = ()  # owners known dead, for the next claim
        self.is_in_trouble = False  # the engine did not answer last time
        self._ended: deque[tuple[Settlement, Lease]] = deque()
        self._first_ended = 0.0
        self._doubtful: set[bytes] = set()  # jobs settled without an answer
        self._notes: list[Note] = []
        self._is_claiming = True
        self._is_stopped = False
        self._claim_at = 0.0  # when to look for jobs; moved by bells, due times and turns
        self._has_rung = False
        self._looked_at = 0.0
        self._fruitless = 0
        self._retry_at = 0.0
        self._failures = 0
        self._waker: asyncio.Future[None] | None = None

    # -- what it is told --

    def wake(self) -> None:
        """Look again whether a turn is due."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def look_now(self) -> None:
        """There may be something to claim, or to stop."""
        self._claim_at = 0.0
        self.wake()

    def stop_claiming(self) -> None:
        self._is_claiming = False

    def stop(self) -> None:
        """End `serve` once everything that has ended is settled."""
        self._is_claiming, self._is_stopped = False, True
        self.wake()

    def give_up(self) -> int:
        """End `serve` now; return how many outcomes the engine has not taken."""
        left = len(self._ended)
        self._ended.clear()
        self.stop()
        return left

    def hear(self, post: Post, frame: Frame) -> None:
        """An executor speaks."""
        post.has_spoken()
        match frame:
            case Ended():
                self._take_ended(post, frame.settlements)
            case Completed():
                self._take_completed(post, frame)
            case Noted():
                self._notes += frame.notes
            case Pong():
                post.rss_kib = frame.rss_kib
            case Overdue():
                post.has_overdue(frame.place)
            case Will():
                post.bequeath(frame.settlements)
            case _:
                log.error("executor %s sent %s, which it never should", post.name, frame)
        self.wake()

    def _take_ended(self, post: Post, settlements: Sequence[Settlement]) -> None:
        now = time.monotonic()
        if not self._ended:
            self._first_ended = now
        ended = post.settled(settlements, now)
        self._ended += ended
        self.posts.count_down([lease for _, lease in ended])
        ran_ms = sum([settlement.ran_ms for settlement in settlements])
        self.pacing.ended(len(settlements), ran_ms, now)

    def _take_completed(self, post: Post, frame: Completed) -> None:
        """A job has settled itself: there is nothing left to settle, extend or lose."""
        held = post.complete(frame.job, frame.token)
        if held is not None:
            self.posts.count_down([held.lease])
        self._heed(frame.turned)

    def take_dead(self, last: Sequence[tuple[Lease, Outcome]]) -> None:
        """An executor is gone, with this to say for each of its jobs."""
        if last and not self._ended:
            self._first_ended = time.monotonic()
        for lease, outcome in last:
            self._ended.append((Settlement(lease.job, lease.token, outcome), lease))
        self.posts.count_down([lease for lease, _ in last])
        self.posts.look_exclusive_at = 0.0  # what crashed runs next alone
        self.look_now()

    # -- turns --

    async def serve(self) -> None:
        """Take turns until stopped, with everything settled."""
        listening = asyncio.ensure_future(self._listen())
        try:
            while not (self._is_stopped and not self._ended):
                now = time.monotonic()
                at = self._next_turn(now)
                if at > now:
                    await self._pause(at - now)
                else:
                    await self._take_turn()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _next_turn(self, now: float) -> float:
        """Return when the next turn is due, if nothing happens before."""
        at = now + POLL_SECONDS
        if self._is_claiming:
            at = self._looked_at + POLL_SECONDS  # a full worker looks too: a job may be cancelled
            if self._has_rung:
                at = min(at, self._looked_at + ASK_AGAIN_SECONDS)
            if self._claim_at < at and (self.departed or self.posts.has_room(now)):
                at = self._claim_at
        if self._ended:
            due = self.pacing.due(len(self._ended), self.posts.number_held, self._first_ended)
            at = min(at, due)
        if self._notes:
            at = now
        return max(at, self._retry_at)

    async def _take_turn(self) -> None:
        began = time.monotonic()
        taken = [self._ended.popleft() for _ in range(min(len(self._ended), SETTLE_MOST))]
        self._first_ended = began
        wanted: list[Wanted] = []
        if self._is_claiming:
            # Those that this turn does not tell of, or in vain, are found again soon.
            departed, self.departed = self.departed, ()
            wanted = self.wants.ask(self.posts.free(began), self.posts.held_of, departed)
        self._has_rung = False
        try:
            await self._keep_notes()
            settlements = [settlement for settlement, _ in taken]
            turn = await self.engine.arun(self.engine.turn(settlements, wanted))
        except EngineUnavailable as error:  # nothing was changed
            self._put_back(taken, error)
        except OutcomeUnknown as error:
            self._doubtful.update(settlement.job for settlement, _ in taken)
            self._put_back(taken, error)
        except Exception as error:  # noqa: BLE001 - no single job may end the worker
            log.error("a turn failed; its outcomes are settled one by one: %r", error)
            await self._settle_singly(taken, error)
        else:
            self._end_trouble()
            self.pacing.turned(time.monotonic() - began)
            self._tell(turn.settled, taken)
            self._heed(turn.settled.turned)
            if wanted:
                self._hand_out(turn.claimed, wanted)

    async def _keep_notes(self) -> None:
        if self._notes:
            notes, self._notes = self._notes, []
            lost = await self.engine.arun(self.engine.note(notes))
            self.posts.lose((note.job, note.token) for note in notes if note.job in lost)

    def _hand_out(self, claimed: Sequence[Claimed], wanted: Sequence[Wanted]) -> None:
        """Give what was claimed to executors, and plan the next look."""
        now = self._looked_at = time.monotonic()
        for each in claimed:
            self.posts.halt(each.cancelled)
            self._heed(each.turned)
            for record in each.buried:
                self.posts.tell_buried(record.id, record.task, record.queue, str(record.reason))
        leases = [lease for each in claimed for lease in each.leases]
        if leases and not self._is_claiming:
            self._give_back(leases)
        elif leases:
            left = self.posts.give(leases, now)
            if left:
                self.take_dead([(lease, Released()) for lease in left])
        is_full = any(
            0 < want.number <= len(each.leases) for each, want in zip(claimed, wanted, strict=True)
        )
        self._fruitless = 0 if leases else self._fruitless + 1
        is_asked = not self.wants.is_partial or self._fruitless >= self.wants.rounds
        if is_full or self._has_rung or not is_asked:
            self._claim_at = now
        else:
            self._claim_at = now + self._seconds_to_due(claimed)

    def _heed(self, resources: Sequence[ResourceRecord]) -> None:
        """Say how resources stand, and take back what waits here for one that is down."""
        if resources:
            unheard = self.posts.heed(resources)
            self.take_dead([(lease, Released()) for lease in unheard])

    def _give_back(self, leases: Sequence[Lease]) -> None:
        """Release what a turn claimed that was under way when the worker was told to stop.

        Executors are leaving. One hired for it now would be killed at its work a moment
        later, and the attempt counted as a crash.
        """
        self._ended.extend((Settlement(it.job, it.token, Released()), it) for it in leases)

    def _seconds_to_due(self, claimed: Sequence[Claimed]) -> float:
        due = [each.next_due_ms / 1000 for each in claimed if each.next_due_ms is not None]
        least = FRUITLESS_SECONDS * (1 << min(self._fruitless, 8))
        return min(POLL_SECONDS, max(least, min(due, default=POLL_SECONDS)))

    # -- trouble --

    def _put_back(self, taken: Taken, error: Exception) -> None:
        """Keep outcomes for the next turn, which waits for the engine."""
        self._ended.extendleft(reversed(taken))
        self._failures += 1
        longest = min(RETRY_LONGEST_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(self._failures, 10))
        self._retry_at = time.monotonic() + longest * random.uniform(0.5, 1.0)  # noqa: S311
        if not self.is_in_trouble:
            self.is_in_trouble = True
            log.warning("the engine did not answer (%s); outcomes are kept and sent again", error)

    def _end_trouble(self) -> None:
        self._failures = 0
        if self.is_in_trouble:
            self.is_in_trouble = False
            log.warning("the engine answers again")

    async def _settle_singly(self, taken: Taken, error: Exception) -> None:
        """Find the outcome that the engine cannot store, and fail that job alone."""
        if not taken:
            self._put_back(taken, error)
        for at, (settlement, lease) in enumerate(taken):
            try:
                settled = await self.engine.arun(self.engine.settle([settlement]))
            except (EngineUnavailable, OutcomeUnknown) as away:
                self._doubtful.add(settlement.job)
                self._put_back(taken[at:], away)
                return
            except Exception as cause:  # noqa: BLE001 - as above
                self._spoil(settlement, lease, cause)
            else:
                self._tell(settled, [(settlement, lease)])
                self._heed(settled.turned)

    def _spoil(self, settlement: Settlement, lease: Lease, cause: Exception) -> None:
        outcome = settlement.outcome
        if isinstance(outcome, Failed) and outcome.reason is Reason.UNSTORABLE:
            job = uuid.UUID(bytes=lease.job)
            log.error("job %s cannot even be failed: %r; its lease will lapse", job, cause)
            return
        spoiled = spoilt(Reason.UNSTORABLE, cause)
        self._ended.append((Settlement(lease.job, lease.token, spoiled), lease))

    def _tell(self, settled: Settled, taken: Taken) -> None:
        """Say which leases were lost and which jobs are dead letters."""
        if not (settled.lost or settled.buried or self._doubtful):
            return
        by_job = {lease.job: (settlement, lease) for settlement, lease in taken}
        for job in settled.lost:
            if job not in self._doubtful:  # else the settle without an answer had done it
                self.posts.tell_lost(by_job[job][1])
        for job in settled.buried:
            settlement, lease = by_job[job]
            self.posts.tell_buried(job, lease.task, lease.queue, _reason(settlement.outcome))
        self._doubtful.difference_update(by_job)

    # -- waiting --

    async def _listen(self) -> None:
        """Hear of new work the moment it is there."""
        bell: Bell | None = None
        try:
            while True:
                try:
                    if bell is None:
                        bell = self.engine.listen(self.wants.names)
                        self.look_now()  # for what came before it could ring
                    if await bell.aheard(5.0):
                        self._has_rung = True
                        self.look_now()
                except Exception as error:  # noqa: BLE001 - a bell only makes it sooner
                    log.debug("no bell (%r); polling goes on", error)
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            if bell is not None:
                bell.close()

    async def _pause(self, seconds: float) -> None:
        """Wait for a wake-up, at most so long. Half the price of `wait_for`."""
        loop = asyncio.get_running_loop()
        self._waker = waker = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await waker
        finally:
            timer.cancel()
            self._waker = None


def _reason(outcome: Outcome) -> Reason:
    """Return why an engine buries a job that ended so."""
    match outcome:
        case Failed(reason=reason):
            return reason
        case Crashed():
            return Reason.CRASHED
        case _:
            return Reason.ATTEMPTS
