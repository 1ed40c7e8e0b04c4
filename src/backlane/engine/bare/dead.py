"""Dead letters at a broker: looked at, and sent back, some at a time.

A broker gives messages and takes them back; it cannot search. So who looks has them in its
hands for a moment, in which another who looks does not see them.
"""

from __future__ import annotations

import time

import msgspec
from msgspec.structs import replace

from backlane.engine import wire
from backlane.engine.bare.core import Core
from backlane.engine.bare.routing import dead_queue, living_queue
from backlane.engine.transport import Delivery, Fate, Parcel
from backlane.errors import Undecodable

FIRST_SECONDS = 1.0  # until a dead letter comes, if there is one
NEXT_SECONDS = 0.2
BATCH = 100


class Dead(msgspec.Struct, frozen=True):
    """A dead letter: whose it was, and why. `reason` is "unknown" of what the broker buried."""

    id: str | None
    task: str | None
    queue: str  # where it goes back to
    reason: str
    error: str
    at_ms: int | None
    attempts: int
    body: bytes


async def list_dead(core: Core, queue: str, number: int) -> list[Dead]:
    """Look at up to so many, the oldest first; they stay where they are."""
    taken = await _taken(core, queue, number)
    try:
        return [_read(queue, delivery)[0] for delivery in taken]
    finally:
        await core.transport.release(taken)


async def redrive_dead(core: Core, queue: str, number: int) -> int:
    """Send up to so many back to the queue they were in, their attempts forgotten.

    Each is published there and confirmed before it leaves here. Those that the queue has no
    room for stay. Return how many went.
    """
    went = 0
    while went < number:
        taken = await _taken(core, queue, min(BATCH, number - went))
        if not taken:
            break
        by_queue: dict[str, list[tuple[Delivery, Parcel]]] = {}
        for delivery in taken:
            dead, letter, headers = _read(queue, delivery)
            by_queue.setdefault(dead.queue, []).append(
                (delivery, _alive(delivery, letter, headers))
            )
        gone: list[Delivery] = []
        for name, part in by_queue.items():
            there = await core.declare(name)
            fates = await core.publish(there, [parcel for _, parcel in part])
            gone += [
                delivery
                for (delivery, _), fate in zip(part, fates, strict=True)
                if fate is Fate.CONFIRMED
            ]
        await core.transport.ack(gone)
        went += len(gone)
        if len(gone) < len(taken):
            left = [one for one in taken if not any(one is other for other in gone)]
            await core.transport.release(left)
            break
    await core.transport.forget(core.name(dead_queue(queue)))
    return went


async def _taken(core: Core, queue: str, number: int) -> list[Delivery]:
    name = await core.declare(dead_queue(queue))
    standing = await core.transport.standing(name)
    if standing.is_exact and not standing.ready:
        return []
    taken: list[Delivery] = []
    seconds, until = FIRST_SECONDS, time.monotonic() + FIRST_SECONDS * 5
    while len(taken) < number and time.monotonic() < until:
        came = await core.transport.receive(name, number - len(taken), seconds)
        if not came:
            break
        taken += came
        seconds = NEXT_SECONDS
    return taken


def _read(queue: str, delivery: Delivery) -> tuple[Dead, wire.Letter | None, dict[str, str]]:
    """Return a dead letter, its letter if it has one, and the headers of a raw message."""
    letter: wire.Letter | None
    headers = {name: text for name, text in delivery.headers.items() if name != wire.HEADER}
    try:
        if wire.HEADER in delivery.headers:
            letter, headers = wire.read_message(delivery.headers)
        else:
            letter = wire.read(delivery.body)
    except Undecodable:
        letter = None
    ended = None if letter is None else letter.dead
    if letter is None or ended is None:  # by the broker, which says no more
        task = None if letter is None else letter.task
        told = Dead(delivery.id, task, living_queue(queue), "unknown", "", None, 0, delivery.body)
        return told, letter, headers
    error = f"{ended.kind}: {ended.message}" if ended.kind else ended.message
    body = delivery.body if letter.task is None else letter.content
    told = Dead(
        letter.id or delivery.id,
        letter.task,
        living_queue(ended.queue),
        ended.reason,
        error,
        ended.at,
        letter.attempt,
        body,
    )
    return told, letter, headers


def _alive(delivery: Delivery, letter: wire.Letter | None, headers: dict[str, str]) -> Parcel:
    """Return a dead letter as it was before its attempts."""
    job = delivery.id or ""
    if letter is None:
        return Parcel(job, delivery.body, headers, delivery.group)
    fresh = replace(letter, dead=None, attempt=0, crashes=0, due=None, parked=None)
    if letter.kind == "task":
        return Parcel(letter.id or job, wire.written(fresh), {}, letter.group)
    if letter.id is None:  # of another program: as it came
        return Parcel(job, delivery.body, headers, delivery.group)
    own = {**headers, wire.HEADER: wire.written(fresh).decode()}
    return Parcel(letter.id, delivery.body, own, letter.group)
