"""Huey on Redis: popped before the run, so a killed worker loses what it had.

Runs in the peers' own environment: `huey_redis_app.fill(N)` enqueues N jobs, and
`huey_consumer huey_redis_app.huey` runs them. A job that ran is one byte in `PEER_RAN`.
"""

import os

from huey import RedisHuey  # type: ignore[import-not-found, import-untyped, unused-ignore]

huey = RedisHuey("bench", url=os.environ["PEER_URL"], results=False)
ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def noop(_n: int, _text: str) -> None:
    """Count itself."""
    os.write(ran, b".")


task = huey.task()(noop)


def fill(number: int) -> None:
    """Enqueue jobs one after the other."""
    for n in range(number):
        task(n, "x" * 256)
