"""Signs of life: whether workers are heard of, hear, and are what their leases say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg

from backlane.engine.postgres.store.statement import in_schema
from backlane.engine.postgres.upkeep.measure import LIVE_MS
from backlane.engine.protocol import Finding

Connection = psycopg.Connection[tuple[Any, ...]]

NAMED = 5

# A worker that was killed just now still looks alive by its last beat, and not by its lock.
# Who listens for queues holds a shared lock (`side.py`); a number above 2^31 is shown as
# an unsigned one.
WORKERS: LiteralString = """
    select count(*),
        exists (
            select 1
            from pg_locks
            where locktype = 'advisory'
            and classid::bigint = %(number)s & 4294967295
            and objid = 0
            and objsubid = 2
            and mode = 'ShareLock'
            and granted
            and database = (select oid from pg_database where datname = current_database())
        )
    from backlane.worker
    where beat_ms > backlane.now_ms() - %(live)s
    and not exists (
        select 1
        from backlane.enlisted
        where enlisted.owner = worker.owner
        and (has_left or pg_try_advisory_xact_lock_shared(key))
    )
    """

# As `presence.py` judges, but for the second that it gives a lost connection to come back.
DEAD: LiteralString = """
    select owner
    from backlane.enlisted
    where exists (select 1 from backlane.lease where lease.owner = enlisted.owner)
    and case
        when has_left then true
        when pg_postmaster_start_time() > clock_timestamp() - interval '5 seconds' then false
        else pg_try_advisory_xact_lock_shared(key)
    end
    order by owner
    """


def examine(connection: Connection, schema: str) -> Iterator[Finding]:
    """Look at the workers that the tables tell of."""
    yield _listeners(connection, schema)
    yield _owners(connection, schema)


def _listeners(connection: Connection, schema: str) -> Finding:
    digest = hashlib.sha256(schema.encode()).digest()
    given = {"number": int.from_bytes(digest[:4], signed=True), "live": LIVE_MS}
    asked = in_schema(WORKERS, schema).encode()
    ((workers, are_some_listening),) = connection.execute(asked, given).fetchall()
    if not workers:
        return Finding(subject="listeners", state="ok", text="no worker is there to listen")
    if are_some_listening:
        return Finding(subject="listeners", state="ok", text=f"{_number(workers)} rung")
    return Finding(
        subject="listeners",
        state="warning",
        text=f"{_number(workers)} alive and none of them listens, as behind a transaction "
        "pooler, or where they may open no more connections: a new job waits until one of them "
        "looks again",
        remedy="give workers a URL that goes to the server itself, and one connection more each",
    )


def _number(workers: int) -> str:
    return "1 worker is" if workers == 1 else f"{workers} workers are"


def _owners(connection: Connection, schema: str) -> Finding:
    rows = connection.execute(in_schema(DEAD, schema).encode())
    dead = [owner for (owner,) in rows]
    if not dead:
        return Finding(subject="owners", state="ok", text="no dead owner holds a lease")
    return Finding(
        subject="owners",
        state="warning",
        text=f"{len(dead)} dead owners still hold leases: {', '.join(dead[:NAMED])}",
        remedy="start a worker: its next turn takes their jobs back",
    )
