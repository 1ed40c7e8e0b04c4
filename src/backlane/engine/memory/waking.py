"""Waking: what a claim does about limits before it takes jobs, and while it does."""

from __future__ import annotations

from dataclasses import dataclass

from backlane.engine.memory.row import Row
from backlane.engine.memory.store import Store
from backlane.engine.protocol import Wanted
from backlane.model.job import State

MOVES = 1_000  # jobs a claim wakes at most, and as many that it finds without room


@dataclass(slots=True)
class Waking:
    """What one claim wakes, and lets wait."""

    store: Store
    queues: list[str]  # that it wants, and that may give
    woken: int = 0
    stopped: int = 0

    @property
    def is_at_its_end(self) -> bool:
        return self.stopped >= MOVES

    def wake(self) -> None:
        """Make blocked jobs ready, as many as there is room for."""
        store, limits = self.store, self.store.limits
        queues = [queue for queue in self.queues if has_room(store, queue)]
        for use in limits.waited_for(queues):
            room = limits.room(use)
            ready = sum(limits.part(use).ready[queue] for queue in queues)
            left = MOVES if room is None else room - ready
            while left > 0 and self.woken < MOVES and (job := limits.first_blocked(use, queues)):
                row = store.rows[job]
                store.wake(row)
                self.woken += 1
                left -= row.state is State.READY or use.turn  # a turn is had, come what may

    def stop(self, row: Row) -> bool:
        """Let a ready job wait if a use of it has no room; return whether it does."""
        use = self.store.limits.full(row) if row.job.uses else None
        if use:
            self.store.block(row, use)
            self.stopped += 1
        return use is not None

    def next_token_ms(self) -> int | None:
        """Until what waits for a token may have it; 0: there is more to be moved."""
        if MOVES in (self.woken, self.stopped):
            return 0
        store, limits = self.store, self.store.limits
        uses = limits.waited_for(self.queues)
        lines = [it for it in self.queues if store.lines[it].held[State.READY]]
        lines += [  # woken, they wait for it; without room they are not woken
            queue
            for queue in self.queues
            if any(limits.room(use) != 0 for use in limits.waited_for([queue]))
        ]
        uses += [own for queue in lines if (own := limits.of_queue(queue))]
        return min((ms for use in uses if (ms := limits.token_in_ms(use))), default=None)


def waking(store: Store, wanted: Wanted) -> Waking:
    """Begin with the queues that a claim wants, and that may give."""
    names = wanted.queues
    if wanted.ids:
        names = tuple(store.rows[job].queue for job in wanted.ids if job in store.rows)
    lines = [store.lines[name] for name in dict.fromkeys(names) if name in store.lines]
    return Waking(
        store, [line.name for line in lines if line.kind is wanted.kind and not line.paused]
    )


def has_room(store: Store, queue: str) -> bool:
    """Whether the queue's own limit allows one more."""
    own = store.limits.of_queue(queue)
    running = store.lines[queue].held[State.RUNNING]
    return own is None or store.limits.room(own, running=running) != 0
