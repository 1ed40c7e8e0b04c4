"""Limits: what jobs hold and wait for, and what room there is."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from backlane.engine.memory.row import Row
from backlane.model.clock import Clock
from backlane.model.job import State
from backlane.model.limit import Limit, Use, spend, token_in_us, tokens

Waiting = list[tuple[tuple[int, ...], bytes]]  # blocked jobs in the order they are woken


@dataclass(slots=True)
class Part:
    """What is known of one use."""

    held: set[bytes] = field(default_factory=set)  # jobs that run under it (a turn: hold it)
    acquired: dict[bytes, int] = field(default_factory=dict)  # holders, until when (boot clock)
    ready: Counter[str] = field(default_factory=Counter)  # jobs by queue
    blocked: dict[str, Waiting] = field(default_factory=dict)  # jobs by queue
    spent_us: int = 0


class Limits:
    """The limits, by name, and their parts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.declared: dict[str, Limit] = {}
        self.tuned: dict[str, Limit] = {}
        self.parts: dict[Use, Part] = {}

    def in_force(self, name: str) -> Limit | None:
        return self.tuned.get(name) or self.declared.get(name)

    def part(self, use: Use) -> Part:
        """What is known of a use, made if it is new."""
        return self.parts.setdefault(use, Part())

    def uses(self, row: Row) -> tuple[Use, ...]:
        """All that a job is under, its queue's own limit first."""
        own = self.of_queue(row.queue)
        return (own, *row.job.uses) if own else row.job.uses

    def of_queue(self, queue: str) -> Use | None:
        """The use of all jobs of a queue, if it has a limit for all of them."""
        limit = self.in_force(f"queue:{queue}")
        return Use(f"queue:{queue}") if limit and not limit.per_group else None

    # -- room --

    def room(self, use: Use, job: bytes | None = None, running: int = 0) -> int | None:
        """How many more a use allows; None: any number. Who holds it has room.

        `running` are those that run under it without being counted as its holders.
        """
        part = self.parts.get(use, Part())
        if job in part.held:
            return None
        held = len(part.held) + running + self._acquired(part)
        if use.turn:
            return max(0, 1 - held)
        limit = self.in_force(use.limit)
        rooms = []
        if limit and limit.concurrency is not None:
            rooms.append(max(0, limit.concurrency - held))
        if limit and limit.rate:
            rooms.append(tokens(part.spent_us, limit.rate, self._now_us()))
        return min(rooms, default=None)

    def first_full(self, row: Row) -> Use | None:
        """The first use for which a job that is in line now has to wait."""
        for use in row.job.uses:
            part = self.parts.get(use)
            room = self.room(use, row.job.id)
            is_ahead = part and row.job.id not in part.held and part.blocked.get(row.queue)
            ready = part.ready[row.queue] if part else 0
            if (room is not None and ready >= room) or is_ahead:
                return use
        return None

    def take(self, row: Row) -> None:
        """A lease is given: its tokens are spent, and its turns are held."""
        for use in self.uses(row):
            limit = None if use.turn else self.in_force(use.limit)
            if use.turn and use not in row.turns:
                row.turns = (*row.turns, use)
                self.part(use).held.add(row.job.id)
            elif limit and limit.rate:
                part = self.part(use)
                part.spent_us = spend(part.spent_us, limit.rate, 1, self._now_us())

    def token_in_ms(self, use: Use) -> int:
        """How long until the next token of a use; 0: there is one, or none is needed."""
        limit = None if use.turn else self.in_force(use.limit)
        if limit is None or limit.rate is None:
            return 0
        spent_us = self.parts[use].spent_us if use in self.parts else 0
        return -(-token_in_us(spent_us, limit.rate, self._now_us()) // 1000)

    def _acquired(self, part: Part) -> int:
        now = self._clock.boot_ms()
        return sum(end_ms > now for end_ms in part.acquired.values())

    def _now_us(self) -> int:
        return self._clock.wall_ms() * 1000

    # -- counting --

    def count(self, row: Row, by: int) -> None:
        """Count a row under its uses as its state says (by +1), or no more (by -1)."""
        for use in row.job.uses:
            part = self.part(use)
            if row.state is State.READY:
                part.ready[row.queue] += by
            elif row.state is State.RUNNING and not use.turn:
                (part.held.add if by > 0 else part.held.discard)(row.job.id)
            elif row.state is State.BLOCKED and row.blocked_on == use:
                _file(part.blocked, row, by)
            self._tidy(use, part)

    def let_go(self, row: Row) -> None:
        """A job has ended, or is forgotten: its turns are free."""
        turns, row.turns = row.turns, ()
        for use in turns:
            part = self.part(use)
            part.held.discard(row.job.id)
            self._tidy(use, part)

    def _tidy(self, use: Use, part: Part) -> None:
        """Forget a part of which nothing is to be known any more."""
        part.ready += Counter()  # drops zeros
        is_full = part.spent_us <= self._now_us()
        if is_full and not (part.held or part.acquired or part.ready or part.blocked):
            del self.parts[use]

    # -- who waits --

    def queues_blocked_on(self, uses: Iterable[Use]) -> set[str]:
        return {queue for use in uses if use in self.parts for queue in self.parts[use].blocked}

    def first_blocked(self, use: Use, queues: Collection[str]) -> bytes | None:
        """The job that is woken next of those blocked on a use in these queues."""
        blocked = self.parts[use].blocked if use in self.parts else {}
        heads = [blocked[queue][0] for queue in queues if queue in blocked]
        return min(heads)[1] if heads else None


def _file(blocked: dict[str, Waiting], row: Row, by: int) -> None:
    """Put a row among those that wait for what it is blocked on, or take it from there."""
    is_turn = row.blocked_on is not None and row.blocked_on.turn
    entry = (row.place if is_turn else row.order, row.job.id)
    waiting = blocked.setdefault(row.queue, [])
    if by > 0:
        bisect.insort(waiting, entry)
        return
    del waiting[bisect.bisect_left(waiting, entry)]
    if not waiting:
        del blocked[row.queue]
