"""A broker within this process, whose faults can be had at will: for tests and trials.

`MemoryBroker` is the server, `MemoryTransport` one process's connection to it. It behaves
as brokers do: a delivery is its receiver's until it is acknowledged or the connection goes,
then it is shown again, before what came later; a publish may go unanswered and arrive all
the same. What is to go wrong is said by an `Incident` for each message published.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from backlane.engine.protocol import Finding
from backlane.engine.transport import Blocked, Bounds, Delivery, Fate, Parcel, Standing, Terms
from backlane.engine.waiter import Waiter
from backlane.errors import EngineUnavailable

MOST_BYTES = 16 * 1024 * 1024


class Incident(Enum):
    """What becomes of a message on its way to the broker."""

    ARRIVED = auto()
    REFUSED = auto()
    UNANSWERED = auto()  # it arrived, and its publisher does not learn it
    LATE = auto()  # its publisher does not learn of it, and it arrives with `let_in`
    LOST = auto()  # its publisher does not learn of it, and it never arrives
    SWALLOWED = auto()  # confirmed, and lost
    DOUBLED = auto()


_FATES = {
    Incident.ARRIVED: Fate.CONFIRMED,
    Incident.DOUBLED: Fate.CONFIRMED,
    Incident.SWALLOWED: Fate.CONFIRMED,
    Incident.REFUSED: Fate.REFUSED,
}


@dataclass(slots=True, eq=False)
class _Message:
    parcel: Parcel
    at: int  # its place in line
    sent_ms: int
    received: int = 0


@dataclass(slots=True)
class _Queue:
    ready: deque[_Message] = field(default_factory=deque)
    waiters: list[Waiter] = field(default_factory=list)
    most: int | None = None


def _well(_queue: str, _parcel: Parcel) -> Incident:
    return Incident.ARRIVED


class MemoryBroker:
    """The server: what all its connections share. Its faults may be set from any thread.

    Args:
        shuffle: deliver in an order drawn from this; None: as they came.
    """

    def __init__(self, shuffle: random.Random | None = None) -> None:
        self.is_away = False  # nobody has a connection, nobody gets one
        self.is_blocked = False
        self.fate: Callable[[str, Parcel], Incident] = _well
        self.published: Counter[str] = Counter()  # how often each id was offered to it
        self.acked: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._queues: dict[str, _Queue] = {}
        self._late: list[tuple[str, Parcel]] = []
        self._places = itertools.count()
        self._shuffle = shuffle
        self._connections: list[MemoryTransport] = []

    def connect(self) -> MemoryTransport:
        """Return a new connection."""
        with self.lock:
            self._connections.append(made := MemoryTransport(self))
            return made

    def go_away(self) -> None:
        """Cut all connections and accept none, until `come_back`."""
        with self.lock:
            self.is_away = True
            for one in self._connections:
                one.cut()
            for queue in self._queues.values():
                _wake(queue)

    def come_back(self) -> None:
        self.is_away = False

    def let_in(self) -> int:
        """Let the messages arrive that were late; return how many."""
        with self.lock:
            late, self._late = self._late, []
            for name, parcel in late:
                self.put(name, parcel)
            return len(late)

    def ready(self, name: str) -> int:
        """Return how many messages wait in a queue."""
        with self.lock:
            return len(self.queue(name).ready)

    # -- for its connections, under the lock --

    def queue(self, name: str) -> _Queue:
        return self._queues.setdefault(name, _Queue())

    def take_in(self, name: str, parcel: Parcel) -> Fate:
        self.published[parcel.id] += 1
        queue = self.queue(name)
        if queue.most is not None and len(queue.ready) >= queue.most:
            return Fate.REFUSED
        incident = self.fate(name, parcel)
        match incident:
            case Incident.ARRIVED | Incident.UNANSWERED:
                self.put(name, parcel)
            case Incident.DOUBLED:
                self.put(name, parcel)
                self.put(name, parcel)
            case Incident.LATE:
                self._late.append((name, parcel))
        return _FATES.get(incident, Fate.UNKNOWN)

    def put(self, name: str, parcel: Parcel) -> None:
        queue = self.queue(name)
        queue.ready.append(_Message(parcel, next(self._places), time.time_ns() // 1_000_000))
        _wake(queue)

    def give(self, name: str, number: int) -> list[_Message]:
        ready = self.queue(name).ready
        if self._shuffle is not None and ready:
            mixed = list(ready)
            self._shuffle.shuffle(mixed)
            ready.clear()
            ready += mixed
        given = [ready.popleft() for _ in range(min(number, len(ready)))]
        for message in given:
            message.received += 1
        return given

    def take_back(self, name: str, messages: Sequence[_Message]) -> None:
        """Show messages again, each before what came later."""
        queue = self.queue(name)
        queue.ready = deque(sorted([*queue.ready, *messages], key=lambda it: it.at))
        _wake(queue)


class MemoryTransport:
    """A process's connection to a `MemoryBroker`. See `engine.transport.Transport`."""

    terms = Terms(name="the memory broker", most_bytes=MOST_BYTES, batch=1_000)

    def __init__(self, broker: MemoryBroker) -> None:
        self.url = "memory-broker://"
        self.broker = broker
        self._held: dict[_Message, str] = {}

    async def declare(self, queue: str, bounds: Bounds) -> None:
        """See `Transport.declare`: of the bounds, the number of messages is kept."""
        await self._reach()
        with self.broker.lock:
            self.broker.queue(queue).most = bounds.most

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:  # noqa: ARG002 - it answers at once
        """See `Transport.publish`."""
        await self._reach()
        with self.broker.lock:
            if self.broker.is_blocked:
                raise Blocked("the memory broker is told to be blocked")
            return [self.broker.take_in(queue, parcel) for parcel in parcels]

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        """See `Transport.receive`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            await self._reach()
            waiter = Waiter(loop)
            with self.broker.lock:
                given = self.broker.give(queue, number)
                for message in given:
                    self._held[message] = queue
                if not given:
                    self.broker.queue(queue).waiters.append(waiter)
            if given:
                return [_delivery(queue, message) for message in given]
            await asyncio.wait([waiter.future], timeout=max(0.0, until - loop.time()))
            with self.broker.lock:
                waiters = self.broker.queue(queue).waiters
                if waiter in waiters:
                    waiters.remove(waiter)
            if not waiter.future.done():
                return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Transport.ack`."""
        await self._reach()
        with self.broker.lock:
            for delivery in deliveries:
                if self._held.pop(_message(delivery), None) is not None:
                    self.broker.acked[delivery.id or ""] += 1

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `Transport.release`."""
        await asyncio.sleep(0)
        with self.broker.lock:
            self._give_back([_message(delivery) for delivery in deliveries])

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Delivery]:  # noqa: ARG002 - held while connected
        """See `Transport.extend`."""
        await asyncio.sleep(0)
        with self.broker.lock:
            return [one for one in deliveries if _message(one) not in self._held]

    async def forget(self, queue: str) -> None:
        """Nothing is brought in advance."""

    async def standing(self, queue: str) -> Standing:
        """See `Transport.standing`."""
        await self._reach()
        return Standing(self.broker.ready(queue))

    async def purge(self, queue: str) -> None:
        """See `Transport.purge`."""
        await self._reach()
        with self.broker.lock:
            self.broker.queue(queue).ready.clear()

    async def diagnose(self, queues: Mapping[str, Bounds | None] = {}) -> list[Finding]:  # noqa: ARG002 - none can be made otherwise
        """Say what it is."""
        return [
            Finding(
                subject="broker",
                state="warning",
                text="messages are kept in memory, and seen by this process alone",
                remedy="use a broker: amqp://…, sqs://…",
            )
        ]

    async def close(self) -> None:
        """See `Transport.close`."""
        self.cut()

    def cut(self) -> None:
        """Let the connection go: what it held is shown again."""
        with self.broker.lock:
            self._give_back(list(self._held))

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.broker.is_away:
            raise EngineUnavailable("the memory broker is told to be away; nothing was changed")

    def _give_back(self, messages: Sequence[_Message]) -> None:
        by_queue: dict[str, list[_Message]] = {}
        for message in messages:
            queue = self._held.pop(message, None)
            if queue is not None:
                by_queue.setdefault(queue, []).append(message)
        for queue, back in by_queue.items():
            self.broker.take_back(queue, back)


def _delivery(queue: str, message: _Message) -> Delivery:
    parcel = message.parcel
    return Delivery(
        queue=queue,
        body=parcel.body,
        id=parcel.id,
        headers=parcel.headers,
        group=parcel.group,
        received=message.received,
        sent_ms=message.sent_ms,
        tag=message,
    )


def _message(delivery: Delivery) -> _Message:
    if not isinstance(delivery.tag, _Message):
        raise TypeError("it was received by another transport")
    return delivery.tag


def _wake(queue: _Queue) -> None:
    waiters, queue.waiters = queue.waiters, []
    for waiter in waiters:
        waiter.wake()
