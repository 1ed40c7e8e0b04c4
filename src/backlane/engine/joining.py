"""Joining: transactions that plans share with what others write.

`Joined` is one that the caller has begun and ends: jobs enqueued there exist if and
only if it commits. `Transaction` is one that a job holds open and the engine ends: the
job's writes and its completion are one.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from backlane.engine.plan import Plan

T = TypeVar("T")


class Joined(Protocol):
    """The caller's open transaction, in which plans run and which the caller commits."""

    def run(self, plan: Plan[T]) -> T: ...

    async def arun(self, plan: Plan[T]) -> T: ...


class Transaction(Joined, Protocol):
    """A transaction that a job holds open, which the engine begins and ends.

    `begin` returns the connection it is open on. After `commit` the bells of what ran
    within it have been rung; `rollback` may be called in any state.
    """

    def begin(self) -> object: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    async def abegin(self) -> object: ...

    async def acommit(self) -> None: ...

    async def arollback(self) -> None: ...
