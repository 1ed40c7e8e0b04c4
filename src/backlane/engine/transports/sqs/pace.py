"""The pace of an endpoint that throttles: one for all calls, for its limit is one too."""

from __future__ import annotations

import asyncio
import random
import time

FIRST_SECONDS = 0.1
MOST_SECONDS = 10.0


class Pace:
    """How long to wait before the next call: exponential, with full jitter.

    Who is throttled makes all wait, and who is not lets them go on: one call that gets
    through says more than a clock.
    """

    def __init__(self) -> None:
        self.level = 0  # how often in a row
        self._free_at = 0.0

    def throttled(self) -> None:
        """Slow down. Calls that were on their way together count as one."""
        now = time.monotonic()
        if now >= self._free_at:
            self.level += 1
            most = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.level, 16))
            self._free_at = now + random.uniform(0, most)  # noqa: S311 - no secret

    def went_well(self) -> None:
        if self.level:
            self.level -= 1

    async def turn(self, until: float) -> bool:
        """Wait until a call may be made; False: not before `until`, a monotonic time."""
        while True:
            now = time.monotonic()
            if now >= until:
                return False
            if now >= self._free_at:
                return True
            await asyncio.sleep(min(self._free_at, until) - now)


def backoff(tries: int) -> float:
    """Return the seconds before another try at what failed so often, with full jitter."""
    return random.uniform(0, min(2.0, 0.05 * 2.0**tries))  # noqa: S311 - no secret
