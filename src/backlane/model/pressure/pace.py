"""Pace: how fast the line of a queue moves, and what a new job will wait for.

Little's law for a line with strict priorities: a job waits until the jobs ahead of it,
at its priority or above, have been taken; more urgent work that arrives meanwhile goes
first, so it takes its share of the speed away.
"""

from __future__ import annotations

import msgspec

NEVER_MS = 2**53  # a wait without end: more urgent work takes all there is


class Pace(msgspec.Struct, frozen=True):
    """The speed of one queue, with the calibration of its promises in it.

    `starts` holds, for each priority 0 to 9, how many jobs of that priority a worker
    takes in a second while more urgent ones go first; 0.0 is a line that stands.
    """

    starts: tuple[float, ...]
    slots: int  # of the workers that serve it: while one is free, nobody waits
    service_ms: float = 0.0  # mean run time of a job

    def expected_ms(self, priority: int, ahead: int, running: int) -> int:
        """Return the expected wait of a new job, in milliseconds.

        `ahead` jobs are ready at its priority or above, `running` are with workers.
        One more place is waited for when all slots are taken: the next to come free.
        """
        if not ahead and running < self.slots:
            return 0
        speed = self.starts[priority]
        return min(NEVER_MS, int((ahead + 1) / speed * 1000)) if speed > 0 else NEVER_MS
