"""Transactions of the ledger's: plans run in them as the ledger's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from backlane.engine.brokered.errand import plain
from backlane.engine.joining import Joined, Transaction
from backlane.engine.plan import Plan

T = TypeVar("T")


class PlainJoined:
    """The caller's transaction. Its commit is heard of by the ledger's bell, or by polling."""

    def __init__(self, joined: Joined) -> None:
        self._joined = joined

    def run(self, plan: Plan[T]) -> T:
        return self._joined.run(plain(plan))

    async def arun(self, plan: Plan[T]) -> T:
        return await self._joined.arun(plain(plan))


class PlainTransaction:
    """A transaction that a job holds open; `ended` is called once it has committed."""

    def __init__(self, transaction: Transaction, ended: Callable[[], None]) -> None:
        self._transaction, self._ended = transaction, ended

    def run(self, plan: Plan[T]) -> T:
        return self._transaction.run(plain(plan))

    async def arun(self, plan: Plan[T]) -> T:
        return await self._transaction.arun(plain(plan))

    def begin(self) -> object:
        return self._transaction.begin()

    def commit(self) -> None:
        self._transaction.commit()
        self._ended()

    def rollback(self) -> None:
        self._transaction.rollback()

    async def abegin(self) -> object:
        return await self._transaction.abegin()

    async def acommit(self) -> None:
        await self._transaction.acommit()
        self._ended()

    async def arollback(self) -> None:
        await self._transaction.arollback()
