"""The driver: carries a plan out on a connection of a pool, and says what became of it.

Written once for both colours: over a pool of threads nothing of it suspends. What was
surely not stored is tried again where that is of use (a connection that had died, two
transactions in each other's way); what may have been stored is told as such.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import psycopg
from psycopg.errors import LockNotAvailable

from backlane.engine.plan import Plan
from backlane.engine.postgres.store import faults
from backlane.engine.postgres.store.opener import LOCK_SECONDS, Opener
from backlane.engine.postgres.store.plans import AppendPlan, BeatPlan, QuickPlan, is_stepwise
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.postgres.store.waits import Silence
from backlane.engine.postgres.store.wire import Wire
from backlane.errors import EngineUnavailable

T = TypeVar("T")

TRIES = 5  # after transactions that were in each other's way
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 0.4


class Pool(Protocol):
    """Where connections come from."""

    async def take(self, *, is_beat: bool) -> Wire: ...

    def give(self, wire: Wire) -> None: ...

    def suspect(self) -> None: ...

    async def pause(self, seconds: float) -> None: ...


class Driver:
    """Carries plans out on the connections of one pool."""

    def __init__(
        self,
        pool: Pool,
        opener: Opener,
        begin: Callable[[Wire], PostgresTx],
        after: Callable[[PostgresTx, Wire], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._opener = opener
        self._begin = begin
        self._after = after

    async def perform(self, plan: Plan[T]) -> T:
        """Carry a plan out; durable once this returns.

        Raises:
            EngineUnavailable: nothing was changed.
            OutcomeUnknown: it may have been.
        """
        if isinstance(plan, QuickPlan) and plan.quick is not None:
            answer: T | None = await self.perform(plan.quick)
            if answer is not None:
                return answer
        collisions = losses = 0
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                wire = await self._pool.take(is_beat=isinstance(plan, BeatPlan))
            except (psycopg.Error, OSError) as error:
                raise faults.translated(error, self._opener.address) from error
            attempt: _Attempt[T] = _Attempt(plan, wire)
            try:
                value, tx = await attempt.carry_out(self._begin)
            except (psycopg.Error, OSError) as error:
                if faults.is_ended(error):
                    wire.is_broken = True
                    if isinstance(error, Silence):
                        self._pool.suspect()
                    if not attempt.is_harmless:
                        raise faults.unknown(error, self._opener.address) from error
                    losses += 1
                    if losses == 1 and not isinstance(error, Silence):
                        continue
                elif self._is_to_be_repeated(error, wire, collisions) or (
                    # It let go of the queue meanwhile, which others may be in need of.
                    isinstance(error, LockNotAvailable)
                    and isinstance(plan, AppendPlan)
                    and time.monotonic() < until
                ):
                    collisions += 1
                    await self._pool.pause(_pause(collisions))
                    continue
                raise faults.translated(error, self._opener.address) from error
            else:
                await self._after(tx, wire)
                return value
            finally:
                if wire.is_in_transaction:
                    wire.is_broken = True  # it could not even be rolled back
                self._pool.give(wire)

    def _is_to_be_repeated(self, error: Exception, wire: Wire, collisions: int) -> bool:
        """Whether the same plan may succeed now; all that it did was rolled back."""
        state = getattr(error, "sqlstate", None)
        if collisions >= TRIES:
            return False
        if state in faults.MIXED_UP:
            # A pooler that hides itself: from now on nothing of a session is used.
            self._opener.is_pooled = True
            wire.is_broken = True
            return True
        if state in faults.OUTDATED:
            wire.is_broken = True
            return True
        return state in faults.COLLISIONS


class _Attempt(Generic[T]):
    """One run of a plan on one connection."""

    __slots__ = ("_plan", "_wire", "is_harmless")

    def __init__(self, plan: Plan[T], wire: Wire) -> None:
        self._plan = plan
        self._wire = wire
        # Whether nothing is stored if the connection is lost now.
        self.is_harmless = True

    async def carry_out(self, begin: Callable[[Wire], PostgresTx]) -> tuple[T, PostgresTx]:
        wire, plan = self._wire, self._plan
        tx = begin(wire)
        if is_stepwise(plan):
            self.is_harmless = plan.reads
            return await plan.within(tx), tx
        wire.is_pending = True
        try:
            value = await plan.within(tx)
            if not wire.is_pending:
                self.is_harmless = False
                if await wire.command(b"commit") != b"COMMIT":
                    raise EngineUnavailable("the transaction was rolled back by the server")
        except BaseException:
            if not wire.is_lost and wire.is_in_transaction:
                self.is_harmless = True
                await wire.command(b"rollback")
            raise
        finally:
            wire.is_pending = False
        return value, tx


def _pause(collisions: int) -> float:
    return random.uniform(0, min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2**collisions))  # noqa: S311
