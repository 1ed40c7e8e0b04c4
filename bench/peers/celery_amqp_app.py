"""Celery on RabbitMQ: quorum queues, publishes confirmed, acknowledged after the run; no results.

Runs in the peers' own environment: `celery_amqp_app.fill(N)` enqueues N jobs, and
`celery -A celery_amqp_app worker` runs them. A job that ran is one byte in `PEER_RAN`.
"""

import os

from celery import Celery  # type: ignore[import-not-found, import-untyped, unused-ignore]

app = Celery("celery_amqp_app", broker=os.environ["PEER_URL"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_default_queue="celery-quorum",
    task_default_queue_type="quorum",
    worker_detect_quorum_queues=True,
    broker_transport_options={"confirm_publish": True},
    worker_prefetch_multiplier=100,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


task = app.task(name="noop")(noop)


def fill(number: int) -> None:
    """Enqueue jobs one after the other."""
    for n in range(number):
        task.delay(n, "x" * 256)
