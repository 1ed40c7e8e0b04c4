"""Workers: who announced itself, and who said that it is gone.

Redis has no session that ends with its owner, so a lease ends by time, whatever became
of who holds it. Only an owner that says farewell itself is known to be gone at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from backlane.engine.protocol import Presence, WorkerRecord
from backlane.engine.redis.record.sheet import encode, raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.errors import BacklaneError

ANNOUNCE = Script("announce", "model", "schedules")
LIST = Script("list_workers", "model")
FAREWELL = Script("farewell", "model")
DEPARTED = Script("departed", "model")

_read = msgspec.msgpack.Decoder(Presence).decode


class Present(NamedTuple):
    """A worker as the store keeps it."""

    presence: Presence
    since: int  # wall clock
    beat: int  # boot clock of the store


async def announce(tx: RedisTx, presence: Presence) -> None:
    """Keep that a worker is there, or forget it."""
    kept: Any = False if presence.leaving else raw(encode(presence))
    await tx.call(ANNOUNCE, presence.owner, kept)


async def list_workers(tx: RedisTx) -> list[WorkerRecord]:
    """Return the workers that announced themselves."""
    _, boot, kept = await tx.call(LIST)
    return [
        WorkerRecord(
            owner=one.presence.owner,
            host=one.presence.host,
            pid=one.presence.pid,
            queues=one.presence.queues,
            slots=one.presence.slots,
            running=one.presence.running,
            started_ms=one.since,
            beat_age_ms=max(0, boot - one.beat),
        )
        for one in read_present(kept)
    ]


def read_present(kept: Sequence[Any]) -> list[Present]:
    """Return workers as scripts tell of them: kept, beat, kept, beat."""
    return [
        Present(_read(one[8:]), int.from_bytes(one[:8]), beat)
        for one, beat in zip(kept[::2], kept[1::2], strict=True)
        if one is not None
    ]


async def farewell(tx: RedisTx, owner: str) -> None:
    """Note that an owner is gone."""
    await tx.call(FAREWELL, owner)


async def departed(tx: RedisTx) -> tuple[str, ...]:
    """Return owners of leases that said farewell, by name."""
    _, owners = await tx.call(DEPARTED)
    return tuple(sorted(owner.decode() for owner in owners))


class RedisEnlisted:
    """A sign of life that an owner takes back itself, or that ends with its leases.

    Args:
        owner: of leases.
        say_farewell: tells the store; may raise, and then the leases end by time.
    """

    descriptors: tuple[int, ...] = ()  # nothing that a process could hold open

    def __init__(self, owner: str, say_farewell: Callable[[str], None]) -> None:
        self._owner = owner
        self._say_farewell = say_farewell
        self._is_closed = False

    def close(self) -> None:
        """Give the sign of life up."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._say_farewell(self._owner)
        except BacklaneError:
            return  # the server is away: the leases end by time
