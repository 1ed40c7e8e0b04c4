"""Seal: a store that is being moved takes no jobs, and gives none any more."""

from __future__ import annotations

from typing import Any

import msgspec

from backlane.engine.moving import Seal
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx

SEAL = Script("seal", "model", "moves", "bells")
SEALED = Script("sealed", "model")


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A seal as scripts can read it: bytes in hex."""

    to: str
    since_ms: int
    is_done: bool
    move: str
    mover: str
    has_settings: bool


_read = msgspec.msgpack.Decoder(Kept).decode


def read_seal(kept: bytes) -> Seal:
    """Return a seal that was kept."""
    it = _read(kept)
    return Seal(
        it.to,
        it.since_ms,
        it.is_done,
        bytes.fromhex(it.move),
        bytes.fromhex(it.mover),
        it.has_settings,
    )


async def seal(tx: RedisTx, given: Seal | None) -> Seal | None:
    """Seal or open the store; return how it was before."""
    wanted: Any = False
    if given is not None:
        move, mover = given.move.hex(), given.mover.hex()
        wanted = [given.to, 0, given.is_done, move, mover, given.has_settings]
    _, before = await tx.call(SEAL, wanted)
    return read_seal(before) if before is not None else None


async def sealed(tx: RedisTx) -> Seal | None:
    """Return whether the store is sealed."""
    kept = (await tx.call(SEALED))[1]
    return read_seal(kept) if kept is not None else None
