"""Wants: what a turn claims, for which lane and which queues.

Free slots are shared out between the queues that have a limit of their own and all
others together; none is promised twice, so a worker never holds more than it asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backlane.engine.protocol import Wanted
from backlane.model.job import Lane
from backlane.worker.pacing import CLAIM_MOST


class Wants:
    """Makes the `Wanted` of a turn.

    Args:
        queues: what to claim from, with the most jobs of it to hold at a time, or None.
    """

    def __init__(self, owner: str, lease_ms: int, queues: Mapping[str, int | None]) -> None:
        self.owner, self.lease_ms = owner, lease_ms
        self.limits = {name: most for name, most in queues.items() if most is not None}
        free = tuple(name for name, most in queues.items() if most is None)
        self._groups: list[tuple[str, ...]] = [free] if free else []
        self._groups += [(name,) for name in self.limits]
        self.names = tuple(queues)
        self._turn = 0
        self.is_partial = False  # some queue was asked for less than it may give

    @property
    def rounds(self) -> int:
        """How many turns it takes until a single slot was offered to every queue."""
        return len(self._groups)

    def ask(
        self,
        free: Mapping[Lane, int],
        held: Mapping[str, int],
        departed: tuple[str, ...],
    ) -> list[Wanted]:
        """Return what to claim into `free` slots of each lane.

        `held` counts the jobs held of each queue that has a limit. With no free slot
        one `Wanted` of nothing is returned, which still hears of cancelled jobs.
        """
        self._turn += 1
        self.is_partial = False
        room = {name: most - held.get(name, 0) for name, most in self.limits.items()}
        wanted = []
        for lane, number in free.items():
            for queues, share in self._shares(min(number, CLAIM_MOST), room):
                wanted.append(self._wanted(lane, queues, share, departed))
        return wanted or [self._wanted(Lane.SHARED, self.names, 0, departed)]

    def _shares(self, number: int, room: dict[str, int]) -> list[tuple[tuple[str, ...], int]]:
        """Share `number` slots out, beginning with another group each time."""
        shares = []
        count = len(self._groups)
        for index in range(count):
            queues = self._groups[(self._turn + index) % count]
            share = -(-number // (count - index))  # what is left, evenly, rounded up
            name = queues[0]
            most = max(0, room.get(name, number))
            share = min(share, most)
            if name in room:
                room[name] -= share
            self.is_partial |= share < min(number, most)
            number -= share
            if share:
                shares.append((queues, share))
        return shares

    def _wanted(
        self, lane: Lane, queues: Sequence[str], number: int, departed: tuple[str, ...]
    ) -> Wanted:
        return Wanted(
            owner=self.owner,
            number=number,
            lease_ms=self.lease_ms,
            queues=tuple(queues),
            lane=int(lane),
            departed=departed,
        )
