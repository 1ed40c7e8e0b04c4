"""The driver: carries plans out, for threads and event loops, on connections of this process."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any, TypeVar

from backlane.engine.plan import Plan, finish
from backlane.engine.redis.driver.course import Course
from backlane.engine.redis.driver.loops import AsyncTx, Loops
from backlane.engine.redis.driver.pool import BlockingTx, Pool
from backlane.engine.redis.store import durability as durabilities
from backlane.engine.redis.store.address import Address
from backlane.engine.redis.store.connection import Connection
from backlane.engine.redis.store.durability import Durability
from backlane.engine.redis.store.faults import Said, refused, unreachable
from backlane.engine.redis.store.locator import Locator
from backlane.engine.redis.store.transaction import Terms
from backlane.errors import SchemaMismatch
from backlane.model.clock import Clock

T = TypeVar("T")

log = logging.getLogger("backlane.redis")

VERSION = 1  # of the layout of keys and values: `lua/model.lua`


class Driver:
    """One a process and engine; after a fork it begins anew."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self.address = address
        self.durability: Durability | None = None  # what the last server was found to promise
        self._clock = clock
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()
        self._courses: set[Course[Any]] = set()
        self._begin()

    def _begin(self) -> None:
        self._locator = Locator(self.address)
        self._terms = Terms(self.address.prefix, self._clock, self._locator)
        self._pool = Pool(self.open, self.address.pool, self.address.seconds)
        self._loops = Loops(self.open, self.address.seconds)
        self._pid = os.getpid()  # last: who sees it may use the others

    def _begin_anew(self) -> None:
        """In a forked child: leave all connections to the parent.

        Another thread of the parent may have held the lock when it forked. Two threads of
        the child that get here at once make one pool too many, which does no harm.
        """
        self._lock = threading.Lock()
        if self._pid == os.getpid():
            return
        self._pool.empty()
        self._loops.abandon()
        self._courses = set()
        self._begin()

    def open(self) -> Connection:
        """Connect to the server that has our keys, and look at its settings.

        Raises:
            EngineUnavailable: it cannot be reached, or would lose jobs without a word.
        """
        connection = self._locator.open()
        try:
            found = durabilities.check(connection, self.address)
            self._check_version(connection)
            may_ring = self._may_ring(connection)
        except BaseException as error:
            connection.disconnect()
            if isinstance(error, Said):  # LOADING, of a server that has only just come back
                raise refused(error, connection.place) from None
            if isinstance(error, OSError):
                raise unreachable(error, connection.place) from error
            raise
        with self._lock:
            self.durability = found
            is_news = (connection.place, found.level) not in self._told
            self._told.add((connection.place, found.level))
        if is_news:
            durabilities.warn(found, connection.place)
        if is_news and not may_ring:
            log.warning(
                "%s forbids this user the channels &backlane:*: nobody is woken, all look for "
                "themselves every second or so; see docs/engines/redis.md",
                connection.place,
            )
        return connection

    def open_unchecked(self) -> Connection:
        """Connect whatever the settings are: to say what is wrong with them.

        Raises:
            EngineUnavailable: it cannot be reached.
        """
        return self._locator.open()

    def _check_version(self, connection: Connection) -> None:
        version = connection.ask("HGET", self._terms.key, "version")
        if version is not None and int(version) != VERSION:
            raise SchemaMismatch(
                f"namespace {self.address.namespace!r} at {connection.place} was written by a "
                f"backlane whose layout is {int(version)}, and this one's is {VERSION}: use that "
                "version, or another namespace"
            )

    def _may_ring(self, connection: Connection) -> bool:
        try:
            connection.ask("SPUBLISH", f"{self.address.prefix}q00", "")
        except Said as said:
            if said.code == "NOPERM":
                return False
            raise
        return True

    def look(self) -> Durability:
        """Return what the server promises now.

        Raises:
            EngineUnavailable: it cannot be reached, or would lose jobs without a word.
        """
        self.open().disconnect()
        assert self.durability is not None  # noqa: S101 # open() found it
        return self.durability

    # -- blocking callers --

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out."""
        if self._pid != os.getpid():
            self._begin_anew()
        pool = self._pool
        pool.enter()
        tx = BlockingTx(pool, self._terms, reads=plan.reads)
        try:
            value = finish(plan.within(tx))
            waits_for = self._waits_for(plan)
            if waits_for:
                command = durabilities.confirmation(waits_for, self.address.seconds)
                durabilities.check_confirmed(tx.tell(command), waits_for, "the server")
        finally:
            tx.release()
            pool.leave()
        return value

    def _waits_for(self, plan: Plan[T]) -> str | None:
        if plan.reads or self.durability is None:
            return None
        return self.durability.waits_for

    # -- coroutines --

    async def arun(self, plan: Plan[T]) -> T:
        """Carry a plan out; goes on to its end when the caller is cancelled."""
        if self._pid != os.getpid():
            self._begin_anew()
        course = Course(self._carry_out(plan), self._courses.discard)
        self._courses.add(course)
        course.go_on()
        return await course.outcome

    async def _carry_out(self, plan: Plan[T]) -> T:
        tx = AsyncTx(self._loops, self._terms, reads=plan.reads)
        value = await plan.within(tx)
        waits_for = self._waits_for(plan)
        if waits_for and tx.mux is not None:
            command = durabilities.confirmation(waits_for, self.address.seconds)
            reply = await tx.hear(tx.mux.confirm(command), tx.mux)
            durabilities.check_confirmed(reply, waits_for, tx.mux.place)
        return value

    # -- the end --

    def close(self) -> None:
        """Wait for what has begun, then end all connections."""
        if self._pid != os.getpid():
            self._begin_anew()
            return
        self._wait()
        self._pool.empty()
        self._loops.close()

    def _wait(self) -> None:
        """Wait for other threads' plans; those of a loop that stands here cannot go on."""
        until = time.monotonic() + self.address.seconds
        here = _running_loop()
        while time.monotonic() < until:
            loops = {course.loop for course in tuple(self._courses)} - {here}
            if self._pool.is_idle and not any(loop.is_running() for loop in loops):
                return
            time.sleep(0.002)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
