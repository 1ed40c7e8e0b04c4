"""Visits: one caller's time at a full queue, from the first refusal to the last.

What is left to be stored, by which try, and how long the caller will still wait for
room. A visit decides and does nothing itself, so that plain and async callers share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

from msgspec.structs import replace

from backlane.errors import QueueFull
from backlane.model.backoff import full_jitter
from backlane.model.job import Job, Receipt, Refusal
from backlane.options import Terms

# Of the bound: what callers who wait for room ask for at once. The line that they are
# told to come back to is a fifth below it.
SLICE = 5
# Those who were promised earlier places may not come back, and the line be short long
# before one's own time: so look again. The place is kept meanwhile.
LOOK_MS = 1_000


class Tally:
    """How many jobs of one call are stored by now."""

    __slots__ = ("stored",)

    def __init__(self) -> None:
        self.stored = 0


class Visit:
    """The jobs of one append, some of which may be stored before the others.

    Args:
        waits_ms: how long to wait for room without a job being let in; None: not at all.
        tally: counts what is stored; without one all jobs go in together, or none.
    """

    __slots__ = (
        "_jobs",
        "_left_ms",
        "_size",
        "_tally",
        "_tries",
        "_waits_ms",
        "receipts",
        "terms",
        "waited_ms",
    )

    def __init__(
        self, jobs: Sequence[Job], terms: Terms, waits_ms: int | None, tally: Tally | None
    ) -> None:
        self.terms = terms
        self.receipts: list[Receipt] = []
        self.waited_ms = 0
        self._jobs, self._tally = jobs, tally
        self._size = len(jobs)
        self._waits_ms, self._left_ms = waits_ms, waits_ms or 0
        self._tries = 0

    @property
    def part(self) -> Sequence[Job]:
        """The jobs of the next try: all that are left, or as many as there may be room for."""
        begin = len(self.receipts)
        return self._jobs[begin : begin + self._size]

    @property
    def is_over(self) -> bool:
        return len(self.receipts) == len(self._jobs)

    @property
    def left(self) -> int:
        """How many jobs are not stored yet."""
        return len(self._jobs) - len(self.receipts)

    @property
    def accepted(self) -> int:
        """Jobs of the whole call that are stored."""
        return self._tally.stored if self._tally else 0

    @property
    def waited(self) -> timedelta:
        return timedelta(milliseconds=self.waited_ms)

    def entered(self, receipts: list[Receipt]) -> None:
        """Take note of what was stored: that is progress, so patience begins anew."""
        self.receipts += receipts
        self.terms = replace(self.terms, ticket=None)  # it was for one place
        self._left_ms, self._tries = self._waits_ms or 0, 0
        self._size = max(1, self._size * 2)

    def cuts(self, refusal: Refusal) -> bool:
        """Ask for fewer places, where some of the jobs may fit; False: there is room for none."""
        number = len(self.part)
        if self._waits_ms is None or self._tally is None or number == 1:
            return False
        if refusal.limit == "moving":
            return False
        match refusal.limit:
            case "jobs" | "group":
                free = refusal.bound - refusal.depth
                self._size = free if 0 < free < number else _slice(refusal.bound)
            case "promised":
                self._size = _slice(refusal.bound)
            case "wait" | "deadline":
                # The last of them would wait for `depth`: so many jobs wait for `bound`.
                line = (refusal.jobs + number) * refusal.bound // max(1, refusal.depth)
                self._size = _slice(line)
            case _:
                self._size = number // 2
        self._size = min(self._size, number)
        return self._size < number

    def is_told_anew(self, full: QueueFull) -> bool:
        """Say whether this refusal tells another time than the one before."""
        return full.ticket is None or full.ticket != self.terms.ticket

    def pause_ms(self, full: QueueFull) -> int | None:
        """Return how long to wait before the next try; None: give up now.

        A time that lies beyond the caller's patience is not waited for.
        """
        self._tries += 1
        if self._waits_ms is None or not full.can_fit or self._left_ms <= 0:
            return None
        if full.retry_after is None:
            import random  # an import of us is to be quick

            draw = random.random()  # noqa: S311 - spread, not secrecy
            return min(round(full_jitter(self._tries, draw) * 1000) + 1, self._left_ms)
        self.terms = replace(self.terms, ticket=full.ticket)
        after_ms = full.retry_after // timedelta(milliseconds=1) + 1
        return min(after_ms, LOOK_MS) if after_ms <= self._left_ms else None

    def passed(self, ms: int) -> None:
        """Count time that was waited."""
        self.waited_ms += ms
        self._left_ms -= ms


# A move takes seconds as a rule; whoever comes again this often is in time, and no load.
MOVING_MS = (2_000, 4_000)


def moving(refusal: Refusal, visit: Visit) -> QueueFull:
    """Return what a caller is told while the store is being moved to another."""
    import random  # an import of us is to be quick

    after_ms = random.randint(*MOVING_MS)  # noqa: S311 - spread, not secrecy
    return QueueFull(
        refusal.queue,
        limit=refusal.limit,
        depth=refusal.depth,
        bound=refusal.bound,
        jobs=refusal.jobs,
        retry_after=timedelta(milliseconds=after_ms),
        accepted=visit.accepted,
        waited=visit.waited,
    )


shown: ContextVar[str | None] = ContextVar("backlane_ticket", default=None)
"""The ticket that whoever calls this program has shown, such as in a header of its request.
An enqueue that is given no ticket of its own uses it."""


@contextmanager
def showing(ticket: str | None) -> Iterator[None]:
    """Let enqueues within the block use the ticket that a caller has shown, if it has."""
    before = shown.set(ticket or None)
    try:
        yield
    finally:
        shown.reset(before)


def _slice(bound: int) -> int:
    return max(1, bound // SLICE)
