"""Stops: a transport at which a process stays for ever at the call it is told to die in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from backlane.engine.transport import Delivery, Fate, Parcel, Transport


class Stop(Enum):
    BEFORE_PUBLISH = auto()
    AFTER_PUBLISH = auto()  # the broker has it, its answer is not heard
    AFTER_RECEIVE = auto()
    BEFORE_ACK = auto()
    AFTER_ACK = auto()


class Stopping:
    """A connection to a broker with one such call."""

    def __init__(self, transport: Transport, stop: Stop) -> None:
        self._transport, self._stop = transport, stop
        self.is_there = threading.Event()

    def __getattr__(self, name: str) -> Any:
        """All other calls pass through."""
        return getattr(self._transport, name)

    async def _pass(self, stop: Stop) -> None:
        if stop is self._stop:
            self.is_there.set()
            await asyncio.Event().wait()

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        await self._pass(Stop.BEFORE_PUBLISH)
        fates = await self._transport.publish(queue, parcels, seconds)
        await self._pass(Stop.AFTER_PUBLISH)
        return fates

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        received = await self._transport.receive(queue, number, seconds)
        if received:
            await self._pass(Stop.AFTER_RECEIVE)
        return received

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._pass(Stop.BEFORE_ACK)
        await self._transport.ack(deliveries)
        await self._pass(Stop.AFTER_ACK)
