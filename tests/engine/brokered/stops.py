"""Stops: a transport at which a process stays for ever at the call it is told to die in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from enum import Enum, auto

from backlane.engine.protocol import Finding
from backlane.engine.transport import Bounds, Delivery, Fate, Parcel, Standing, Transport
from backlane.engine.transports.memory import MemoryTransport


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
        self.url, self.terms = transport.url, transport.terms
        self.is_there = threading.Event()

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

    def cut(self) -> None:
        if isinstance(self._transport, MemoryTransport):
            self._transport.cut()

    async def declare(self, queue: str, bounds: Bounds) -> None:
        await self._transport.declare(queue, bounds)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._transport.release(deliveries)

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Delivery]:
        return await self._transport.extend(deliveries, seconds)

    async def forget(self, queue: str) -> None:
        await self._transport.forget(queue)

    async def standing(self, queue: str) -> Standing:
        return await self._transport.standing(queue)

    async def purge(self, queue: str) -> None:
        await self._transport.purge(queue)

    async def diagnose(self, queues: Mapping[str, Bounds | None] = {}) -> list[Finding]:
        return await self._transport.diagnose(queues)

    async def close(self) -> None:
        await self._transport.close()
