"""Sessions: whether what is said on a connection stays with it, and whether bells ring.

A pooler such as PgBouncer gives itself away: it makes the number up that a client is
told as its server process's, because cancelling goes through the pooler too. Whether it
keeps a session is seen with two connections: one that idles must not be lent out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from backlane.engine.postgres.doctor.limits import Limits
from backlane.engine.protocol import Finding

Connection = psycopg.Connection[tuple[Any, ...]]

PID: LiteralString = "select pg_backend_pid()"
HEARD: LiteralString = "select pg_notify(%s, '')"
PAIRS = 3  # a pooler lends the connection out that was given back last, as a rule


def examine(
    connection: Connection,
    connect: Callable[[], Connection],
    limits: Limits,
    *,
    is_said_pooled: bool,
) -> Iterator[Finding]:
    """Say whether sessions are our own, and whether a notification of ours arrives."""
    is_lent = _is_lent(connection, connect)
    yield _pooler(connection, is_lent=is_lent, is_said=is_said_pooled)
    if is_lent or is_said_pooled:
        yield Finding(
            subject="notify",
            state="warning",
            text="behind a transaction pooler nothing can be listened for: idle workers look for "
            "jobs every so often, and a job may wait until the next look",
            remedy="give workers a URL that goes to the server itself, past the pooler",
        )
        return
    yield _ping(connection, connect, limits)


def _pooler(connection: Connection, *, is_lent: bool, is_said: bool) -> Finding:
    ((server_pid,),) = connection.execute(PID).fetchall()
    is_between = is_lent or server_pid != connection.info.backend_pid
    if is_lent and not is_said:
        return Finding(
            subject="pooler",
            state="error",
            text="a transaction pooler stands between: a worker's advisory lock and LISTEN stay "
            "behind on a connection that others are given, so that living workers look dead or "
            "dead ones alive",
            remedy="add ?pooler=transaction to the URL, or connect to the server itself",
        )
    if is_lent:
        text = "a transaction pooler, as the URL says: a dead worker is known by its lapsed lease"
        return Finding(subject="pooler", state="ok", text=text)
    if is_said:
        which = "keeps sessions" if is_between else "is not there"
        return Finding(
            subject="pooler",
            state="warning",
            text=f"the URL says pooler=transaction, and a pooler of that kind {which}: statements "
            "are parsed each time, dead workers are noticed late and nobody is rung",
            remedy="take pooler=transaction out of the URL",
        )
    text = "one stands between and keeps sessions" if is_between else "none in the way"
    return Finding(subject="pooler", state="ok", text=text)


def _is_lent(connection: Connection, connect: Callable[[], Connection]) -> bool:
    """Say whether a connection that is open and idle is used for others meanwhile."""
    for _ in range(PAIRS):
        ((ours,),) = connection.execute(PID).fetchall()
        with connect() as other, other.transaction():
            ((theirs,),) = other.execute(PID).fetchall()
            if ours == theirs:
                return True
            # While `other` has its transaction it is not to be had by us.
            ((again,),) = connection.execute(PID).fetchall()
            if again != ours:
                return True
    return False


def _ping(connection: Connection, connect: Callable[[], Connection], limits: Limits) -> Finding:
    channel = f"backlane_doctor_{secrets.token_hex(8)}"
    try:
        with connect() as ear:
            ear.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
            connection.execute(HEARD, [channel])
            heard = list(ear.notifies(timeout=limits.ping_seconds, stop_after=1))
    except psycopg.Error as error:
        return Finding(
            subject="notify",
            state="error",
            text=f"a notification could not be sent: {str(error).strip()}. Idle workers look for "
            "jobs every so often, and a job may wait until the next look",
            remedy="select pg_terminate_backend(pid) from pg_stat_activity where state = "
            "'idle in transaction' order by xact_start limit 1",
        )
    if heard:
        return Finding(subject="notify", state="ok", text="a notification to ourselves arrived")
    return Finding(
        subject="notify",
        state="error",
        text=f"a notification to ourselves did not arrive within {limits.ping_seconds:.0f} s: "
        "idle workers look for jobs every so often, and a job may wait until the next look",
        remedy="connect to the server itself, past whatever stands between; then run doctor again",
    )
