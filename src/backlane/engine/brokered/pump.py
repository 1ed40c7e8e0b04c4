"""A pump: brings the messages of one belt into its stock, as long as somebody claims.

It keeps in hand only what will be claimed soon. What is not, for whatever reason (all
slots are taken for hours), goes back to the broker and thus to other workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from backlane.engine.brokered.belt import Belt
from backlane.engine.brokered.patience import Patience
from backlane.engine.brokered.trouble import Notice, Trouble
from backlane.engine.transport import Delivery, Transport
from backlane.errors import EngineUnavailable

log = logging.getLogger("backlane.broker")

FIRST_SECONDS = 1.0  # of a receive that is to show that the broker is there
WAIT_SECONDS = 10.0

Arrived = Callable[[Belt, Sequence[Delivery]], None]


class Pump:
    """Runs on the loop of the broker."""

    def __init__(
        self,
        belt: Belt,
        transport: Transport,
        lock: threading.Lock,
        patience: Patience,
        arrived: Arrived,
        notice: Notice,
    ) -> None:
        self.belt = belt
        self._transport, self._lock, self._patience = transport, lock, patience
        self._arrived = arrived
        self._waker = asyncio.Event()
        self._trouble = Trouble(notice)

    def wake(self) -> None:
        """There may be room again."""
        self._waker.set()

    async def serve(self) -> None:
        """Bring messages until nobody has claimed for a while."""
        try:
            await self._serve()
        finally:
            self._trouble.leave()

    async def _serve(self) -> None:
        belt = self.belt
        while True:
            now = time.monotonic()
            with self._lock:
                stale = belt.stale(now)
                is_wanted, room = belt.is_wanted(now), belt.room(now)
            if stale:
                await self.give_back(stale)
            if not is_wanted:
                break
            if room <= 0:
                await self._rest()
            else:
                await self._receive(room)
        await self.stop()

    async def stop(self) -> None:
        """Give all back that is in hand."""
        with self._lock:
            left = self.belt.emptied()
        await self.give_back(left)
        with contextlib.suppress(EngineUnavailable):
            await self._transport.forget(self.belt.name)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            with contextlib.suppress(EngineUnavailable):
                await self._transport.release(deliveries)

    async def _rest(self) -> None:
        """Wait until something was taken; what is in hand ages meanwhile."""
        self._waker.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience.held / 10):
                await self._waker.wait()

    async def _receive(self, room: int) -> None:
        belt = self.belt
        if not belt.has_answered:
            seconds = FIRST_SECONDS
        else:
            seconds = self._patience.held / 10 if belt.stock else WAIT_SECONDS
        try:
            deliveries = await self._transport.receive(belt.name, room, seconds)
        except EngineUnavailable as error:
            await self._fail(error)
        except Exception as error:
            if not self._trouble:
                log.exception("receiving from %s failed; it goes on", belt.name)
            await self._fail(error)
        else:
            belt.has_answered, belt.down_since = True, None
            self._trouble.end()
            if deliveries:
                self._arrived(belt, deliveries)

    async def _fail(self, error: Exception) -> None:
        now = time.monotonic()
        if self.belt.down_since is None:
            self.belt.down_since = now
        self._trouble.begin(error, now)
        await asyncio.sleep(max(0.0, self._trouble.resume_at - now))
