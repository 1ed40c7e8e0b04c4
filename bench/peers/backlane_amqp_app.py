"""Ours on RabbitMQ, counted as its peers are: a job that ran is one byte in `PEER_RAN`.

`backlane_amqp_app.fill(N)` enqueues N jobs, and `backlane worker backlane_amqp_app:app` runs them.
"""

from __future__ import annotations

import os

from backlane import Backlane, Queue

app = Backlane(os.environ["PEER_URL"], queues=[Queue("bench", max_jobs=10_000_000)])
ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@app.task(name="noop", queue="bench")
async def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


def fill(number: int) -> None:
    """Enqueue jobs in bulk."""
    noop.enqueue_many(((n, "x" * 256), {}) for n in range(number))
    app.close()
