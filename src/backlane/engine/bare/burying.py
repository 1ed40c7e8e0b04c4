"""Burying: what will not run goes to the dead letters of its queue, with the reason.

It is published there and confirmed before it is acknowledged here, so it is in one of the
two whatever happens, and perhaps in both.
"""

from __future__ import annotations

import logging
import uuid

from msgspec.structs import replace

from backlane.engine import wire
from backlane.engine.bare.core import Core, Held
from backlane.engine.bare.line import Line
from backlane.engine.bare.routing import dead_queue
from backlane.engine.transport import Delivery, Fate, Parcel
from backlane.model.outcome import ErrorRecord, Reason

log = logging.getLogger("backlane.broker")

# What is kept of an error's text: a letter has to fit into a message.
MOST_TEXT = 16 * 1024


def dead_letter(core: Core, held: Held, reason: Reason, error: ErrorRecord) -> Parcel:
    """Return a held job as the message that its queue's dead letters get."""
    lease = held.lease
    ended = wire.Ended(
        reason=str(reason),
        at=core.clock.wall_ms(),
        queue=lease.queue,
        kind=error.kind,
        message=error.message[:MOST_TEXT],
        traceback=error.traceback[-MOST_TEXT:],
    )
    letter = replace(held.letter, dead=ended, due=None, parked=None)
    body = held.delivery.body if lease.task is None else None
    return core.parcel(lease.job, letter, body, held.headers)


async def unreadable(core: Core, line: Line, delivery: Delivery, why: str) -> None:
    """Move what is no letter to the dead letters, with its bytes as they came."""
    log.warning("a message of queue %s cannot be read, and is a dead letter: %s", line.queue, why)
    now_ms = core.clock.wall_ms()
    ended = wire.Ended(str(Reason.UNDECODABLE), now_ms, line.queue, "Unreadable", why)
    letter = wire.Letter(kind="message", enqueued=delivery.sent_ms, dead=ended)
    headers = {name: text for name, text in delivery.headers.items() if name != wire.HEADER}
    parcel = Parcel(
        delivery.id or str(uuid.uuid4()),
        delivery.body,
        {**headers, wire.HEADER: wire.written(letter).decode()},
        delivery.group,
    )
    await _moved(core, line.queue, delivery, parcel)


async def worn_out(core: Core, held: Held) -> None:
    """Move a message to the dead letters that was shown too often and never acknowledged."""
    times = held.delivery.received
    error = ErrorRecord("Shown", f"it was given to workers {times} times, and none answered")
    parcel = dead_letter(core, held, Reason.CRASHED, error)
    await _moved(core, held.lease.queue, held.delivery, parcel)


async def _moved(core: Core, queue: str, delivery: Delivery, parcel: Parcel) -> None:
    name = await core.declare(dead_queue(queue))
    fates = await core.publish(name, [parcel])
    if fates[0] is Fate.CONFIRMED:
        await core.transport.ack([delivery])
    else:
        await core.transport.release([delivery])
