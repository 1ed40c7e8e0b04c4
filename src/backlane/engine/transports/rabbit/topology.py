"""What we make at a broker: queues that keep their messages on a majority of the nodes.

The arguments of a queue never change once it is made, so the names of all carry a version.
"""

from __future__ import annotations

from collections.abc import Sequence

from pamqp import commands

from backlane.engine.transport import Bounds, Delays
from backlane.engine.transports.name import VERSION
from backlane.engine.transports.rabbit import question
from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.channel import Channel
from backlane.engine.transports.rabbit.fault import NOT_FOUND, Declined, declined

LEVELS = {1_000: "1s", 10_000: "10s", 60_000: "1m", 600_000: "10m", 3_600_000: "1h"}
DELAYS = Delays(levels_ms=tuple(LEVELS))
# RabbitMQ 4 drops a message that was given back 20 times unless told otherwise. With any
# limit a message that is given back goes to the head of its queue, and not to its end.
ENDLESS = 2**31 - 1
ASK_SECONDS = 5.0
LARGEST = 16 * 1024 * 1024  # bytes of a message: the most that RabbitMQ 4 takes unless told

Arguments = dict[str, str | int]


def arguments(bounds: Bounds | None) -> Arguments:
    """Return what a queue is made with. Without bounds it keeps whatever it is given."""
    made: Arguments = {"x-queue-type": "quorum"}
    if bounds is None or bounds.tries is None:
        made["x-delivery-limit"] = ENDLESS
    else:
        made["x-delivery-limit"] = bounds.tries - 1  # it counts how often one was given back
    if bounds is None:
        return made
    if bounds.most is not None:
        made["x-max-length"] = bounds.most
    if bounds.most_bytes is not None:
        made["x-max-length-bytes"] = bounds.most_bytes
    if bounds.most is not None or bounds.most_bytes is not None or bounds.dead is not None:
        made["x-overflow"] = "reject-publish"
    if bounds.dead is not None:
        made |= _handing_on()
        made["x-dead-letter-routing-key"] = bounds.dead
    return made


def delaying(address: Address, level_ms: int) -> str:
    """Return what the queue of a delay is called, and what leads to it."""
    return f"{address.prefix}.{VERSION}.~delay.{LEVELS[level_ms]}"


def level(delay_ms: int) -> int:
    """Return the delay that is kept for one that is asked for: the next longer, or the longest."""
    return next((it for it in LEVELS if it >= delay_ms), max(LEVELS))


def _handing_on() -> Arguments:
    """A message that leaves its queue is let go only when the next one has it."""
    return {
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def declare(channel: Channel, address: Address, queue: str, bounds: Bounds | None) -> int:
    """Make a queue unless it is there; return how many messages wait in it.

    Raises:
        SchemaMismatch: it is there, with other arguments.
        EngineUnavailable: we may not, or there was no answer.
    """
    if bounds is not None and bounds.dead is not None:
        await declare(channel, address, bounds.dead, None)
    return await _declare(channel, address, queue, arguments(bounds))


async def declare_delay(channel: Channel, address: Address, level_ms: int) -> None:
    """Make the queue of a delay, which hands each message on to the queue it names.

    What leads there passes all messages on, whatever queue they are for; it is that queue's
    name with which the message is handed on when its time is over.
    """
    name = delaying(address, level_ms)
    await _declare(
        channel,
        address,
        name,
        {"x-queue-type": "quorum", "x-message-ttl": level_ms, **_handing_on()},
    )
    try:
        await channel.ask(
            question.Fan(exchange=name, exchange_type="fanout", durable=True),
            commands.Exchange.DeclareOk,
            ASK_SECONDS,
        )
        await channel.ask(
            question.Bind(queue=name, exchange=name), commands.Queue.BindOk, ASK_SECONDS
        )
    except Declined as error:
        raise declined(address, error, name) from error


async def waiting(channel: Channel, address: Address, queue: str) -> int | None:
    """Return how many messages wait in a queue; None: there is none. The channel is lost then.

    Raises:
        EngineUnavailable: there was no answer.
    """
    try:
        got = await channel.ask(
            question.Declare(queue=queue, passive=True),
            commands.Queue.DeclareOk,
            ASK_SECONDS,
        )
    except Declined as error:
        if error.code == NOT_FOUND:
            return None
        raise declined(address, error, queue) from error
    return got.message_count or 0


async def delete(channel: Channel, queues: Sequence[str]) -> None:
    """Delete queues with all that is in them."""
    for queue in queues:
        await channel.ask(question.Delete(queue=queue), commands.Queue.DeleteOk, ASK_SECONDS)


async def _declare(channel: Channel, address: Address, queue: str, wanted: Arguments) -> int:
    try:
        got = await channel.ask(
            question.Declare(queue=queue, durable=True, arguments=dict(wanted)),
            commands.Queue.DeclareOk,
            ASK_SECONDS,
        )
    except Declined as error:
        raise declined(address, error, queue) from error
    return got.message_count or 0
