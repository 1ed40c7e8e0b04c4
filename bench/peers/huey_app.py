"""Huey on its SQLite storage as it comes: WAL, synchronous FULL, removed before run.

Runs in the peers' own environment: `huey_app.fill(N)` enqueues N jobs, and
`huey_consumer huey_app.huey` runs them. A job that ran is one byte in `HUEY_RAN`.
"""

import os

from huey import SqliteHuey  # type: ignore[import-not-found, import-untyped, unused-ignore]

huey = SqliteHuey("bench", filename=os.environ["HUEY_FILE"], results=False)
ran = os.open(os.environ["HUEY_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


task = huey.task()(noop)


def fill(number: int) -> None:
    """Enqueue jobs one after the other."""
    for n in range(number):
        task(n, "x" * 256)
