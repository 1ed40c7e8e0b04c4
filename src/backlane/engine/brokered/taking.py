"""Taking: a claim by queues becomes one of the jobs whose messages have arrived.

The ledger gives what it would have given of these; what it will not give now has a
message that is of no use any more. Messages are acknowledged once it has committed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from backlane.engine.brokered.belt import Belt, Load
from backlane.engine.brokered.depot import Depot
from backlane.engine.protocol import Claimed, Wanted
from backlane.model.job import Lane
from backlane.model.queue import Kind

Taken = list[tuple[Belt, bytes, Load]]


class Taking:
    """What one carrying out of a claim (or a turn) has taken from the stock."""

    def __init__(self, depot: Depot, wanted: Sequence[Wanted]) -> None:
        self._depot = depot
        self._asked = wanted
        self._taken: list[Taken] = []
        self.wanted: list[Wanted] = []  # of the ledger
        now = time.monotonic()
        with depot.lock:
            for one in wanted:
                self.wanted.append(self._translate(one, now))

    def end(self, claimed: Sequence[Claimed]) -> list[Claimed]:
        """Sort what was taken by what became of it."""
        done = []
        for asked, taken, answer in zip(self._asked, self._taken, claimed, strict=True):
            leased = {lease.job for lease in answer.leases}
            # One that got fewer than it asked for has been refused all others.
            is_short = len(leased) < asked.number
            used = [it for it in taken if it[1] in leased]
            left = [it for it in taken if it[1] not in leased]
            self._depot.use(used)
            if is_short:
                self._depot.drop(left)
            else:
                self._depot.put_back(left)
            done.append(self._own(asked, answer) if taken else answer)
        return self._depot.tell_buried(done)

    def _own(self, asked: Wanted, answer: Claimed) -> Claimed:
        """Give back what was moved to another queue since its message was published."""
        moved = [lease for lease in answer.leases if lease.queue not in asked.queues]
        if not moved:
            return answer
        self._depot.give_back(moved)
        leases = [lease for lease in answer.leases if lease.queue in asked.queues]
        return msgspec.structs.replace(answer, leases=leases)

    def undo(self) -> None:
        """Put everything back: nobody knows what the ledger did."""
        for taken in self._taken:
            self._depot.put_back(taken)

    def _translate(self, wanted: Wanted, now: float) -> Wanted:
        self._taken.append(taken := [])
        if wanted.ids or not wanted.queues or wanted.number <= 0:
            return wanted
        belts = self._belts(wanted, now)
        extent = self._depot.extent
        each = min(wanted.number + extent.beyond, max(1, extent.claim_most // len(belts)))
        for belt in belts:
            taken += [(belt, job, load) for job, load in belt.take(each)]
        self._depot.nudge_for(belts, now)
        if taken:
            ids = tuple(job for _, job, _ in taken)
            return msgspec.structs.replace(wanted, ids=ids, queues=())
        if any(self._depot.is_cut_off(belt, now) for belt in belts):
            return wanted
        return msgspec.structs.replace(wanted, number=0)

    def _belts(self, wanted: Wanted, now: float) -> list[Belt]:
        lanes = tuple(Lane) if wanted.lane is None else (Lane(wanted.lane),)
        kind = Kind(wanted.kind)
        belts = [self._depot.belt(name, lane, kind) for name in wanted.queues for lane in lanes]
        for belt in belts:
            belt.ask(wanted.number, now)
        return belts
