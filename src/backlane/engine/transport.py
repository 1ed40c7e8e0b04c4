"""The transport: what carries messages between processes, and nothing more.

A broker behind it keeps them until they are acknowledged; it may show one twice, or out
of order. Nothing of exchanges, topics, tags or receipt handles leaves its implementation.
All methods are coroutines of one event loop (that of the process's own broker thread),
none blocks it, and each ends by the time it was given: with an answer, or by raising.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Protocol

import msgspec

from backlane.engine.protocol import Finding


class Parcel(msgspec.Struct, frozen=True):
    """A message to be published."""

    id: str  # of the message: the job's id in its usual form
    body: bytes
    headers: Mapping[str, str] = {}
    group: str | None = None  # for brokers that share their attention out between groups
    delay_ms: int = 0  # only where `delays` says how


class Fate(Enum):
    """What became of a message that was published."""

    CONFIRMED = auto()  # the broker has it, as safely as it can
    REFUSED = auto()  # it has it not: full, or too large; `Transport.publish` says more
    UNKNOWN = auto()  # no answer in time, or the connection went: it may still arrive


class Delivery(msgspec.Struct, frozen=True):
    """A message that was received, and is this process's until acknowledged or released."""

    queue: str
    body: bytes
    id: str | None = None  # None: whoever sent it gave it none
    headers: Mapping[str, str] = {}
    group: str | None = None
    received: int = 1  # how often it was shown, as far as the broker counts
    sent_ms: int | None = None  # wall clock of the broker or sender, if known
    tag: object = None  # the transport's own


class Blocked(Exception):
    """The broker takes no messages for now (its memory or disk is short). Not a fault: wait."""


class Delays(msgspec.Struct, frozen=True):
    """Which delays a broker can keep: the levels it has (rounded up), or any up to `most_ms`."""

    levels_ms: tuple[int, ...] = ()
    most_ms: int = 0


class Terms(msgspec.Struct, frozen=True):
    """What a broker is like, as far as engines must know. Known before it is connected to."""

    name: str  # "RabbitMQ", "Amazon SQS": as it is called in messages to people
    most_bytes: int  # of one message
    batch: int  # messages that one call of it carries
    delays: Delays = Delays()
    held_ms: int = 0  # how long a delivery stays one's own unless extended; 0: while connected
    longest_ms: int = 0  # how long one can safely stay one's own at all; 0: as long as it takes
    is_ordered: bool = True  # what was published later does not arrive much earlier


class Standing(msgspec.Struct, frozen=True):
    """A queue as the broker sees it."""

    ready: int  # messages waiting, not counting those that somebody holds
    is_exact: bool = True


class Bounds(msgspec.Struct, frozen=True):
    """What a broker itself holds a queue to, where no ledger does."""

    most: int | None = None  # messages waiting
    most_bytes: int | None = None  # of their bodies
    tries: int | None = None  # how often a message is shown at most, then it goes to `dead`
    dead: str | None = None  # the queue that takes what was shown too often; None: it is dropped


class Transport(Protocol):
    """Carries messages. Queues are made when first named, with the arguments we need."""

    url: str  # with no password
    terms: Terms

    async def declare(self, queue: str, bounds: Bounds) -> None:
        """Make a queue with these bounds, now and whenever it has to be made again.

        A queue that was never declared is made when first named, and takes whatever comes;
        one that is there already is taken as it is.
        What a broker has no bound for is passed over.

        Raises:
            SchemaMismatch: it is there, and made otherwise.
            EngineUnavailable: there is no connection, or we may not.
        """

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        """Publish all, and tell of each what became of it.

        Raises:
            Blocked: the broker takes nothing now; none was published.
            EngineUnavailable: there is no connection; none was published.
        """

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        """Return up to `number` messages as soon as there is one; [] after `seconds`.

        What this process has in its hands when the connection goes is the broker's again.
        Who stops receiving from a queue loses, after a while, what was brought in advance.

        Raises:
            EngineUnavailable: there is no connection. The next call tries again.
        """

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Let the broker forget these. Those of a lost connection are passed over.

        Raises:
            EngineUnavailable: they may come again.
        """

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back: they are shown again soon. Those of a lost connection are."""

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Delivery]:
        """Keep these for so long from now; return those that are no longer ours.

        Where deliveries are held while connected, only those of a lost connection are not.
        """

    async def forget(self, queue: str) -> None:
        """Stop receiving from a queue: what was brought in advance goes back at once."""

    async def standing(self, queue: str) -> Standing:
        """Look at a queue.

        Raises:
            EngineUnavailable: there is no connection.
        """

    async def purge(self, queue: str) -> None:
        """Drop all messages of a queue that nobody holds."""

    async def diagnose(self, queues: Mapping[str, Bounds | None] = {}) -> list[Finding]:
        """Say what is wrong, or right, with the broker, our rights there, and its queues.

        `queues` are some that it may have, and should be made with these bounds; None: they
        may be made in any way. It makes none.
        """

    async def close(self) -> None:
        """Let go of the broker; what was received is given back. The next use opens anew."""
