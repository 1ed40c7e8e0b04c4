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

Entry = tuple[tuple[int, ...], bytes]  # where a blocked job stands among others, and its id


@dataclass(slots=True)
class Part:
    """What is known of one use."""

    held: set[bytes] = field(default_factory=set)  # jobs that run under it, or have the turn
    acquired: dict[bytes, int] = field(default_factory=dict)  # holders, until when (boot clock)
    ready: Counter[str] = field(default_factory=Counter)  # jobs by queue
    blocked: dict[str, list[Entry]] = field(default_factory=dict)  # by queue, next one first
    spent_us: int = 0


NOTHING = Part()


class Limits:
    """The limits, by name, and their parts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.declared: dict[str, Limit] = {}
        self.tuned: dict[str, Limit] = {}
        self.parts: dict[Use, Part] = {}

    def in_force(self, name: str) -> Limit | None:
        return self.tuned.get(name) or self.declared.get(name)

    def of_queue(self, queue: str) -> Use | None:
        """The use of all jobs of a queue, if it has a limit for them together."""
        limit = self.in_force(f"queue:{queue}") if self.declared else None
        return Use(f"queue:{queue}") if limit and not limit.per_group else None

    # -- room --

    def room(self, use: Use, job: bytes | None = None, running: int = 0) -> int | None:
        """How many more a use allows; None: any number. Who holds it has room.

        `running` are those that run under it without being counted as its holders.
        """
        part = self.parts.get(use, NOTHING)
        if job in part.held:
            return None
        now = self._clock.boot_ms()
        held = len(part.held) + running + sum(end > now for end in part.acquired.values())
        if use.turn:
            return max(0, 1 - held)
        limit = self.in_force(use.limit)
        rooms = []
        if limit and limit.concurrency is not None:
            rooms.append(max(0, limit.concurrency - held))
        if limit and limit.rate:
            rooms.append(tokens(part.spent_us, limit.rate, self._now_us()))
        return min(rooms, default=None)

    def line_up(self, row: Row, woken: Use | None = None) -> Use | None:
        """The first use for which a job that is in line now has to wait, if there is one.

        Turns that it finds free on the way there are its own from now on.
        """
        for use in sorted(row.job.uses, key=lambda use: not use.turn):
            part = self.parts.get(use, NOTHING)
            if row.job.id in part.held:
                continue
            room, waiting = self.room(use), part.blocked.get(row.queue)
            is_full = room is not None and part.ready[row.queue] >= room
            is_behind = waiting and waiting[0] < _entry(row, use)
            if use != woken and (is_full or is_behind):
                return use
            if use.turn:
                row.turns = (*row.turns, use)
                self.part(use).held.add(row.job.id)
        return None

    def full(self, row: Row) -> Use | None:
        """The first use for which a ready job cannot be leased, if there is one."""
        uses = row.job.uses
        return next((use for use in uses if self.room(use, row.job.id) == 0), None)

    def spend(self, row: Row) -> None:
        """A lease is given: it takes a token of each limit that the job is under."""
        own = self.of_queue(row.queue)
        for use in (own, *row.job.uses) if own else row.job.uses:
            self.spend_one(use)

    def spend_one(self, use: Use) -> None:
        limit = None if use.turn else self.in_force(use.limit)
        if limit and limit.rate:
            part = self.part(use)
            part.spent_us = spend(part.spent_us, limit.rate, 1, self._now_us())

    def token_in_ms(self, use: Use) -> int:
        """How long until the next token of a use; 0: there is one, or none is needed."""
        limit = None if use.turn else self.in_force(use.limit)
        if limit is None or limit.rate is None:
            return 0
        spent_us = self.parts.get(use, NOTHING).spent_us
        return -(-token_in_us(spent_us, limit.rate, self._now_us()) // 1000)

    def _now_us(self) -> int:
        return self._clock.wall_ms() * 1000

    # -- counting --

    def part(self, use: Use) -> Part:
        """What is known of a use, made if it is new."""
        return self.parts.setdefault(use, Part())

    def count(self, row: Row, by: int) -> None:
        """Count a row under its uses as its state says (by +1), or no more (by -1)."""
        for use in row.job.uses:
            part = self.part(use)
            if row.state is State.READY:
                part.ready[row.queue] += by
                part.ready += Counter()  # drops zeros
            elif row.state is State.RUNNING and not use.turn:
                (part.held.add if by > 0 else part.held.discard)(row.job.id)
            elif row.state is State.BLOCKED and row.blocked_on == use:
                _file(part.blocked, row, use, by)
            self.tidy(use)

    def take_in(self, row: Row) -> None:
        """A row that another store had brings the turns that it holds."""
        for use in row.turns:
            self.part(use).held.add(row.job.id)

    def let_go(self, row: Row) -> None:
        """A job has ended, or is forgotten: its turns are free."""
        turns, row.turns = row.turns, ()
        for use in turns:
            self.part(use).held.discard(row.job.id)
            self.tidy(use)

    def tidy(self, use: Use) -> None:
        """Forget a part of which nothing is to be known any more."""
        part = self.parts.get(use, NOTHING)
        is_full = part.spent_us <= self._now_us()
        if is_full and not (part.held or part.acquired or part.ready or part.blocked):
            self.parts.pop(use, None)

    # -- who waits --

    def of(self, name: str) -> list[tuple[Use, Part]]:
        """The parts of a limit, but for turns."""
        return [it for it in self.parts.items() if it[0].limit == name and not it[0].turn]

    def waited_for(self, queues: Collection[str]) -> list[Use]:
        """The uses that jobs of these queues are blocked on."""
        found = [
            it for it, part in self.parts.items() if not part.blocked.keys().isdisjoint(queues)
        ]
        return sorted(found, key=lambda use: (use.limit, use.part, use.turn))

    def waiting_queues(self, uses: Iterable[Use]) -> set[str]:
        """The queues that have jobs blocked on one of these."""
        return {queue for use in uses for queue in self.parts.get(use, NOTHING).blocked}

    def first_blocked(self, use: Use, queues: Collection[str]) -> bytes | None:
        """The job that is woken next of those blocked on a use in these queues."""
        blocked = self.parts.get(use, NOTHING).blocked
        heads = [blocked[queue][0] for queue in queues if queue in blocked]
        return min(heads)[1] if heads else None


def _entry(row: Row, use: Use) -> Entry:
    return (row.place if use.turn else row.order, row.job.id)


def _file(blocked: dict[str, list[Entry]], row: Row, use: Use, by: int) -> None:
    """Put a row among those that wait for a use, or take it from there."""
    entry, waiting = _entry(row, use), blocked.setdefault(row.queue, [])
    if by > 0:
        bisect.insort(waiting, entry)
        return
    del waiting[bisect.bisect_left(waiting, entry)]
    if not waiting:
        del blocked[row.queue]
