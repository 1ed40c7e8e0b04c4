"""What is wrong, or right, with a broker: each finding says what mends it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from pamqp import commands

from backlane.engine.protocol import Finding
from backlane.engine.transport import Bounds
from backlane.engine.transports.name import VERSION
from backlane.engine.transports.rabbit import frame, question, topology
from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.connection import Connection, connect
from backlane.engine.transports.rabbit.fault import Declined, declined
from backlane.engine.transports.rabbit.properties import Header
from backlane.errors import EngineUnavailable, SchemaMismatch

SECONDS = 5.0
OLDEST = (3, 10)


async def diagnose(address: Address, queues: Mapping[str, Bounds | None]) -> list[Finding]:
    """Look at the broker, at our rights, and at queues; None: one may be made in any way."""
    found: list[Finding] = []
    connection = None
    for host in address.hosts:
        try:
            made = await connect(address, host, "doctor")
        except EngineUnavailable as error:
            found.append(_bad("RabbitMQ", str(error)))
            continue
        found.append(Finding(subject="RabbitMQ", state="ok", text=f"{made.place} answers"))
        if connection is None:
            connection = made
        else:
            await made.close()
    if connection is None:
        return found
    try:
        found.append(_version(connection))
        may = await _rights(connection, address)
        found += may
        if all(it.state == "ok" for it in may):
            found += _alarms(connection)
            for queue, wanted in queues.items():
                found += await _queue(connection, address, queue, wanted)
    except EngineUnavailable as error:
        found.append(_bad("RabbitMQ", str(error)))
    finally:
        await connection.close()
    return found


def _version(connection: Connection) -> Finding:
    text = connection.version or "unknown"
    parts = tuple(int(it) for it in text.split("-")[0].split(".") if it.isdigit())
    if parts[:2] >= OLDEST:
        largest = "16 MiB" if parts[0] >= 4 else "128 MiB"
        return Finding(
            subject="version",
            state="ok",
            text=f"RabbitMQ {text}: messages of up to {largest} unless max_message_size says less",
        )
    return Finding(
        subject="version",
        state="error",
        text=f"RabbitMQ {text} is older than 3.10: it loses messages that are handed on",
        remedy="use RabbitMQ 3.10 or newer",
    )


async def _rights(connection: Connection, address: Address) -> list[Finding]:
    """Make a queue of our prefix, write to it and read it: what is forbidden says so."""
    queue = f"{address.prefix}.{VERSION}.~doctor.{os.getpid()}"
    made = question.Declare(queue=queue, exclusive=True, auto_delete=True)
    found = [await _tried(connection, address, queue, "configure", made)]
    if found[0].state != "ok":
        return found
    consume = question.Consume(queue=queue, consumer_tag="1", no_ack=True)
    found.append(await _tried(connection, address, queue, "read", consume))
    found.append(await _written(connection, address, queue))
    return found


async def _tried(
    connection: Connection, address: Address, queue: str, right: str, method: question.Asked
) -> Finding:
    channel = await connection.channel(SECONDS)
    try:
        await channel.ask(method, question.Answer, SECONDS)
    except Declined as error:
        return _bad("rights", str(declined(address, error, queue, right)))
    finally:
        channel.close()
    return Finding(subject="rights", state="ok", text=f"{address.user!r} may {right} queues")


async def _written(connection: Connection, address: Address, queue: str) -> Finding:
    fault = await _confirmed(connection, queue)
    if fault is not None:
        return _bad("rights", str(declined(address, fault, queue, "write")))
    return Finding(subject="rights", state="ok", text=f"{address.user!r} may write queues")


async def _confirmed(connection: Connection, queue: str) -> Declined | None:
    """Publish a message; return what the broker has against it."""
    channel = await connection.channel(SECONDS)
    answered = asyncio.Event()
    channel.on_confirm = lambda *_: answered.set()
    channel.on_lost = lambda _: answered.set()
    connection.on_blocked = answered.set
    try:
        await channel.ask(commands.Confirm.Select(), commands.Confirm.SelectOk, SECONDS)
        number = channel.number
        channel.write(frame.publish(number, "", queue))
        channel.write(b"".join(Header(number, 0).frame(1, "doctor", {}, None)))
        channel.write(b"".join(frame.body(number, b"?", connection.largest)))
        async with asyncio.timeout(SECONDS):
            await answered.wait()
        return channel.lost if isinstance(channel.lost, Declined) else None
    except TimeoutError:
        raise EngineUnavailable(
            f"RabbitMQ at {connection.place} does not confirm a message within {SECONDS:g} s: "
            "look at its log, and whether a majority of its nodes is up"
        ) from None
    finally:
        channel.close()


def _alarms(connection: Connection) -> list[Finding]:
    if connection.blocked is None:
        return [Finding(subject="alarms", state="ok", text="it takes messages")]
    return [
        Finding(
            subject="alarms",
            state="error",
            text=f"it takes no messages now: {connection.blocked}",
            remedy="look at `rabbitmqctl status`: free disk or memory, or raise "
            "vm_memory_high_watermark or lower disk_free_limit",
        )
    ]


async def _queue(
    connection: Connection, address: Address, queue: str, wanted: Bounds | None
) -> list[Finding]:
    """Look at a queue, without making it."""
    subject = f"queue {queue}"
    channel = await connection.channel(SECONDS)
    try:
        ready = await topology.waiting(channel, address, queue)
        if ready is None:
            return []
        await topology.declare(channel, address, queue, wanted)
    except SchemaMismatch as error:
        if wanted is not None:
            return [_bad(subject, str(error))]
        text = f"{error}. It is used as it is: what it drops is published again"
        return [Finding(subject=subject, state="warning", text=text)]
    except EngineUnavailable as error:
        return [_bad(subject, str(error))]
    finally:
        channel.close()
    return [Finding(subject=subject, state="ok", text=f"{ready} messages wait")]


def _bad(subject: str, text: str) -> Finding:
    said, _, remedy = text.partition(": ")
    return Finding(subject=subject, state="error", text=said, remedy=remedy or None)
