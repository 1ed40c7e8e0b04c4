"""A line: one of the broker's queues as this process receives from it.

Messages are brought on demand: as many as were asked for and not given yet, and while
jobs are short as many again, so that the next ones are here when they are asked for. What
nobody takes goes back: another process may have a free slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable

from backlane.engine.transport import Delivery, Transport
from backlane.errors import EngineUnavailable
from backlane.model.job import Lane

log = logging.getLogger("backlane.broker")

RECEIVE_SECONDS = 20.0
KEPT_SECONDS = 1.0  # what nobody asked for in this time goes back
HASTE_SECONDS = 0.1  # who asks again so soon is to find something here
AGAIN_SECONDS = 0.2
AGAIN_LONGEST_SECONDS = 1.0  # the transport pauses by itself, for as long again


class Line:
    """Receives from one queue for as long as somebody asks.

    Args:
        name: as the broker calls it.
        ring: tells who waits that there is something.
    """

    def __init__(
        self, transport: Transport, name: str, queue: str, lane: Lane, ring: Callable[[str], None]
    ) -> None:
        self.name, self.queue, self.lane = name, queue, lane
        self.trouble: EngineUnavailable | None = None  # why nothing comes
        self._transport, self._ring = transport, ring
        self._here: deque[tuple[Delivery, float]] = deque()
        self._demand = 0
        self._took_at = self._asked_at = 0.0
        self._asked = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def take(self, number: int) -> list[tuple[Delivery, float]]:
        """Return up to `number` messages that are here, with when they came."""
        here = self._here
        return [here.popleft() for _ in range(min(number, len(here)))]

    def put_back(self, delivery: Delivery) -> None:
        """Give a message that was taken to whoever asks next."""
        self._here.appendleft((delivery, time.monotonic()))
        self._ring(self.queue)

    def ask(self, number: int, taken: int) -> None:
        """Bring what was asked for and not taken; and more, where that is taken at once."""
        now = self._asked_at = time.monotonic()
        is_hasty = taken > 0 and now - self._took_at < HASTE_SECONDS
        if taken:
            self._took_at = now
        self._demand = number - taken + (2 * taken if is_hasty else 0)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._bring())
        self._asked.set()

    async def end(self) -> None:
        """Receive no more, and give back what is here."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        await self._give_back()
        with contextlib.suppress(EngineUnavailable):
            await self._transport.forget(self.name)

    async def _bring(self) -> None:
        failures = 0
        while True:
            room = self._demand - len(self._here)
            seconds = KEPT_SECONDS if self._here else RECEIVE_SECONDS
            try:
                if room <= 0 or (time.monotonic() - self._asked_at > KEPT_SECONDS and self._here):
                    await self._rest()
                    continue
                came = await self._transport.receive(self.name, room, seconds)
            except EngineUnavailable as error:
                failures += 1
                self._tell(error)
                longest = min(AGAIN_LONGEST_SECONDS, AGAIN_SECONDS * 2.0 ** min(failures, 10))
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spread
                continue
            failures, self.trouble = 0, None
            if came:
                now = time.monotonic()
                self._here.extend((delivery, now) for delivery in came)
                self._ring(self.queue)

    async def _rest(self) -> None:
        """Wait until somebody asks; give back what nobody asked for."""
        self._asked.clear()
        left = self._asked_at + KEPT_SECONDS - time.monotonic()
        try:
            await asyncio.wait_for(self._asked.wait(), max(0.01, left))
        except TimeoutError:
            self._demand = 0
            await self._give_back()
            if not self._asked.is_set():
                await self._asked.wait()

    async def _give_back(self) -> None:
        here = [delivery for delivery, _ in self._here]
        self._here.clear()
        if here:
            await self._transport.release(here)

    def _tell(self, error: EngineUnavailable) -> None:
        if self.trouble is None:
            log.warning("nothing comes of queue %s: %s", self.queue, error)
        self.trouble = error
        self._here.clear()  # the broker has them again, and who acks them would be passed over
