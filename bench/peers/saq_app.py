"""SAQ on Redis, a hundred jobs at a time.

Runs in the peers' own environment: `saq_app.fill(N)` enqueues N jobs, and
`saq saq_app.settings` runs them. A job that ran is one byte in `PEER_RAN`.
"""

import asyncio
import os
from typing import Any

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue  # type: ignore[import-not-found, unused-ignore]

# Its own pool of 100 is too small for 100 jobs at a time.
queue = RedisQueue(Redis.from_url(os.environ["PEER_URL"], max_connections=400))
ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def noop(_context: Any, *, n: int, text: str) -> None:  # noqa: ARG001 - called by name
    """Count itself."""
    os.write(ran, b".")


settings = {"queue": queue, "functions": [noop], "concurrency": 100}


async def _fill(number: int) -> None:
    for first in range(0, number, 100):
        size = min(100, number - first)
        await asyncio.gather(
            *(queue.enqueue("noop", n=first + n, text="x" * 256) for n in range(size))
        )
    await queue.disconnect()


def fill(number: int) -> None:
    """Enqueue jobs, a hundred at a time."""
    asyncio.run(_fill(number))
