"""Dramatiq on RabbitMQ: quorum queues, publishes confirmed, no results.

Runs in the peers' own environment: `dramatiq_amqp_app.fill(N)` enqueues N jobs, and
`dramatiq dramatiq_amqp_app` runs them. A job that ran is one byte in `PEER_RAN`.
"""

import os
from typing import Any

import dramatiq  # type: ignore[import-not-found, unused-ignore]
from dramatiq.brokers.rabbitmq import (  # type: ignore[import-not-found, unused-ignore]
    RabbitmqBroker,
)


class Quorum(RabbitmqBroker):  # type: ignore[misc, unused-ignore]
    """The broker, with queues of the kind that ours are."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


broker = Quorum(url=os.environ["PEER_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)
ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@dramatiq.actor(queue_name="dramatiq")  # type: ignore[untyped-decorator, unused-ignore]
def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


def fill(number: int) -> None:
    """Enqueue jobs one after the other."""
    for n in range(number):
        noop.send(n, "x" * 256)
