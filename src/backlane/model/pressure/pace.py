"""Pace: how fast the line of a queue moves, and what a new job will wait for.

Little's law for a line with strict priorities: a job waits until the jobs ahead of it,
at its priority or above, have been taken; more urgent work that arrives meanwhile goes
first, so it takes its share of the speed away.
"""

from __future__ import annotations

import msgspec

NEVER_MS = 2**53  # a wait without end: more urgent work takes all there is
# A longer wait is no promise that was meant, nor one that sums could hold by the thousand.
LONGEST_PROMISE_MS = 86_400_000


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
        # Compared before it is made whole: the speed of a line that stands decays towards 0.
        wait_ms = (ahead + 1) / speed * 1000 if speed > 0 else NEVER_MS
        return int(wait_ms) if wait_ms < NEVER_MS else NEVER_MS

    def latest_ms(self, expires_ms: int) -> int:
        """Return the longest wait after which a job can still be done in time."""
        return max(0, expires_ms - round(self.service_ms))

    def can_fit(self, ahead: int, within_ms: int) -> bool:
        """Whether a job with `ahead` others sent along would wait no longer than that
        in a line that is empty, and all its own."""
        if not ahead or self.starts[9] <= 0:
            return True
        return self.expected_ms(9, ahead, 0) <= within_ms
