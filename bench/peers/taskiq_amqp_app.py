"""Taskiq on RabbitMQ: quorum queues, publishes confirmed, acknowledged after the run; no results.

Runs in the peers' own environment: `taskiq_amqp_app.fill(N)` enqueues N jobs, and
`taskiq worker taskiq_amqp_app:broker` runs them. A job that ran is one byte in `PEER_RAN`.
"""

import asyncio
import os

from taskiq.serializers import ORJSONSerializer  # type: ignore[import-not-found, unused-ignore]
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType  # type: ignore[import-not-found, unused-ignore]

broker = AioPikaBroker(os.environ["PEER_URL"], qos=200).with_serializer(ORJSONSerializer())
broker = broker.with_queue(Queue(name="taskiq", type=QueueType.QUORUM))
ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@broker.task(task_name="noop")  # type: ignore[untyped-decorator, unused-ignore]
async def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


async def _fill(number: int) -> None:
    await broker.startup()
    for first in range(0, number, 100):
        size = min(100, number - first)
        await asyncio.gather(*(noop.kiq(first + n, "x" * 256) for n in range(size)))
    await broker.shutdown()


def fill(number: int) -> None:
    """Enqueue jobs, a hundred at a time."""
    asyncio.run(_fill(number))
