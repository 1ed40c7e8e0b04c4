"""Pgqueuer on asyncpg with its durable tables, 100 jobs a batch.

Runs in the peers' own environment: `pgqueuer_app.fill(N)` enqueues N jobs in bulk,
`pgqueuer_app.singles(SECONDS)` prints how many a second it enqueues one by one, and
`pgqueuer_app.work()` runs them. A job that ran is one byte in `PEER_RAN`.
"""

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries  # type: ignore[import-not-found, unused-ignore]

URL = os.environ["PEER_URL"]
PAYLOAD = b'{"n": 1, "text": "' + b"x" * 256 + b'"}'


async def _queries() -> tuple[Any, Any]:
    connection = await asyncpg.connect(URL)
    queries = Queries(AsyncpgDriver(connection))
    return connection, queries


async def _install() -> None:
    connection, queries = await _queries()
    if not await queries.schema_is_installed():
        await queries.install()
    await connection.close()


async def _fill(number: int) -> None:
    connection, queries = await _queries()
    for first in range(0, number, 1_000):
        size = min(1_000, number - first)
        await queries.enqueue(["noop"] * size, [PAYLOAD] * size, [0] * size)
    await connection.close()


async def _singles(seconds: float) -> float:
    connection, queries = await _queries()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await queries.enqueue("noop", PAYLOAD)
        done += 1
    rate = done / (time.perf_counter() - began)
    await connection.close()
    return rate


async def _work() -> None:
    ran = os.open(os.environ["PEER_RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(URL)))

    @queuer.entrypoint("noop")  # type: ignore[untyped-decorator, unused-ignore]
    async def noop(_job: Any) -> None:
        os.write(ran, b".")

    await queuer.run(batch_size=100, dequeue_timeout=timedelta(seconds=1))


def install() -> None:
    """Make its tables."""
    uvloop.run(_install())


def fill(number: int) -> None:
    """Enqueue jobs in bulk."""
    uvloop.run(_fill(number))


def singles(seconds: float) -> None:
    """Print jobs/s enqueued one after the other."""
    print(asyncio.run(_singles(seconds)))


def work() -> None:
    """Run jobs until ended."""
    uvloop.run(_work())
