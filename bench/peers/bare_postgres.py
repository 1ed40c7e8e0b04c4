"""The bare loops on PostgreSQL: the least that it and plain Python must do for the same work.

One table with one partial index. `drain` claims 100 (skip locked), decodes, calls, and
deletes the settled in the transaction of the next claim; `inserts` stores one row a
commit; `copied` stores 1,000 rows a commit by COPY. All by asyncpg, the faster driver.
Each prints a rate. Runs in the peers' own environment.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]
import uvloop

URL = os.environ["PEER_URL"]
BODY = json.dumps({"task": "noop", "n": 1, "text": "x" * 256}).encode()
CLAIM = """
update bare_job set state = 1
where id in (
    select id from bare_job where state = 0 order by id limit 100 for update skip locked
)
returning id, body
"""
DELETE = "delete from bare_job where id = any($1)"


def noop(_n: int, _text: str) -> None:
    """Do nothing, like the task that it is compared with."""


async def _fresh() -> Any:
    connection = await asyncpg.connect(URL)
    await connection.execute(
        """
        drop table if exists bare_job;
        create table bare_job (
            id bigint generated always as identity primary key,
            state smallint not null default 0,
            body bytea not null
        );
        create index bare_job_ready on bare_job (id) where state = 0;
        """
    )
    return connection


async def _copy(connection: Any, number: int) -> None:
    rows = [(BODY,)] * 1_000
    for first in range(0, number, 1_000):
        part = rows[: min(1_000, number - first)]
        await connection.copy_records_to_table("bare_job", records=part, columns=["body"])


async def _drain(number: int, claimers: int) -> float:
    connection = await _fresh()
    await _copy(connection, number)
    await connection.close()
    others = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "import bare_postgres; bare_postgres.claimer()"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(claimers - 1)
    ]
    for other in others:
        assert other.stdout is not None
        await other.stdout.readline()  # it is ready, so that no start is measured
    began = time.perf_counter()
    drains = [_claim_all()] + [other.communicate(b"go\n") for other in others]
    await asyncio.gather(*drains)
    return number / (time.perf_counter() - began)


async def _claim_when_told() -> None:
    connection = await asyncpg.connect(URL)
    await connection.close()
    print("ready", flush=True)
    await asyncio.to_thread(input)
    await _claim_all()


async def _claim_all() -> None:
    connection = await asyncpg.connect(URL)
    registry = {"noop": noop}
    settled: list[int] = []
    while True:
        async with connection.transaction():
            if settled:
                await connection.execute(DELETE, settled)
            claimed = await connection.fetch(CLAIM)
        if not claimed:
            break
        for _, body in claimed:
            call = json.loads(body)
            registry[call["task"]](call["n"], call["text"])
        settled = [row[0] for row in claimed]
    await connection.close()


async def _inserts(seconds: float) -> float:
    connection = await _fresh()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await connection.execute("insert into bare_job (body) values ($1)", BODY)
        done += 1
    rate = done / (time.perf_counter() - began)
    await connection.close()
    return rate


async def _copied(number: int) -> float:
    connection = await _fresh()
    began = time.perf_counter()
    await _copy(connection, number)
    rate = number / (time.perf_counter() - began)
    await connection.close()
    return rate


def claimer() -> None:
    """Drain beside another."""
    uvloop.run(_claim_when_told())


def drain(number: int, claimers: int) -> None:
    """Print jobs/s of so many processes together, their start included."""
    print(uvloop.run(_drain(number, claimers)))


def inserts(seconds: float) -> None:
    """Print one-row commits/s."""
    print(uvloop.run(_inserts(seconds)))


def copied(number: int) -> None:
    """Print rows/s stored by COPY."""
    print(uvloop.run(_copied(number)))
