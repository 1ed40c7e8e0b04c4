"""The merger: appends that come while others are under way go together in one statement.

A lone caller never waits for company: only while as many appends are under way as pay
does the next one stand in line, and whoever is first in line when one of them ends takes
all along that stand behind. So 200 coroutines stored 16,000 jobs a second where one by one,
on eight connections, they had stored 1,700.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from psycopg.errors import LockNotAvailable

from backlane.engine.plan import Plan
from backlane.engine.postgres.store.plans import AppendPlan
from backlane.errors import BacklaneError

FLIGHTS = 2  # one commits while the next one is sent
MOST_JOBS = 1_000


class Seat(Protocol):
    """A place in line, of a thread or a coroutine."""

    async def wait(self) -> None:
        """Wait for the answer, or to be the one that goes."""

    def wake(self) -> None: ...


class ThreadSeat:
    """A thread's place; its coroutine never suspends."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken = threading.Lock()
        self._woken.acquire()

    async def wait(self) -> None:
        self._woken.acquire()

    def wake(self) -> None:
        self._woken.release()


class LoopSeat:
    """A coroutine's place."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        await self._woken

    def wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


class _Waiting:
    """An append in line."""

    __slots__ = ("answer", "error", "is_alone", "is_answered", "is_first", "plan", "seat")

    def __init__(self, plan: AppendPlan[Any], seat: Seat) -> None:
        self.plan = plan
        self.seat = seat
        self.answer: Any = None
        self.error: BaseException | None = None
        self.is_answered = False
        self.is_first = False  # whoever is goes, and takes the others along
        self.is_alone = False  # together with others it could not be stored

    def tell(self, answer: Any, error: BaseException | None) -> None:
        self.answer, self.error, self.is_answered = answer, error, True
        self.seat.wake()

    def go_alone(self) -> None:
        self.is_alone = self.is_answered = True
        self.seat.wake()


class Merger:
    """The appends of one pool's callers."""

    def __init__(
        self, perform: Callable[[Plan[Any]], Awaitable[Any]], seat: Callable[[], Seat]
    ) -> None:
        self._perform = perform
        self._seat = seat
        self._flying = 0
        self._line: deque[_Waiting] = deque()
        self._lock = threading.Lock()

    async def append(self, plan: AppendPlan[Any]) -> Any:
        """Carry an append out, alone or with others; answers and errors are its own."""
        with self._lock:
            mine = None
            if self._flying < FLIGHTS:
                self._flying += 1
            else:
                mine = _Waiting(plan, self._seat())
                self._line.append(mine)
        try:
            if mine is None:
                return await self._perform(plan)
            await mine.seat.wait()
            if mine.is_first:
                company = self._company(mine)
                if not company:
                    return await self._perform(plan)
                await self._fly([mine, *company])
        finally:
            if mine is None or mine.is_first:
                self._land()
            elif not mine.is_answered:  # its loop ends
                with self._lock, contextlib.suppress(ValueError):
                    self._line.remove(mine)
        if mine.is_alone:
            return await self._perform(plan)
        if mine.error is not None:
            raise mine.error
        return mine.answer

    def _company(self, first: _Waiting) -> list[_Waiting]:
        """Take those out of the line that go along."""
        taken, jobs = [], first.plan.size
        with self._lock:
            while self._line and jobs + self._line[0].plan.size <= MOST_JOBS:
                jobs += self._line[0].plan.size
                taken.append(self._line.popleft())
        return taken

    def _land(self) -> None:
        """Let the first in line go, in the place of one that has ended."""
        with self._lock:
            if not self._line:
                self._flying -= 1
                return
            first = self._line.popleft()
            first.is_first = True
        first.seat.wake()

    async def _fly(self, together: list[_Waiting]) -> None:
        """Carry these out as one; where that fails through one of them, each goes alone."""
        try:
            plan = together[0].plan.merged([one.plan for one in together])
            answers = await self._perform(plan)
        except BaseException as error:
            is_one_of_them = not isinstance(error, BacklaneError) or isinstance(
                error.__cause__, LockNotAvailable
            )
            for one in together:
                if is_one_of_them and isinstance(error, Exception):
                    one.go_alone()
                else:  # of the server or the network: it is the same for all
                    one.tell(None, error)
            if not isinstance(error, Exception):
                raise
            return
        for one, answer in zip(together, answers, strict=True):
            one.tell(answer, None)
