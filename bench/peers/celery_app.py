"""Celery on Redis as it is fastest: acknowledged before the run, results ignored.

Runs in the peers' own environment: `celery_app.fill(N)` enqueues N jobs, and
`celery -A celery_app worker` runs them. A job that ran is one byte in `CELERY_RAN`.
"""

import os

from celery import Celery  # type: ignore[import-not-found, import-untyped, unused-ignore]

app = Celery("celery_app", broker=os.environ["CELERY_BROKER"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=100,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
ran = os.open(os.environ["CELERY_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


task = app.task(name="noop")(noop)


def fill(number: int) -> None:
    """Enqueue jobs one after the other."""
    for n in range(number):
        task.delay(n, "x" * 256)
