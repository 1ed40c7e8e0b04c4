"""Resources: how their breakers stand, kept for all workers of the namespace.

What a breaker does is decided in `model.breaker`. Here it is read, driven with what a
settle saw, and stored if it is still the one that was read; otherwise the same again.
(What a claim may take, and the trials that it begins, are looked after in its script.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from backlane.engine.protocol import Close, Open
from backlane.engine.redis.script import Script
from backlane.engine.redis.sheet import encode, known, raw, text
from backlane.engine.redis.transaction import RedisTx
from backlane.model import breaker as breakers
from backlane.model.breaker import CLOSED, Breaker, Count, ResourceRecord, Standing, Trial
from backlane.model.outcome import Outcome

READ = Script("breakers", "model")
KEEP = Script("keep_breaker", "model", "moves", "bells")

TRIES = 20  # of a store that others change meanwhile; what is lost then is a count


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A breaker as scripts can read it: ids in hex, False for None."""

    state: Standing
    since_ms: int
    for_ms: int | bool
    reason: str | bool
    trips: int
    counts: tuple[Count, ...]
    in_a_row: int
    round: int
    passed: int
    trials: tuple[tuple[str, int], ...]


_read = msgspec.msgpack.Decoder(Kept).decode


class Found(msgspec.Struct, frozen=True):
    """A resource as the store has it."""

    number: int
    name: str
    breaker: Breaker
    kept: bytes | None


def packed(breaker: Breaker) -> bytes:
    """Return a breaker as it is kept."""
    return encode(
        Kept(
            breaker.state,
            breaker.since_ms,
            False if breaker.for_ms is None else breaker.for_ms,
            False if breaker.reason is None else breaker.reason,
            breaker.trips,
            breaker.counts,
            breaker.in_a_row,
            breaker.round,
            breaker.passed,
            tuple((trial.job.hex(), trial.at_ms) for trial in breaker.trials),
        )
    )


def unpacked(kept: bytes | None) -> Breaker:
    """Return a breaker that was kept. A damaged one reads as closed: work must go on."""
    if kept is None:
        return CLOSED
    try:
        it = _read(kept)
        trials = tuple(Trial(bytes.fromhex(job), at_ms) for job, at_ms in it.trials)
    except (msgspec.MsgspecError, ValueError):
        return CLOSED
    return Breaker(
        it.state,
        it.since_ms,
        known(it.for_ms),
        text(it.reason),
        it.trips,
        it.counts,
        it.in_a_row,
        it.round,
        it.passed,
        trials,
    )


async def read(tx: RedisTx, which: Sequence[int | str] | None) -> tuple[int, list[Found]]:
    """Return the wall clock, and these resources (all, for None) by name."""
    wall, told = await tx.call(READ, False if which is None else list(which))
    found = [
        Found(number, name.decode(), unpacked(kept), kept)
        for number, name, kept in zip(*(told[at::3] for at in range(3)), strict=True)
    ]
    return wall, sorted(found, key=lambda one: one.name)


async def feed(
    tx: RedisTx, ended: Mapping[int, Sequence[tuple[bytes, Outcome]]]
) -> list[ResourceRecord]:
    """Tell breakers what ended, by number; return those that turned, and those open."""
    if not ended:
        return []
    wall, found = await read(tx, list(ended))
    told = []
    for one in found:

        def turn(breaker: Breaker, now: int, one: Found = one) -> Breaker:
            return breakers.settled(breaker, ended[one.number], now, breakers.draw(one.name, now))

        before, after, now = await _keep(tx, one, wall, turn)
        if after.state is not before.state or after.state is Standing.OPEN:
            told.append(breakers.resource_record(one.name, after, now))
    return told


async def list_resources(tx: RedisTx) -> list[ResourceRecord]:
    """Return what is known of all resources, by name."""
    wall, found = await read(tx, None)
    return [breakers.resource_record(one.name, one.breaker, wall) for one in found]


async def steer(tx: RedisTx, name: str, change: Open | Close) -> ResourceRecord | None:
    """Open or close a breaker by hand."""

    def turn(breaker: Breaker, now: int) -> Breaker:
        if isinstance(change, Open):
            return breakers.opened(breaker, change.for_ms, now)
        return breakers.closed(now)

    wall, found = await read(tx, [name])
    for one in found:
        _, after, now = await _keep(tx, one, wall, turn, is_rung=True)
        return breakers.resource_record(name, after, now)
    return None


async def _keep(
    tx: RedisTx,
    one: Found,
    wall: int,
    turn: Callable[[Breaker, int], Breaker],
    *,
    is_rung: bool = False,
) -> tuple[Breaker, Breaker, int]:
    """Turn a breaker and store it; return how it was before and is now, and the time."""
    for _ in range(TRIES):
        before, after = one.breaker, turn(one.breaker, wall)
        if after == before and not is_rung:
            return before, after, wall
        has_turned = after.state is not before.state
        is_down = after.state is not Standing.CLOSED
        rings = is_rung or has_turned or bool(breakers.room(after, wall))
        kept: Any = False if one.kept is None else raw(one.kept)
        _, is_done = await tx.call(KEEP, one.number, kept, raw(packed(after)), is_down, rings)
        if is_done:
            return before, after, wall
        wall, (one,) = await read(tx, [one.number])
    return one.breaker, one.breaker, wall
