"""Resources: how their breakers stand, kept for all workers of the namespace.

What a breaker does is decided in `model.breaker`. A settle leaves what it saw beside the
breaker; here both are read, and the breaker is driven and stored if they are still what was
read, otherwise the same again. Whoever stores has told it of all that others had left, so
however many settle at once, each has to try a few times only, and nothing goes uncounted.
(What a claim may take, and the trials that it begins, are looked after in its script.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from backlane.engine.protocol import Close, Open
from backlane.engine.redis.record.sheet import encode, known, raw, text
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx
from backlane.model import breaker as breakers
from backlane.model.breaker import CLOSED, Breaker, Count, ResourceRecord, Standing, Trial
from backlane.model.outcome import (
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Succeeded,
)

READ = Script("breakers", "model")
KEEP = Script("keep_breaker", "model", "moves", "bells")

TRIES = 20  # of a store that others change meanwhile: what is left then is for the next settle


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


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """What a settle left for a breaker, behind the id of its job."""

    token: int
    outcome: int
    reason: Reason | bool = False
    kind: str = ""
    message: str = ""


_read_ended = msgspec.msgpack.Decoder(Ended).decode


class Found(msgspec.Struct, frozen=True):
    """A resource as the store has it, and what its breaker has not heard yet."""

    number: int
    name: str
    breaker: Breaker
    kept: bytes | None
    ended: list[bytes]


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
        Found(number, name.decode(), unpacked(kept), kept, ended)
        for number, name, kept, ended in zip(*(told[at::4] for at in range(4)), strict=True)
    ]
    return wall, sorted(found, key=lambda one: one.name)


async def feed(tx: RedisTx, numbers: Sequence[int]) -> list[ResourceRecord]:
    """Tell these breakers what ended; return those that turned, and those open."""
    wall, found = await read(tx, numbers)
    told = []
    for one in found:
        before, after, now = await _keep(tx, one, wall, _hear)
        if after.state is not before.state or after.state is Standing.OPEN:
            told.append(breakers.resource_record(one.name, after, now))
    return told


def _hear(one: Found, now: int) -> Breaker:
    ended = [(it[:16], _outcome(it[16:])) for it in one.ended]
    return breakers.settled(one.breaker, ended, now, breakers.draw(one.name, now))


def _outcome(left: bytes) -> Outcome:
    """Return as much of an outcome as a breaker looks at."""
    try:
        it = _read_ended(left)
    except msgspec.MsgspecError:  # damaged: it says nothing
        return Released()
    error = ErrorRecord(it.kind, it.message, "", "")
    match it.outcome, it.reason:
        case 1, _:
            return Succeeded()
        case 2, _:
            return RetryAfter(0, error)
        case 5, Reason() as reason:
            return Failed(reason, error)
        case _:
            return Released()


async def list_resources(tx: RedisTx) -> list[ResourceRecord]:
    """Return what is known of all resources, by name."""
    wall, found = await read(tx, None)
    return [breakers.resource_record(one.name, one.breaker, wall) for one in found]


async def steer(tx: RedisTx, name: str, change: Open | Close) -> ResourceRecord | None:
    """Open or close a breaker by hand."""

    def turn(one: Found, now: int) -> Breaker:
        if isinstance(change, Open):
            return breakers.opened(one.breaker, change.for_ms, now)
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
    turn: Callable[[Found, int], Breaker],
    *,
    is_rung: bool = False,
) -> tuple[Breaker, Breaker, int]:
    """Turn a breaker and store it; return how it was before and is now, and the time."""
    for _ in range(TRIES):
        before, after = one.breaker, turn(one, wall)
        if after == before and not one.ended and not is_rung:
            return before, after, wall
        has_turned = after.state is not before.state
        is_down = after.state is not Standing.CLOSED
        rings = is_rung or has_turned or bool(breakers.room(after, wall))
        kept: Any = False if one.kept is None else raw(one.kept)
        heard = len(one.ended), raw(one.ended[-1]) if one.ended else False
        _, is_done = await tx.call(
            KEEP, one.number, kept, raw(packed(after)), is_down, rings, *heard
        )
        if is_done:
            return before, after, wall
        wall, (one,) = await read(tx, [one.number])
    return one.breaker, one.breaker, wall
