"""A transport at a queue of its own, called from a test that knows no coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from tests.servers import rabbitmq

from backlane.engine.transport import Delivery, Fate, Parcel
from backlane.engine.transports.name import physical
from backlane.engine.transports.rabbit import Rabbit

T = TypeVar("T")
SECONDS = 10.0

_numbers = itertools.count(1)


class Bench:
    """A transport, a queue, and a loop."""

    def __init__(self, url: str, **options: object) -> None:
        self.prefix = rabbitmq.prefix()
        self.queue = physical(self.prefix, "mail")
        more = "".join(f"&{name}={value}" for name, value in options.items())
        self.url = f"{url}?prefix={self.prefix}{more}"
        self.loop = asyncio.new_event_loop()
        self.rabbit = Rabbit(self.url)
        self.others: list[Rabbit] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry a coroutine out; everything of this bench goes on meanwhile."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def other(self, url: str | None = None) -> Rabbit:
        """Return one more transport at the same broker."""
        self.others.append(Rabbit(url or self.url))
        return self.others[-1]

    def publish(self, *bodies: bytes | Parcel, seconds: float = SECONDS) -> list[Fate]:
        return self.run(self.rabbit.publish(self.queue, parcels(*bodies), seconds))

    def receive(self, number: int = 10, seconds: float = SECONDS) -> list[Delivery]:
        """Return as many, or what came within the time."""
        return self.run(receive(self.rabbit, self.queue, number, seconds))

    def bodies(self, number: int = 10, seconds: float = SECONDS) -> list[bytes]:
        """Receive and acknowledge, and return the bodies."""
        got = self.receive(number, seconds)
        self.run(self.rabbit.ack(got))
        return [it.body for it in got]

    def ready(self) -> int:
        return self.run(self.rabbit.standing(self.queue)).ready

    def pass_time(self, seconds: float) -> None:
        """Let things happen for a while."""
        self.run(asyncio.sleep(seconds))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.run(self._close())
        self.loop.close()

    async def _close(self) -> None:
        for rabbit in (self.rabbit, *self.others):
            await rabbit.close()


def parcels(*bodies: bytes | Parcel) -> list[Parcel]:
    """Return messages; those that are named by their body alone get an id."""
    return [it if isinstance(it, Parcel) else Parcel(f"id-{next(_numbers)}", it) for it in bodies]


async def receive(rabbit: Rabbit, queue: str, number: int, seconds: float) -> list[Delivery]:
    """Receive until there are as many, or the time is over."""
    until = asyncio.get_running_loop().time() + seconds
    got: list[Delivery] = []
    while len(got) < number and (left := until - asyncio.get_running_loop().time()) > 0:
        got += await rabbit.receive(queue, number - len(got), left)
    return got


def unanswered(fates: Sequence[Fate]) -> int:
    """How many there are of whom nobody knows."""
    return sum(it is Fate.UNKNOWN for it in fates)
