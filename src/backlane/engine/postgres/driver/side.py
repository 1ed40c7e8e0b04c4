"""The side connection: what a process needs a session for, beside its verbs.

One thread holds one connection. It listens for other processes' rings while there are
bells here (an event loop that waits reads them itself: `ear.py`), rings theirs after our
commits where those come thick and fast, and keeps the locks that show that owners of this
process live. When the connection is lost it comes back with jitter, retakes the
locks first, and rings every bell once: polling is the truth, and rings only hasten it.

Who listens is known by shared locks on three numbers, one for each kind of bell: trying
such a lock takes no table and no write, and a session that dies is gone from it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import os
import random
import select
import threading
import time
from typing import Any
from weakref import WeakValueDictionary

import psycopg

from backlane.engine.plan import Sql, finish
from backlane.engine.postgres.bells.bell import Belfry, Kind
from backlane.engine.postgres.bells.ear import Ear
from backlane.engine.postgres.bells.message import HELLO, rung, written
from backlane.engine.postgres.store.opener import ANSWER_SECONDS, Opener
from backlane.engine.postgres.store.statement import Statements, quoted
from backlane.engine.postgres.store.transaction import Rings
from backlane.engine.postgres.store.waits import Blocking
from backlane.engine.postgres.store.wire import Wire

log = logging.getLogger("backlane")

# A message to all costs the server a commit, and each listener a look. So many commits are
# told together, one message in 20 ms; but commits that come one by one each at once: who
# enqueues and waits for the result, again and again, would else do so 50 times a second.
SPACING_SECONDS = 0.02
EACH_SECONDS = 0.002
KNOWN_SECONDS = 1.0  # how long to believe that nobody listens
LINGER_SECONDS = 10.0  # who waited a moment ago may well do so again
IDLE_SECONDS = 5.0
# Under a second together with the time a connection takes: see `presence.FREE_SECONDS`.
FIRST_AGAIN_SECONDS, LAST_AGAIN_SECONDS = 0.02, 0.5

WHO_LISTENS: Sql[tuple[bool, bool, bool]] = Sql(
    """
    select not pg_try_advisory_xact_lock($1::int, 0),
        not pg_try_advisory_xact_lock($1::int, 1),
        not pg_try_advisory_xact_lock($1::int, 2)
    """
)
TELL: Sql[tuple[None]] = Sql(
    "select pg_notify($1::text, message) from unnest($2::text[]) as given (message)"
)
# A ring need not survive a crash of the server, so none waits for its disk.
TELL_LIGHTLY: Sql[tuple[None, str]] = Sql(
    """
    select pg_notify($1::text, message), set_config('synchronous_commit', 'off', true)
    from unnest($2::text[]) as given (message)
    """
)
HANG: Sql[tuple[None]] = Sql(
    "select pg_advisory_lock_shared($1::int, kind) from unnest($2::int[]) as given (kind)"
)
UNHANG: Sql[tuple[bool]] = Sql(
    "select pg_advisory_unlock_shared($1::int, kind) from unnest($2::int[]) as given (kind)"
)
# The lock comes first, then the time: one statement, so that it is never held unseen.
HOLD: Sql[tuple[()]] = Sql(
    """
    insert into backlane.enlisted (owner, key)
    select $2::text, $1::bigint
    where (select pg_advisory_lock($1)::text) is not null
    on conflict (owner) do update
    set since = clock_timestamp()
    """
)
WHO_AM_I: Sql[tuple[int, int]] = Sql(
    "select pid, floor(extract(epoch from backend_start) * 1000000)::bigint "
    "from pg_catalog.pg_stat_activity where pid = pg_backend_pid()"
)
# A server may think for hours that a session is there whose network went silent, and that
# session holds the locks that we come back for.
END_FORMER: Sql[tuple[bool]] = Sql(
    """
    select pg_terminate_backend(pid)
    from pg_catalog.pg_stat_activity
    where pid = $1::int
    and floor(extract(epoch from backend_start) * 1000000)::bigint = $2::bigint
    """
)
LET_GO: Sql[tuple[bool]] = Sql("select pg_advisory_unlock($1::bigint)")


class Side:
    """One process's connection for all that is no verb. The thread starts when needed."""

    def __init__(self, opener: Opener, statements: Statements, belfry: Belfry) -> None:
        self._opener = opener
        self._statements = statements
        self._belfry = belfry
        digest = hashlib.sha256(statements.schema.encode()).digest()
        self.channel = f"backlane_{digest.hex()[:16]}"
        self._number = int.from_bytes(digest[:4], signed=True)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._poke: tuple[int, int] | None = None
        self._is_poked = False
        self._is_closing = False
        self._rings = Rings()  # not told yet
        self._held: dict[str, int] = {}  # locks of owners
        self._taken: dict[str, int] = {}
        self._session: tuple[int, int] | None = None  # the last one's pid, and when it began
        self._change = threading.Condition(self._lock)
        # What is known of other processes, and since when; read without the lock.
        self._wanted: frozenset[Kind] = frozenset()
        self._asked = -KNOWN_SECONDS
        self._hung: dict[Kind, float] = {}  # kinds we listen for, and when a bell last hung
        self._commits = 0  # that are not told yet
        self._told_until = 0.0  # when the next message may go
        # Other connections that told, by the number of their session.
        self._tellers: WeakValueDictionary[int, Wire] = WeakValueDictionary()
        self._is_to_ask = False  # who listens
        self._ear = Ear(self._hear, self._wake)
        self._is_reading = False  # the thread, not a loop
        self.lost = -math.inf  # when a connection of this process was lost last
        if opener.is_pooled:
            belfry.heard = frozenset(Kind)  # nothing is, so nothing is to be waited for

    # -- called from any thread --

    def ring(self, rings: Rings) -> None:
        """Tell other processes of what was committed, if any listens."""
        kinds = _kinds_of(rings)
        if not kinds:
            return
        if not kinds & self._wanted and time.monotonic() - self._asked < KNOWN_SECONDS:
            return
        with self._lock:
            self._rings.add(rings)
            self._commits += 1
        self._wake()

    async def tell(self, rings: Rings, wire: Wire) -> None:
        """Like `ring`, but on the connection of the commit and without the thread: at once,
        where no message went a moment ago and it is known that somebody listens."""
        messages = self._due(rings) if wire.prepares else []
        if not messages:
            self.ring(rings)
            return
        try:
            await wire.post(self._statements.of(TELL_LIGHTLY), (self.channel, messages))
        except (psycopg.Error, OSError):
            self.ring(rings)  # what was committed is: only this connection is lost
            return
        self._tellers[wire.pgconn.backend_pid] = wire

    def _due(self, rings: Rings) -> list[str]:
        """Return the messages that may go now."""
        kinds, now = _kinds_of(rings), time.monotonic()
        is_stale = now - self._asked > KNOWN_SECONDS
        if not kinds & self._wanted or (is_stale and not kinds <= self._wanted):
            return []
        with self._lock:
            if self._rings or now < self._told_until:
                return []
            self._told_until = now + EACH_SECONDS
            self._is_to_ask |= is_stale
        if is_stale:
            self._wake()
        return written(rings, self._wanted)

    def wait(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """A coroutine of this loop, or a thread (None), waits for a ring from now on."""
        if loop is not None:
            self._ear.enter(loop)
        elif not self._is_reading:
            self._wake(is_to_start=False)

    def hang(self) -> None:
        """Hear of other processes' commits, for there are bells now."""
        if not self._belfry.hears(self._belfry.kinds):
            self._wake()

    def hold(self, owner: str, number: int) -> None:
        """Hold a lock until `let_go`; returns once it is held."""
        with self._change:
            self._held[owner] = number
        self._wake()
        with self._change:
            if not self._change.wait_for(lambda: owner in self._taken, ANSWER_SECONDS):
                del self._held[owner]
                raise psycopg.OperationalError("the lock that shows this process could not be had")

    def let_go(self, owner: str) -> None:
        """Hold the lock no longer."""
        with self._lock:
            self._held.pop(owner, None)
        self._wake()

    def close(self) -> None:
        """Let go of the connection, once no owner needs it any more."""
        with self._lock:
            self._is_closing = True
            thread = self._thread if not self._held else None
        self._wake(is_to_start=False)
        if thread is not None and thread is not threading.current_thread():
            thread.join(ANSWER_SECONDS)

    def _wake(self, *, is_to_start: bool = True) -> None:
        with self._lock:
            if self._thread is None:
                if not is_to_start or self._is_closing:
                    return
                self._poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                self._thread = threading.Thread(
                    target=self._serve, args=self._poke, name="backlane-side", daemon=True
                )
                self._thread.start()
            if self._is_poked or self._poke is None:
                return
            self._is_poked = True
            with contextlib.suppress(BlockingIOError):
                os.write(self._poke[1], b".")

    # -- the thread --

    def _serve(self, poked: int, poke: int) -> None:
        again = FIRST_AGAIN_SECONDS
        while not self._is_done():
            wire = None
            try:
                wire = self._connected()
                again = FIRST_AGAIN_SECONDS
                while not self._is_done():
                    self._attend(wire, poked)
            except (psycopg.Error, OSError) as error:
                self.lost = time.monotonic()
                log.info("the connection for wake-ups is lost (%s); it comes back", error)
            finally:
                if wire is not None:
                    self._ear.close(wire)
                with self._lock:
                    self._taken.clear()
                self._belfry.heard = frozenset(Kind if self._opener.is_pooled else ())
            if not self._is_done():
                self._sleep(random.uniform(again / 2, again))  # noqa: S311
                again = min(LAST_AGAIN_SECONDS, again * 2)
        with self._lock:
            self._poke, self._thread = None, None
            os.close(poked)
            os.close(poke)

    def _is_done(self) -> bool:
        return self._is_closing and not self._held

    def _connected(self) -> Wire:
        """Open, retake the locks, listen again for what was listened for."""
        connection = self._opener.open()
        wire = self._opener.wire(connection, Blocking(connection.pgconn))
        if not self._opener.is_pooled:
            finish(wire.command(b"set synchronous_commit = off"))
            self._follow(wire)
        elif not self._belfry.heard:  # found out just now
            self._belfry.heard = frozenset(Kind)
            self._belfry.ring_all()
        self._hung = {}
        self._forget()
        self._hold_locks(wire)
        self._ear.open(wire)
        return wire

    def _follow(self, wire: Wire) -> None:
        """End the session before this one, wherever the server still believes in it."""
        former, self._session = self._session, self._rows(wire, WHO_AM_I)[0]
        if former is not None:
            self._rows(wire, END_FORMER, *former)

    def _forget(self) -> None:
        """Who listens is not known any more."""
        self._wanted, self._asked = frozenset(), -KNOWN_SECONDS

    def _attend(self, wire: Wire, poked: int) -> None:
        """Wait for something to do, and do it."""
        with self._ear.lock:
            self._hold_locks(wire)
            if not self._opener.is_pooled:
                self._hang(wire)
            left = self._tell(wire)
            self._hear(wire)
        poll = select.poll()
        self._is_reading = True  # first: who waits from now on need not poke
        self._is_reading = self._belfry.sleepers > 0 or not self._ear.is_lent
        if self._is_reading:
            poll.register(wire.pgconn.socket, select.POLLIN)
        poll.register(poked, select.POLLIN)
        ready = dict(poll.poll(left * 1000))
        if poked in ready:
            with self._lock, contextlib.suppress(BlockingIOError):
                self._is_poked = False
                os.read(poked, 64)
        with self._ear.lock:
            if not ready and left >= IDLE_SECONDS:
                finish(wire.command(b"select 1"))  # half-open connections are silent too
            if wire.pgconn.socket in ready:
                wire.pgconn.consume_input()
                self._hear(wire)

    def _hold_locks(self, wire: Wire) -> None:
        with self._lock:
            wanted = dict(self._held)
            surplus = self._taken.keys() - wanted.keys()
        for owner in surplus:
            self._rows(wire, LET_GO, self._taken[owner])
            del self._taken[owner]
        for owner, number in wanted.items():
            if owner not in self._taken:
                self._rows(wire, HOLD, number, owner)
                with self._change:
                    self._taken[owner] = number
                    self._change.notify_all()

    def _hang(self, wire: Wire) -> None:
        """Listen for the kinds that there are bells for, and a while longer."""
        now, kinds = time.monotonic(), self._belfry.kinds
        for kind in kinds & self._hung.keys():
            self._hung[kind] = now
        fresh = sorted(kinds - self._hung.keys())
        if fresh:
            if not self._hung:
                finish(wire.command(f"listen {quoted(self.channel)}".encode()))
            self._rows(wire, HANG, self._number, fresh)
            self._rows(wire, TELL, self.channel, [HELLO])
            self._hung |= dict.fromkeys(fresh, now)
            self._belfry.heard = frozenset(self._hung)
            self._belfry.ring_all()  # what came before it could be heard is read now
        stale = [kind for kind, at in self._hung.items() if now - at > LINGER_SECONDS]
        if stale:
            self._rows(wire, UNHANG, self._number, stale)
            for kind in stale:
                del self._hung[kind]
            self._belfry.heard = frozenset(self._hung)
            if not self._hung:
                finish(wire.command(b"unlisten *"))

    def _tell(self, wire: Wire) -> float:
        """Tell of what was committed; return for how long there is nothing to do."""
        now = time.monotonic()
        if not self._rings and not self._is_to_ask:
            return IDLE_SECONDS
        if now < self._told_until:
            return self._told_until - now
        with self._lock:
            rings, commits, self._commits = self._rings.empty(), self._commits, 0
            self._is_to_ask = False
        kinds = _kinds_of(rings)
        if not kinds <= self._wanted or now - self._asked > KNOWN_SECONDS:
            listened = self._rows(wire, WHO_LISTENS, self._number)[0]
            self._wanted = frozenset(kind for kind in Kind if listened[kind])
            self._asked = now
        messages = written(rings, self._wanted)
        if messages:
            self._told_until = now + min(SPACING_SECONDS, EACH_SECONDS * commits)
            self._rows(wire, TELL, self.channel, messages)
        return IDLE_SECONDS

    def _hear(self, wire: Wire) -> None:
        while (told := wire.pgconn.notifies()) is not None:
            teller = self._tellers.get(told.be_pid, wire)
            if teller.pgconn.backend_pid == told.be_pid:
                continue  # bells of this process were rung when it committed
            payload = told.extra.decode("utf-8", "replace")
            if payload == HELLO:
                self._forget()
            else:
                rung(payload, self._belfry)

    def _rows(self, wire: Wire, sql: Sql[Any], *params: Any) -> list[Any]:
        return finish(wire.rows(self._statements.of(sql), params))

    def _sleep(self, seconds: float) -> None:
        with self._change:
            self._change.wait(seconds)


def _kinds_of(rings: Rings) -> frozenset[Kind]:
    rung = ((Kind.QUEUES, rings.queues), (Kind.JOBS, rings.jobs), (Kind.STARTS, rings.starts))
    return frozenset(kind for kind, names in rung if names)
