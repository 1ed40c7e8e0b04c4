"""Holding a place under a limit outside of jobs: `with app.limit("stripe"): …`.

The place is a lease: it is renewed while the block runs, and is free soon after a
process that died in it. A renewal that comes too late loses the place; then the block is
told, for others may be in it by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from types import TracebackType
from typing import Self

from backlane.engine.limiting import Acquired
from backlane.engine.plan import Plan
from backlane.errors import EngineUnavailable, LeaseLost, LimitTimeout, OutcomeUnknown, WrongUse
from backlane.model import limit as stored
from backlane.model.limit import Use
from backlane.model.retry import Duration
from backlane.place import Place
from backlane.wait import Wait, in_a_loop

log = logging.getLogger("backlane")

LEASE_MS = 30_000  # that a dead process holds its place for, as a worker does its jobs
EVERY_SECONDS = 10.0  # it is renewed
POLL_MS = 200  # how often who waits asks, where no time is known: nothing rings for it


class LimitBlock:
    """A place under a limit for the length of a block: `app.limit(name)`.

    Entering waits until there is room, `timeout` at most; leaving gives the place back.
    One object may be entered many times, also at once: each has a place of its own.

    .. versionadded:: 0.1
    """

    def __init__(
        self, place: Place, use: Use, declared: stored.Limit, timeout: Duration | None
    ) -> None:
        self._place, self._use, self._declared = place, use, declared
        self._timeout = timeout
        self._wait()  # a timeout that is none is refused here, where it is written
        self._inside = threading.local()
        self._tasks: dict[asyncio.Task[object] | None, list[_Held]] = {}

    def __repr__(self) -> str:
        return f"<LimitBlock {self._use.limit}>"

    # -- in threads --

    def __enter__(self) -> Self:
        if in_a_loop():
            raise WrongUse(
                f"`with app.limit({self._use.limit!r})` would block the running event loop; use "
                "`async with`"
            )
        held, wait, bell = self._held(), self._wait(), self._place.engine.listen(())
        try:
            while not (answer := self._place.engine.run(held.plan())).is_given:
                self._check_in_time(wait)
                wait.heard(bell, answer.wait_ms or POLL_MS)
        finally:
            bell.close()
        held.begin()
        self._stack().append(held)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        held = self._stack().pop()
        held.end()
        is_lost = held.is_lost
        try:
            is_lost = not self._place.engine.run(held.release()) or is_lost
        except (EngineUnavailable, OutcomeUnknown) as away:
            log.warning("a place under limit %s could not be given back: %s", self._name, away)
        if is_lost and error is None:
            raise self._lost()

    def _stack(self) -> list[_Held]:
        if not hasattr(self._inside, "stack"):
            self._inside.stack = []
        stack: list[_Held] = self._inside.stack
        return stack

    # -- in coroutines --

    async def __aenter__(self) -> Self:
        held, wait, bell = self._held(), self._wait(), self._place.engine.listen(())
        try:
            while not (answer := await self._aask(held)).is_given:
                self._check_in_time(wait)
                await wait.aheard(bell, answer.wait_ms or POLL_MS)
        finally:
            bell.close()
        held.abegin()
        self._tasks.setdefault(asyncio.current_task(), []).append(held)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mine = self._tasks[asyncio.current_task()]
        held = mine.pop()
        if not mine:
            del self._tasks[asyncio.current_task()]
        was_stopped = await held.aend()
        is_lost = held.is_lost
        try:
            is_lost = not await self._place.engine.arun(held.release()) or is_lost
        except (EngineUnavailable, OutcomeUnknown) as away:
            log.warning("a place under limit %s could not be given back: %s", self._name, away)
        if is_lost and (error is None or was_stopped):
            raise self._lost() from error

    async def _aask(self, held: _Held) -> Acquired:
        """Ask for a place; one that was given to a caller who went away is given back."""
        try:
            return await self._place.engine.arun(held.plan())
        except asyncio.CancelledError:
            with contextlib.suppress(EngineUnavailable, OutcomeUnknown):
                await self._place.engine.arun(held.release())
            raise

    # -- steps of these --

    @property
    def _name(self) -> str:
        return self._use.limit

    def _held(self) -> _Held:
        return _Held(self._place, self._use, self._declared)

    def _wait(self) -> Wait:
        return Wait(self._place.clock, self._timeout)

    def _check_in_time(self, wait: Wait) -> None:
        if wait.is_over:
            raise LimitTimeout(
                f"no place under limit {self._name!r} was free within {self._timeout} s; wait for "
                f"longer (timeout=None: as long as it takes), or raise it: "
                f"`backlane limits tune {self._name}`"
            )

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"the place under limit {self._name!r} was lost while the block ran: the store was not "
            f"reached for {LEASE_MS // 1000} s, or this process stood still; others may have been "
            "in it at the same time"
        )


class _Held:
    """One place, while it is held."""

    def __init__(self, place: Place, use: Use, declared: stored.Limit) -> None:
        self._place, self._use, self._declared = place, use, declared
        self._holder = os.urandom(16)
        self.is_lost = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._asked_ms = self._until_ms = 0
        self._owner: asyncio.Task[object] | None = None
        self._was_stopped = False

    def plan(self) -> Plan[Acquired]:
        """Take the place, or keep it for longer."""
        self._asked_ms = self._place.clock.boot_ms()
        return self._place.engine.acquire(self._use, self._declared, self._holder, LEASE_MS)

    def release(self) -> Plan[bool]:
        return self._place.engine.release(self._use, self._holder)

    def begin(self) -> None:
        """Keep it from a thread."""
        self._until_ms = self._asked_ms + LEASE_MS
        self._thread = threading.Thread(target=self._renew, name="backlane-limit", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        while not self.is_lost and not self._ended.wait(EVERY_SECONDS):
            try:
                self._took(self._place.engine.run(self.plan()))
            except (EngineUnavailable, OutcomeUnknown) as error:
                self._missed(error)

    def abegin(self) -> None:
        """Keep it from a task of the running loop."""
        self._until_ms = self._asked_ms + LEASE_MS
        self._owner = asyncio.current_task()
        self._renewing = asyncio.ensure_future(self._arenew())

    async def aend(self) -> bool:
        """Keep it no longer; return whether the block was cancelled because it was lost."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        if self._was_stopped and self._owner is not None:
            self._owner.uncancel()
        return self._was_stopped

    async def _arenew(self) -> None:
        while not self.is_lost:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                self._took(await self._place.engine.arun(self.plan()))
            except (EngineUnavailable, OutcomeUnknown) as error:
                self._missed(error)
        if self._owner is not None:
            self._was_stopped = True
            self._owner.cancel()

    def _took(self, answer: Acquired) -> None:
        # A place that is given again after its lease was over may have been another's.
        self.is_lost = not answer.is_given or self._asked_ms >= self._until_ms
        self._until_ms = self._asked_ms + LEASE_MS

    def _missed(self, error: Exception) -> None:
        """The store was not reached: the place is ours until its lease is over."""
        self.is_lost = self._place.clock.boot_ms() >= self._until_ms
        log.warning("a place under limit %s could not be renewed: %s", self._use.limit, error)
