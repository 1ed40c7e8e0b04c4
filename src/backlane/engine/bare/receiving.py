"""Receiving: deliveries become leases, and what is no job for now is sent where it belongs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from msgspec.structs import replace

from backlane.engine import wire
from backlane.engine.bare import burying
from backlane.engine.bare.core import SHOWN_MOST, Core, Held, Waiting
from backlane.engine.bare.line import Line
from backlane.engine.bare.routing import SLIGHT_MS, can_delay
from backlane.engine.protocol import Claimed, Wanted
from backlane.engine.transport import Delivery, Fate
from backlane.errors import BacklaneError, Undecodable
from backlane.model.codec import encode_headers
from backlane.model.ids import new_id
from backlane.model.job import Lane, Lease
from backlane.model.queue import Kind


async def claim(core: Core, wanted: Wanted) -> Claimed:
    """Give leases to what is here, and have more brought."""
    if not wanted.number:
        return Claimed()
    lane = Lane.SHARED if wanted.lane is None else Lane(wanted.lane)
    lines = [core.line(queue, lane) for queue in wanted.queues]
    start = core.new_token() % len(lines) if lines else 0  # so that none is always the last
    leases: list[Lease] = []
    for line in [*lines[start:], *lines[:start]]:
        if not (line.name in core.made or await core.has(line.queue, lane)):
            continue
        taken = line.take(wanted.number - len(leases))
        line.ask(-(-(wanted.number - len(leases)) // len(lines)), len(taken))
        for delivery in await _still_ours(core, taken, wanted.lease_ms):
            lease = begin(core, line, delivery, wanted)
            if lease is not None:
                leases.append(lease)
    if leases:
        core.keep()
    elif wanted.kind is Kind.MESSAGES and lines and lines[0].trouble is not None:
        # Who works on tasks is told by a bell, sooner than by trying again; and by the log.
        raise lines[0].trouble
    return Claimed(leases=leases)


async def _still_ours(
    core: Core, taken: list[tuple[Delivery, float]], lease_ms: int
) -> list[Delivery]:
    """Extend what would not stay ours for a lease, as far as that has to be asked for."""
    held_ms = core.transport.terms.held_ms
    if not held_ms:
        return [delivery for delivery, _ in taken]
    now = time.monotonic()
    short = [
        delivery for delivery, since in taken if held_ms - (now - since) * 1000 < lease_ms * 0.75
    ]
    lost = await core.transport.extend(short, lease_ms / 1000) if short else []
    return [delivery for delivery, _ in taken if not any(delivery is one for one in lost)]


def begin(core: Core, line: Line, delivery: Delivery, wanted: Wanted) -> Lease | None:
    """Return the lease that a delivery becomes; None: it becomes none now."""
    now_ms = core.clock.wall_ms()
    is_message = wanted.kind is Kind.MESSAGES
    try:
        letter, headers = _read(delivery, is_message=is_message)
    except Undecodable as error:
        _aside(core, burying.unreadable(core, line, delivery, str(error)))
        return None
    made_ms = letter.enqueued or delivery.sent_ms or now_ms
    job = wire.job_id(letter.id or delivery.id, line.queue, made_ms) or new_id(now_ms)
    held = core.held.get(job)
    if held is not None:
        _again(held, delivery)
        return None
    if core.is_done(job, delivery) or (letter.expires is not None and letter.expires <= now_ms):
        _aside(core, core.transport.ack([delivery]))
        return None
    if letter.due is not None and letter.due - now_ms > SLIGHT_MS:
        _put_off(core, line, delivery, job, replace(letter, enqueued=made_ms), headers)
        return None
    lease = Lease(
        job,
        core.new_token(),
        delivery.received - 1 if is_message else letter.attempt,
        line.queue,
        letter.task,
        delivery.body if is_message else letter.content,
        _encoded(headers if is_message else letter.headers),
        letter.priority,
        line.lane,
        letter.policy,
        letter.group if delivery.group is None else delivery.group,
        made_ms,
        letter.expires,
        None if letter.parked is None else max(0, now_ms - letter.parked),
        letter.crashes,
    )
    until = time.monotonic() + wanted.lease_ms / 1000
    letter = replace(letter, enqueued=made_ms, due=None)
    held = Held(delivery, letter, headers, lease, line, until)
    if delivery.received > SHOWN_MOST:
        _aside(core, burying.worn_out(core, held))
        return None
    core.held[job] = held
    return lease


def _read(delivery: Delivery, *, is_message: bool) -> tuple[wire.Letter, Mapping[str, str]]:
    if is_message:
        return wire.read_message(delivery.headers)
    letter = wire.read(delivery.body)
    if letter.is_reference:
        raise Undecodable(
            "it only names a job, which the ledger of another application has: does one with "
            "a ledger share this prefix? give one of them prefix=…"
        )
    return letter, {}


def _encoded(headers: Mapping[str, str]) -> bytes | None:
    """Return headers as they are kept; those of another program may be too many."""
    try:
        return encode_headers(headers)
    except BacklaneError:
        return None


def _again(held: Held, delivery: Delivery) -> None:
    """One of this id is running. What becomes of the same message is decided with it.

    It is the same when the broker shows it again, as after a lost connection. Another is the
    copy for a retry, which may be here before the one that it replaces is acknowledged.
    """
    is_same = delivery.body == held.delivery.body and delivery.headers == held.delivery.headers
    (held.same if is_same else held.next).append(delivery)


def _put_off(
    core: Core,
    line: Line,
    delivery: Delivery,
    job: bytes,
    letter: wire.Letter,
    headers: Mapping[str, str],
) -> None:
    """Send on what came before it is due, or keep it where the broker puts nothing off."""
    now = time.monotonic()
    if not can_delay(core.transport.terms):
        left_ms = (letter.due or 0) - core.clock.wall_ms()
        core.waiting.append(Waiting(delivery, line, now + left_ms / 1000, now))
        core.keep()
        return
    body = delivery.body if letter.kind == "message" else None
    _aside(core, _hop(core, line, delivery, job, letter, body, headers))


async def _hop(  # long: each is a part of the message
    core: Core,
    line: Line,
    delivery: Delivery,
    job: bytes,
    letter: wire.Letter,
    body: bytes | None,
    headers: Mapping[str, str],
) -> None:
    fates = await core.publish(line.name, [core.parcel(job, letter, body, headers)])
    if fates[0] is Fate.CONFIRMED:
        await core.transport.ack([delivery])
    else:  # as it was; a second one, if it was published all the same, is put off as well
        await core.transport.release([delivery])


def _aside(core: Core, work: Coroutine[Any, Any, None]) -> None:
    core.aside(asyncio.ensure_future(work))
