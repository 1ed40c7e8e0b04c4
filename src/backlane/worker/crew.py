"""The crew: threads that run plain functions, pulled from one line in batches.

One thread is enough for short functions: it takes the next job with a single pop, and
no other thread is woken for it. More threads are woken when a task is known to be slow
or to block, and when the line has not moved for two milliseconds; never more than
there are slots. Compare 29 to 42 µs a job for `run_in_executor`, one by one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from backlane.model.job import Lease
from backlane.worker.attempt import Attempt, Attempts
from backlane.worker.outbox import Outbox
from backlane.worker.verdict import Stop

UNSTARTED, STARTED, ENDED = 0, 1, 2  # what a mark says of the job at its place

SLOW_SECONDS = 0.001  # a task that takes longer gets a thread of its own at once
FLUSH_AT = 128  # outcomes: about what one turn of the dispatcher settles
IDLE_SECONDS = 60.0  # then a thread beyond need ends


class Marks(Protocol):
    """One byte a place: memory that the dispatcher can still read when we are dead."""

    def __getitem__(self, place: int, /) -> int: ...

    def __setitem__(self, place: int, mark: int, /) -> None: ...


class Slots:
    """How many attempts may run at a time. A thread holds one for as long as it works."""

    __slots__ = ("_lock", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            if self.free <= 0:
                return False
            self.free -= 1
            return True

    def give(self) -> None:
        with self._lock:
            self.free += 1


class Running:
    """The attempts of one executor by place, and what was asked of them."""

    __slots__ = ("_early", "attempts", "keep", "marks")

    def __init__(self, marks: Marks, keep: Callable[..., None]) -> None:
        self.marks = marks
        self.keep = keep
        self.attempts: dict[int, Attempt] = {}
        self._early: dict[int, tuple[int, Stop]] = {}

    def add(self, lease: Lease, place: int) -> Attempt:
        """Make an attempt of a job that has its slot and is about to start."""
        attempt = Attempt(lease, self.keep, place)
        if self._early:
            token, why = self._early.pop(place, (0, None))
            if token == lease.token:
                attempt.stop = why
        self.attempts[place] = attempt
        return attempt

    def end(self, attempt: Attempt) -> None:
        """Mark a job as ended: whatever happens now, it was not its doing."""
        self.marks[attempt.place] = ENDED
        self.attempts.pop(attempt.place, None)

    def halt_early(self, place: int, token: int, why: Stop) -> None:
        """Remember a request to stop for a job that a thread is about to start."""
        self._early[place] = (token, why)

    def expect(self, place: int) -> None:
        """Make a place ready for a job that has arrived."""
        self.marks[place] = UNSTARTED
        if self._early:
            self._early.pop(place, None)


class Crew:
    """Threads that work through `line`, each holding a slot while it does.

    Args:
        slots: shared with the attempts of the event loop.
        is_wanted_back: says whether somebody else waits for a thread's slot.
        on_rest: called by a thread that has given its slot back.
    """

    def __init__(
        self,
        attempts: Attempts,
        slots: Slots,
        running: Running,
        outbox: Outbox,
        *,
        is_wanted_back: Callable[[], bool],
        on_rest: Callable[[], None],
    ) -> None:
        self._attempts, self._slots = attempts, slots
        self._running, self._outbox = running, outbox
        self._is_wanted_back, self._on_rest = is_wanted_back, on_rest
        self.line: deque[tuple[Lease, int]] = deque()
        self.taken = 0  # how often the line has moved
        self._seconds: dict[str | None, float] = {}  # how long slow tasks take, smoothed
        self._lock = threading.Lock()
        self._idle: list[_Seat] = []
        self._working = 0

    def add(self, jobs: list[tuple[Lease, int]]) -> None:
        """Put jobs in the line and wake the threads they are known to need."""
        self.line.extend(jobs)
        known = self._seconds
        slow = 0
        if known:
            slow = sum(known.get(lease.task, 0.0) >= SLOW_SECONDS for lease, _ in jobs)
        self.wake(max(slow, 0 if self._working else 1))

    def ensure(self) -> None:
        """See to it that somebody works while jobs wait."""
        if self.line and not self._working:
            self.wake(1)

    def wake(self, number: int) -> None:
        """Put up to `number` more threads to work, as far as slots and jobs go."""
        with self._lock:
            for _ in range(min(number, len(self.line))):
                if not self._slots.take():
                    return
                self._working += 1
                if self._idle:
                    self._idle.pop().called.release()
                else:
                    self._hire()

    def help(self) -> None:
        """Double the working threads: the line has not moved."""
        self.wake(max(1, self._working))

    def _hire(self) -> None:
        seat = _Seat()
        threading.Thread(
            target=self._sit, args=(seat,), name="backlane-thread", daemon=True
        ).start()

    def _sit(self, seat: _Seat) -> None:
        """Be a thread: work, rest, work when called; end when not called for long."""
        while True:
            if self._work(seat) or not self._rest(seat):
                return

    def _work(self, seat: _Seat) -> bool:
        """Run jobs until none waits; True when this thread was replaced meanwhile."""
        line, outbox, running = self.line, self._outbox, self._running
        run, known, marks = self._attempts.run, self._seconds, running.marks
        while True:
            try:
                lease, place = line.popleft()
            except IndexError:
                if self._may_rest(seat):
                    return False
                continue
            self.taken += 1
            seconds = known.get(lease.task, 0.0) if known else 0.0
            # An outcome must not wait behind a long job of the same thread.
            if outbox and (seconds >= SLOW_SECONDS or not line or len(outbox) >= FLUSH_AT):
                outbox.flush()
            attempt = running.add(lease, place)
            marks[place] = STARTED  # from here on, a death of the process is a crash of it
            settlement = run(attempt)
            running.end(attempt)
            outbox.forget(lease.job)
            outbox.put(settlement)
            if seconds or settlement.ran_ms:
                known[lease.task] = seconds + 0.2 * (settlement.ran_ms / 1000 - seconds)
            if attempt.is_replaced:  # its slot went to another: one thread too many now
                return self._leave()
            if line and self._is_wanted_back() and self._may_rest(seat, even_if_busy=True):
                return False

    def _may_rest(self, seat: _Seat, *, even_if_busy: bool = False) -> bool:
        """Give the slot back, unless a job has come in the very moment."""
        self._outbox.flush()
        with self._lock:
            if self.line and not even_if_busy:
                return False
            self._working -= 1
            self._idle.append(seat)
            self._slots.give()
        self._on_rest()
        return True

    def _leave(self) -> bool:
        self._outbox.flush()
        with self._lock:
            self._working -= 1
        self._on_rest()
        return True

    def _rest(self, seat: _Seat) -> bool:
        """Wait to be called; False when the thread is to end."""
        while not seat.called.acquire(timeout=IDLE_SECONDS):
            with self._lock:
                if seat in self._idle and len(self._idle) > 1:
                    self._idle.remove(seat)
                    return False
        return True


class _Seat:
    """Where one thread waits: a lock is the cheapest thing to wait on."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        self.called = threading.Lock()
        self.called.acquire()
