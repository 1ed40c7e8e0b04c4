"""A transaction that a job holds open, on the caller's connection or on one lent to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from backlane.engine.caller import AsyncCaller, Caller, called
from backlane.engine.caller.kind import is_async, plain
from backlane.engine.caller.psycopg import AsyncPsycopgCaller, PsycopgCaller
from backlane.engine.plan import Plan
from backlane.engine.postgres.driver.joining import Home, JoinedTransaction
from backlane.engine.postgres.driver.lent import Lending
from backlane.engine.postgres.store import faults
from backlane.engine.postgres.store.transaction import Rings
from backlane.errors import WrongUse

T = TypeVar("T")


class Block:
    """One transaction of a job: begun, joined by plans, ended."""

    def __init__(
        self, given: object | None, home: Home, lending: Lending, ring: Callable[[Rings], None]
    ) -> None:
        self._caller: Caller | AsyncCaller | None = None if given is None else called(given)
        self._is_lent = given is None
        self._home = home
        self._lending = lending
        self._ring = ring
        self._joined: JoinedTransaction | None = None

    # -- without `await` --

    def begin(self) -> object:
        """Begin; return the connection."""
        if self._caller is None:
            self._caller = PsycopgCaller(self._lending.lend())
        caller = self._plain()
        caller.begin()
        return caller.connection

    def run(self, plan: Plan[T]) -> T:
        """Run a plan in the transaction."""
        return self._join().run(plan)

    def commit(self) -> None:
        """Make all of it durable, and ring."""
        caller = self._plain()
        try:
            caller.commit()
        except Exception as error:
            raise self._told(error) from error
        self._after()
        self._give_back()

    def rollback(self) -> None:
        """Undo all of it."""
        if self._caller is None:
            return
        try:
            self._plain().rollback()
        finally:
            self._give_back()

    # -- with it --

    async def abegin(self) -> object:
        """Like `begin`."""
        if self._caller is None:
            self._caller = AsyncPsycopgCaller(await self._lending.alend())
        if is_async(self._caller):
            await self._caller.abegin()
        else:
            self._plain().begin()
        return self._caller.connection

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`."""
        return await self._join().arun(plan)

    async def acommit(self) -> None:
        """Like `commit`."""
        caller = self._caller
        if caller is None or not is_async(caller):
            self.commit()
            return
        try:
            await caller.acommit()
        except Exception as error:
            raise self._told(error) from error
        self._after()
        await self._agive_back()

    async def arollback(self) -> None:
        """Like `rollback`."""
        caller = self._caller
        if caller is None or not is_async(caller):
            self.rollback()
            return
        try:
            await caller.arollback()
        finally:
            await self._agive_back()

    # -- both --

    def _join(self) -> JoinedTransaction:
        if self._caller is None:
            raise WrongUse("the transaction has not begun")
        if self._joined is None:
            # Rung by us: nobody knows better when this commits.
            self._joined = JoinedTransaction(self._caller, self._home, None)
        return self._joined

    def _after(self) -> None:
        if self._joined is not None:
            self._ring(self._joined.rings.empty())

    def _give_back(self) -> None:
        caller = self._caller
        if self._is_lent and isinstance(caller, PsycopgCaller):
            self._caller = None
            self._lending.take_back(caller.connection)

    async def _agive_back(self) -> None:
        caller = self._caller
        if self._is_lent and isinstance(caller, AsyncPsycopgCaller):
            self._caller = None
            await self._lending.atake_back(caller.connection)

    def _plain(self) -> Caller:
        if self._caller is None:
            raise WrongUse("the transaction has not begun")
        return plain(self._caller, "use `async with context.transaction(…)`")

    def _told(self, error: Exception) -> BaseException:
        """Return what a failed commit is told as: lost on its way, it may have been done."""
        if faults.is_ended(error):
            return faults.unknown(error, self._home.links.address)
        return error
