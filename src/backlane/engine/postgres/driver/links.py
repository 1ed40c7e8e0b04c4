"""Links: all that one process has open to one store. A forked child starts with none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from backlane.engine.plan import Plan, Sql, finish
from backlane.engine.postgres.bells.bell import Belfry
from backlane.engine.postgres.driver.driver import Driver
from backlane.engine.postgres.driver.merger import LoopSeat, Merger, ThreadSeat
from backlane.engine.postgres.driver.pool import LoopPool, Retired, ThreadPool
from backlane.engine.postgres.driver.side import Side
from backlane.engine.postgres.store import faults, presence
from backlane.engine.postgres.store.address import Address
from backlane.engine.postgres.store.opener import ANSWER_SECONDS, Opener
from backlane.engine.postgres.store.plans import AppendPlan, StepPlan
from backlane.engine.postgres.store.statement import Statements
from backlane.engine.postgres.store.transaction import PostgresTx, Rings, Speaks
from backlane.engine.postgres.store.wire import Wire
from backlane.errors import EngineUnavailable
from backlane.model.clock import Clock, SystemClock

T = TypeVar("T")

Runs = Callable[[Plan[None]], None]

log = logging.getLogger("backlane")

CLOSE_LOOK_SECONDS = 0.01
LOOK: Sql[tuple[int]] = Sql("select 1")


@dataclass(frozen=True, slots=True)
class _Loop:
    """What one event loop has of its own."""

    pool: LoopPool
    driver: Driver
    merger: Merger


class Links:
    """One process's pools: of its threads, and of each event loop that asked."""

    def __init__(
        self, address: Address, statements: Statements, clock: Clock, belfry: Belfry
    ) -> None:
        self.address = address
        self.opener = Opener(address)
        self._statements = statements
        self._clock = None if isinstance(clock, SystemClock) else clock
        self.belfry = belfry
        self.side = Side(self.opener, statements, belfry)
        self._sight = presence.Sight()
        self._is_closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._threads = ThreadPool(self.opener, address.pool)
        self._driver = Driver(self._threads, self.opener, self.begin, self.after)
        self._merger = Merger(self._driver.perform, ThreadSeat)
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        # What has begun in a loop goes on though its caller is cancelled.
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def is_own(self) -> bool:
        return self._pid == os.getpid()

    def begin(self, wire: Speaks, *, is_joined: bool = False) -> PostgresTx:
        """Return a transaction on a connection, with the times of a clock of its own."""
        clock = self._clock
        if clock is None:
            return PostgresTx(wire, self._statements, is_joined=is_joined)
        return PostgresTx(
            wire,
            self._statements,
            wall_ms=clock.wall_ms(),
            boot_ms=clock.boot_ms(),
            is_joined=is_joined,
        )

    async def after(self, tx: PostgresTx, wire: Wire) -> None:
        """Do what a plan left to do after its commit, on the connection that it ran on."""
        for remember in tx.learned():
            remember()
        if tx.rings:
            self.belfry.ring(tx.rings)
            await self.side.tell(tx.rings, wire)

    def ring(self, rings: Rings) -> None:
        """Ring the bells of what has been committed."""
        if rings:
            self.belfry.ring(rings)
            self.side.ring(rings)

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out in the calling thread."""
        if isinstance(plan, AppendPlan) and plan.is_merged:
            answer: T = finish(self._merger.append(plan))
            return answer
        return finish(self._driver.perform(plan))

    async def arun(self, plan: Plan[T]) -> T:
        """Carry a plan out in the running loop; a cancelled caller leaves it going on."""
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise Retired
        here = self._loops.get(loop) or self._enter(loop)
        if isinstance(plan, AppendPlan) and plan.is_merged:
            task = loop.create_task(here.merger.append(plan))
        else:
            task = loop.create_task(here.driver.perform(plan))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    # -- owners --

    def enlist(self, owner: str, run: Runs) -> presence.Enlisted:
        """Show a sign of life for as long as this process lives, or until it is closed.

        `run` carries a plan out also when these links have been closed by then.
        """
        schema, is_pooled = self.address.schema, self._is_pooled()
        number = self.run(
            StepPlan(lambda tx: presence.enlist(tx, owner, schema, has_lock=not is_pooled))
        )
        if not is_pooled:
            try:
                self.side.hold(owner, number)
            except psycopg.Error as error:
                raise faults.translated(error, self.address) from error
        return presence.Enlisted(lambda: self._depart(owner, run))

    def _depart(self, owner: str, run: Runs) -> None:
        try:
            run(StepPlan(lambda tx: presence.leave(tx, owner)))
        except EngineUnavailable as error:
            log.debug("could not say that %s departs: %s", owner, error)
        self.side.let_go(owner)

    async def departed(self) -> tuple[str, ...]:
        """Return the owners of leases that are dead; of one that may come back a later look tells.

        It is not waited for here: who dies meanwhile would be missed for as long.
        """
        rows = await self.arun(Plan(lambda tx: tx.rows(presence.MISSING), reads=True))
        dead, forgotten = self._sight.look(rows, time.monotonic(), self.side.lost)
        if forgotten:
            await self.arun(StepPlan(lambda tx: tx.rows(presence.FORGET, forgotten)))
        return tuple(dead)

    def _is_pooled(self) -> bool:
        if self.address.pooler is None:
            self.run(Plan(_look_once, reads=True))  # opening a connection finds it out
        return self.opener.is_pooled

    def close(self) -> None:
        """Wait for what has begun in other threads and their loops, then close everything.

        What has begun in the calling thread's own loop ends by itself.
        """
        self._is_closed = True
        self.side.close()
        self._threads.close()
        here = _running_loop()
        with self._lock:
            loops = list(self._loops.values())
            self._loops.clear()
        for one in loops:
            pool = one.pool
            if pool.loop is here or pool.loop.is_closed() or not pool.loop.is_running():
                pool.close()
            else:
                _call(pool.loop, pool.close)
                until = time.monotonic() + ANSWER_SECONDS
                while not pool.is_done and pool.loop.is_running() and time.monotonic() < until:
                    time.sleep(CLOSE_LOOK_SECONDS)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> _Loop:
        with self._lock:
            for other in [one for one in self._loops if one.is_closed()]:
                self._loops.pop(other).pool.close()
            pool = LoopPool(self.opener, self.address.pool, loop)
            driver = Driver(pool, self.opener, self.begin, self.after)
            made = _Loop(pool, driver, Merger(driver.perform, LoopSeat))
            self._loops[loop] = made
            return made

    @contextlib.contextmanager
    def own_connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection that was opened for this alone.

        Raises:
            EngineUnavailable: none could be opened.
        """
        try:
            connection = self.opener.open()
        except (psycopg.Error, OSError) as error:
            raise faults.translated(error, self.address) from error
        try:
            yield connection
        finally:
            connection.close()


async def _look_once(tx: PostgresTx) -> None:
    await tx.rows(LOOK)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(do)
    except RuntimeError:  # it ended just now
        do()
