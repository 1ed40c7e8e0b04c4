"""RabbitMQ as a transport: quorum queues, confirmed publishing, deliveries in advance."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from backlane.engine.protocol import Finding
from backlane.engine.transport import Bounds, Delivery, Fate, Parcel, Standing, Terms
from backlane.engine.transports.rabbit import topology
from backlane.engine.transports.rabbit.address import parse
from backlane.engine.transports.rabbit.consumer import Consumer
from backlane.engine.transports.rabbit.diagnose import diagnose
from backlane.engine.transports.rabbit.flight import WINDOW
from backlane.engine.transports.rabbit.publisher import Publisher
from backlane.errors import WrongUse

# Half of the time after which a broker takes back what is not acknowledged: 30 minutes
# unless it is told otherwise, and it looks once a minute.
LONGEST_MS = 15 * 60 * 1000


class Rabbit:
    """A `Transport` over one RabbitMQ, or a cluster of its nodes."""

    def __init__(self, url: str) -> None:
        self._address = parse(url)
        self.url = self._address.shown
        self.prefix = self._address.prefix
        self.terms = Terms(
            name="RabbitMQ",
            most_bytes=topology.LARGEST,
            batch=WINDOW,
            delays=topology.DELAYS,
            longest_ms=LONGEST_MS,
        )
        self._bounds: dict[str, Bounds] = {}
        self._publisher = Publisher(self._address, self._bounds)
        self._consumer = Consumer(self._address, self._bounds)
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._left: list[object] = []

    async def declare(self, queue: str, bounds: Bounds) -> None:
        """Make a queue with these bounds, now and whenever it has to be made again."""
        self._come_home()
        self._bounds[queue] = bounds
        await self._publisher.declare(queue)

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        """Publish all, and tell of each what became of it."""
        self._come_home()
        return await self._publisher.publish(queue, parcels, seconds)

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        """Return up to `number` messages as soon as there is one; [] after `seconds`."""
        self._come_home()
        return await self._consumer.receive(queue, number, seconds)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Let the broker forget these. Those of a lost connection are passed over."""
        await self._consumer.ack(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back: they are shown again, first."""
        await self._consumer.release(deliveries)

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Delivery]:  # noqa: ARG002
        """Return those of a lost connection: the others are ours while it lasts."""
        return self._consumer.kept(deliveries)

    async def forget(self, queue: str) -> None:
        """Stop receiving from a queue: what was brought in advance goes back at once."""
        await self._consumer.forget(queue)

    async def standing(self, queue: str) -> Standing:
        """Look at a queue."""
        self._come_home()
        return Standing(ready=await self._consumer.waiting(queue))

    async def purge(self, queue: str) -> None:
        """Drop all messages of a queue that nobody holds."""
        self._come_home()
        await self._consumer.purge(queue)

    async def diagnose(self, queues: Mapping[str, Bounds | None] = {}) -> list[Finding]:
        """Say what is wrong, or right, with the broker, our rights, and these queues."""
        return await diagnose(self._address, {**queues, **self._bounds})

    async def close(self) -> None:
        """Let go of the broker; what was received is given back. The next use opens anew."""
        if self._home == (os.getpid(), asyncio.get_running_loop()):
            await self._consumer.close()
            await self._publisher.close()
        self._home = None

    def _come_home(self) -> None:
        """Begin anew in another process, or once the loop has ended that we were in.

        Raises:
            WrongUse: it is used in another loop, and still runs here.
        """
        here = (os.getpid(), asyncio.get_running_loop())
        if self._home == here:
            return
        if self._home is not None:
            pid, loop = self._home
            if pid == here[0] and not loop.is_closed():
                raise WrongUse(
                    "this connection to RabbitMQ belongs to another event loop: close it there"
                )
            # Never closed: the sockets are the parent's as well, or gone with their loop.
            self._left += (self._publisher, self._consumer)
        self._publisher = Publisher(self._address, self._bounds)
        self._consumer = Consumer(self._address, self._bounds)
        self._home = here
