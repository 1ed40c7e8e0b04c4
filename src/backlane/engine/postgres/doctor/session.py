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
    pooler: str | None,
) -> Iterator[Finding]:
    """Say whether sessions are our own, and whether a notification of ours arrives.

    `pooler` is what the URL says; of one that it does not tell of (None) the engine finds
    out by itself that it is there, though not whether it keeps sessions.
    """
    ((server_pid,),) = connection.execute(PID).fetchall()
    is_between = server_pid != connection.info.backend_pid
    is_lent = _is_lent(connection, connect)
    if is_lent:
        yield _lent(pooler)
    else:
        yield _kept(pooler, is_between=is_between)
    if is_lent or pooler == "transaction" or (is_between and pooler is None):
        yield Finding(
            subject="notify",
            state="warning",
            text="behind a transaction pooler nothing is listened for: idle workers look for "
            "jobs every so often, and a job may wait until the next look",
            remedy="give workers a URL that goes to the server itself, past the pooler",
        )
        return
    yield _ping(connection, connect, limits)


def _lent(pooler: str | None) -> Finding:
    """Tell of a pooler that gives a connection for one transaction."""
    match pooler:
        case "transaction":
            text = "a transaction pooler, as the URL says: who died is known by a lapsed lease"
            return Finding(subject="pooler", state="ok", text=text)
        case "none":
            return Finding(
                subject="pooler",
                state="error",
                text="the URL says pooler=none, and a transaction pooler stands between: a "
                "worker's lock and LISTEN stay behind on a connection that others are given, so "
                "that dead workers look alive",
                remedy="say ?pooler=transaction in the URL, or connect to the server itself",
            )
        case _:
            return Finding(
                subject="pooler",
                state="warning",
                text="a transaction pooler that the URL does not tell of: it is found out at "
                "each first connection, who died is known by a lapsed lease, and statements are "
                "planned each time",
                remedy="say ?pooler=transaction in the URL; give workers one to the server itself",
            )


def _kept(pooler: str | None, *, is_between: bool) -> Finding:
    """Tell of a pooler that keeps sessions, or of none."""
    if pooler == "transaction":
        which = "keeps sessions" if is_between else "is not there"
        return Finding(
            subject="pooler",
            state="warning",
            text=f"the URL says pooler=transaction, and a pooler of that kind {which}: statements "
            "are planned each time, dead workers are noticed late and nobody is rung",
            remedy="say ?pooler=none in the URL" if is_between else "take pooler= out of the URL",
        )
    if is_between and pooler is None:
        return Finding(
            subject="pooler",
            state="warning",
            text="a pooler that keeps sessions, and is taken for one that does not: statements "
            "are planned each time, dead workers are noticed late and nobody is rung",
            remedy="say ?pooler=none in the URL",
        )
    text = "one that keeps sessions, as the URL says" if is_between else "none in the way"
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
