"""A job's own transaction: its writes and its completion commit together, or not at all.

    with context.transaction() as tx:
        tx.connection.execute("update account set …")
        return tx.complete("paid")

The job is settled by the last statement before the commit, fenced by its lease: what a
job has written here is there once, however often it was started.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import msgspec

from backlane.engine.joining import Transaction
from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine, Settled
from backlane.errors import LeaseLost, Unencodable, WrongUse
from backlane.model.job import Lease
from backlane.model.outcome import Settlement, Succeeded

log = logging.getLogger("backlane")

R = TypeVar("R")


class Settling(msgspec.Struct, frozen=True):
    """How the job of a transaction is settled, and who is told that it has been."""

    engine: Engine
    lease: Lease
    encode: Callable[[object], bytes | None]
    completed: Callable[[Succeeded, Settled], None]  # after the commit
    started: float  # monotonic: of the attempt

    def plan(self, outcome: Succeeded) -> Plan[Settled]:
        """Return what settles the job with this outcome."""
        lease, ran_ms = self.lease, int((time.monotonic() - self.started) * 1000)
        return self.engine.settle([Settlement(lease.job, lease.token, outcome, ran_ms)])


class JobTransaction:
    """What `context.transaction()` returns: a block for `with` or `async with`.

    Leaving the block by its end settles the job as succeeded and commits, both or
    neither. Any exception that leaves it rolls back, and ends the attempt as usual.

    .. versionadded:: 0.1
    """

    def __init__(self, transaction: Transaction, settling: Settling | None) -> None:
        """Be the block of `transaction`; without `settling` there is no job to settle."""
        self._transaction = transaction
        self._settling = settling
        self._connection: object | None = None
        self._outcome: Succeeded | None = None
        self._was_entered = False

    @property
    def is_open(self) -> bool:
        """Whether the block has been entered and not been left."""
        return self._connection is not None

    @property
    def connection(self) -> Any:
        """The connection the transaction is open on: your own, or the one you were given.

        Raises:
            WrongUse: the block has not been entered, or has been left.
        """
        if self._connection is None:
            raise WrongUse(
                "the transaction is not open here; use its connection inside the block: "
                "with context.transaction() as tx: tx.connection…"
            )
        return self._connection

    @overload
    def complete(self) -> None: ...
    @overload
    def complete(self, value: R) -> R: ...
    def complete(self, value: object = None) -> object:
        """Let the job's result be `value`, and return it; without this call it is None.

        The job is settled when the block is left, so make this the last statement:
        `return tx.complete(value)`. What the function returns otherwise is not looked at.

        Raises:
            WrongUse: outside of the block, or a second time.
            Unencodable, TooLarge: the value cannot be a result; nothing is committed.
        """
        if self._connection is None or self._outcome is not None:
            when = "outside of its block" if self._connection is None else "a second time"
            raise WrongUse(f"tx.complete() was called {when}; call it once, last in the block")
        settling = self._settling
        self._outcome = Succeeded(None if settling is None else settling.encode(value))
        return value

    # -- a block of a plain function --

    def __enter__(self) -> Self:
        self._enter_once()
        self._connection = self._transaction.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._close(self._transaction.rollback)
            return
        try:
            outcome, settled = self._last(), Settled()
            if self._settling is not None:
                settled = self._transaction.run(self._settling.plan(outcome))
                self._check(settled)
            self._transaction.commit()
        except BaseException:
            self._close(self._transaction.rollback)
            raise
        self._connection = None
        self._tell(outcome, settled)

    def _close(self, rollback: Callable[[], None]) -> None:
        self._connection = None
        try:
            rollback()
        except Exception as error:  # noqa: BLE001 - a connection that is gone rolls back by itself
            log.debug("the rollback of a job's transaction failed: %r", error)

    # -- a block of an async function --

    async def __aenter__(self) -> Self:
        self._enter_once()
        self._connection = await self._transaction.abegin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await _to_its_end(self._aclose())
        else:
            await _to_its_end(self._acommit())

    async def _acommit(self) -> None:
        try:
            outcome, settled = self._last(), Settled()
            if self._settling is not None:
                settled = await self._transaction.arun(self._settling.plan(outcome))
                self._check(settled)
            await self._transaction.acommit()
        except BaseException:
            await self._aclose()
            raise
        self._connection = None
        self._tell(outcome, settled)

    async def _aclose(self) -> None:
        self._connection = None
        try:
            await self._transaction.arollback()
        except Exception as error:  # noqa: BLE001 - as above
            log.debug("the rollback of a job's transaction failed: %r", error)

    # -- both --

    def _enter_once(self) -> None:
        if self._was_entered:
            # The first end settles the job, and what is written after it would be lost.
            raise WrongUse("this transaction was entered before; a job enters it once")
        self._was_entered = True

    def _last(self) -> Succeeded:
        """Return how the job ends; without `complete` with None, if the task may return it."""
        if self._outcome is None:
            try:
                self.complete()
            except Unencodable as error:
                raise WrongUse(
                    "the block was left without tx.complete(…), and the task's annotation does "
                    "not let its result be None; call tx.complete(value) last in the block"
                ) from error
        return self._outcome or Succeeded()

    def _check(self, settled: Settled) -> None:
        if settled.lost and self._settling is not None:
            job = uuid.UUID(bytes=self._settling.lease.job)
            raise LeaseLost(
                f"job {job}: its lease has ended or went to another, so nothing of this "
                "transaction was kept; whoever has the job now does it"
            )

    def _tell(self, outcome: Succeeded, settled: Settled) -> None:
        if self._settling is not None:
            self._settling.completed(outcome, settled)


async def _to_its_end(running: Coroutine[Any, Any, None]) -> None:
    """Await something that a cancellation of the caller must not stop half-way.

    The cancellation is raised once it is done: by then it is known whether it committed.
    """
    task = asyncio.ensure_future(running)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - raised again by `result`
            break
    task.result()
    if cancelled is not None:
        raise cancelled
