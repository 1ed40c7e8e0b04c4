"""The two kinds of callers, by colour, and the transaction that a job holds on one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeGuard, TypeVar, cast

from backlane.engine.plan import Plan
from backlane.errors import WrongUse

T = TypeVar("T")


class Caller(Protocol):
    """A connection that is used without `await`."""

    @property
    def connection(self) -> object:
        """It, as it was handed in, or what an alias stands for."""

    def driver(self) -> Any:
        """Return the driver's connection, in a transaction begun as its library would.

        Raises:
            WrongUse: there is no transaction that could hold a job; says how to begin one.
        """

    def after_commit(self, ring: Callable[[], None]) -> bool:
        """Have `ring` called after the commit; False where the library tells of none."""

    def begin(self) -> None:
        """Begin a transaction that `commit` or `rollback` will end.

        Raises:
            WrongUse: it is in one that somebody else ends.
        """

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


class AsyncCaller(Protocol):
    """A connection that is used with `await`; otherwise as `Caller`."""

    @property
    def connection(self) -> object: ...

    async def adriver(self) -> Any: ...

    def after_commit(self, ring: Callable[[], None]) -> bool: ...

    async def abegin(self) -> None: ...

    async def acommit(self) -> None: ...

    async def arollback(self) -> None: ...


class Runs(Protocol):
    """Runs a plan, without `await`."""

    def __call__(self, plan: Plan[T], /) -> T: ...


class ARuns(Protocol):
    """Runs a plan, with `await`."""

    def __call__(self, plan: Plan[T], /) -> Awaitable[T]: ...


class HeldTransaction:
    """A transaction that a job holds on a caller's connection, and in which plans run."""

    def __init__(self, caller: Caller | AsyncCaller, run: Runs, arun: ARuns) -> None:
        self._caller = caller
        self._run = run
        self._arun = arun

    def begin(self) -> object:
        """Begin; return the connection."""
        self._plain().begin()
        return self._caller.connection

    def run(self, plan: Plan[T]) -> T:
        """Run a plan in the transaction."""
        return self._run(plan)

    def commit(self) -> None:
        """Make durable what was written, and whatever else was open on the connection."""
        self._plain().commit()

    def rollback(self) -> None:
        """Undo all of it."""
        self._plain().rollback()

    async def abegin(self) -> object:
        """Like `begin`; a connection that is used without `await` blocks for a moment."""
        if is_async(self._caller):
            await self._caller.abegin()
        else:
            self._plain().begin()
        return self._caller.connection

    async def arun(self, plan: Plan[T]) -> T:
        """Like `run`."""
        return await self._arun(plan) if is_async(self._caller) else self._run(plan)

    async def acommit(self) -> None:
        """Like `commit`."""
        if is_async(self._caller):
            await self._caller.acommit()
        else:
            self._plain().commit()

    async def arollback(self) -> None:
        """Like `rollback`."""
        if is_async(self._caller):
            await self._caller.arollback()
        else:
            self._plain().rollback()

    def _plain(self) -> Caller:
        return plain(self._caller, "use `async with context.transaction(…)`")


def is_async(caller: Caller | AsyncCaller) -> TypeGuard[AsyncCaller]:
    """Say whether a connection is used with `await`."""
    return hasattr(caller, "adriver")


def plain(caller: Caller | AsyncCaller, instead: str) -> Caller:
    """Return a caller that is used without `await`.

    Raises:
        WrongUse: it is not; `instead` says what to do.
    """
    if is_async(caller):
        raise WrongUse(f"{type(caller.connection).__name__} is used with `await`: {instead}")
    return cast("Caller", caller)
