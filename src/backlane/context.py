"""Inside a running job: who am I, how far have I come, am I to stop.

A task whose first parameter is annotated `Context` is given one; the parameter is
absent from calls of `enqueue`. A `Context` only says and hears: what it reports is
written by the worker, at most once a second, and fenced by the job's lease. What a job
writes itself together with its end, it writes in a `transaction`.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from typing import ParamSpec, Protocol, TypeVar

from backlane.errors import BadOption, JobCancelled, JobExpired, JobFailed, WrongUse
from backlane.memo import Memo
from backlane.model.codec import decode_headers
from backlane.model.job import Lease, Progress
from backlane.model.retry import Duration, milliseconds
from backlane.transaction import JobTransaction

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = ParamSpec("S")
T = TypeVar("T")

Transact = Callable[[object | None], JobTransaction]


class Snooze(Exception):
    """Raise this in a job to put it off by `delay`; the attempt is not counted.

    Raises:
        BadOption: the delay is not a duration from 0 to 100 years.

    .. versionadded:: 0.1
    """

    def __init__(self, delay: Duration) -> None:
        self.delay_ms = milliseconds(delay, "delay")
        super().__init__(f"due again in {self.delay_ms / 1000:g} s")


class Joining(Exception):
    """A job gives its slot back until these jobs have ended."""

    def __init__(self, jobs: tuple[bytes, ...]) -> None:
        self.jobs = jobs
        super().__init__(f"waits for {len(jobs)} jobs to end")


class Grip(Protocol[R_co]):
    """What can be joined: a handle of a job or of a workflow."""

    @property
    def id(self) -> uuid.UUID: ...

    def result(self, timeout: Duration | None = None) -> R_co: ...

    async def aresult(self, timeout: Duration | None = None) -> R_co: ...  # noqa: ASYNC109


class Context:
    """A running job as its own function sees it.

    Args:
        lease: the right under which the job runs.
        note: takes progress to be kept; called as often as the function reports.
        is_cancelled: says whether the job was asked to stop.
        transact: returns the transaction that settles the job, on a connection if given.
        recall: returns the memo of the job's steps.
        wall_ms: says what time it is.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        lease: Lease,
        *,
        note: Callable[[Progress], None],
        is_cancelled: Callable[[], bool],
        transact: Transact | None = None,
        recall: Callable[[], Memo] | None = None,
        wall_ms: Callable[[], int] | None = None,
    ) -> None:
        self._recall, self._wall_ms = recall, wall_ms
        self.lease = lease
        self._note = note
        self._is_cancelled = is_cancelled
        self._transact = transact

    @classmethod
    def detached(
        cls, task: str = "detached", queue: str = "default", *, transact: Transact | None = None
    ) -> Context:
        """Return a context of no job: it reports nowhere and is never cancelled.

        A direct call of a task is given one; its `id` is the nil UUID. A transaction of
        it commits what is written there, and has no job to settle.
        """
        lease = Lease(job=bytes(16), token=0, attempt=0, queue=queue, task=task, body=b"")
        return cls(lease, note=_nowhere, is_cancelled=_never, transact=transact)

    @cached_property
    def id(self) -> uuid.UUID:
        """The job's id."""
        return uuid.UUID(bytes=self.lease.job)

    @property
    def task(self) -> str:
        return self.lease.task or ""

    @property
    def queue(self) -> str:
        return self.lease.queue

    @property
    def attempt(self) -> int:
        """Which execution this is; 1 is the first."""
        return self.lease.attempt + 1

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """What the enqueuer, or a middleware there, attached to the job."""
        return decode_headers(self.lease.headers)

    @property
    def enqueued_at(self) -> datetime:
        return datetime.fromtimestamp(self.lease.enqueued_ms / 1000, UTC)

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop, by `cancel()` or by its timeout."""
        return self._is_cancelled()

    def check(self) -> None:
        """Do nothing, or end the job here if it was asked to stop.

        Raises:
            JobCancelled: let it pass, and the job ends as cancelled.
        """
        if self._is_cancelled():
            raise JobCancelled(f"job {self.id} was asked to stop")

    def progress(self, fraction: float | None, message: str | None = None) -> None:
        """Say how far the job is: a fraction from 0 to 1, words, or both.

        May be called at any rate: the newest report is kept once a second.

        Raises:
            BadOption: the fraction is outside 0 to 1.
        """
        if fraction is not None and not (isinstance(fraction, int | float) and 0 <= fraction <= 1):
            raise BadOption(f"progress is {fraction!r}; use a fraction from 0 to 1")
        self._note(Progress(fraction, message))

    def track(self, items: Iterable[T], message: str | None = None) -> Iterator[T]:
        """Yield the items, reporting progress and hearing cancellation at each.

        Items that have no length are counted in words instead of a fraction.

        Raises:
            JobCancelled: the job was asked to stop; no further item is yielded.
        """
        total = len(items) if isinstance(items, Sized) else None
        for done, item in enumerate(items):
            self.check()
            self._report(done, total, message)
            yield item
        if total:
            self._report(total, total, message)

    # -- steps --

    def step(self, name: str, function: Callable[S, T], *args: S.args, **kwargs: S.kwargs) -> T:
        """Call a function once in the life of the job, and return what it returned.

        Its result is durable before this returns; the next attempt gets it without a call.
        It is read by the function's return annotation, as a task's result is; a handle of a
        job or workflow may be one. The second step of a name in one attempt is another one
        (`name#2`), so that a loop may have steps.

        Raises:
            LeaseLost: the job is another's by now; the step was not kept.
            JobCancelled: the job was asked to stop; the step was not begun.
            Unencodable, TooLarge: the result cannot be stored.
            WrongUse: the function is async, or an event loop runs here: use `astep`.
        """
        if self._recall is None:
            return function(*args, **kwargs)
        self.check()
        return self.memo.step(name, function, args, kwargs)

    async def astep(
        self, name: str, function: Callable[S, Awaitable[T]], *args: S.args, **kwargs: S.kwargs
    ) -> T:
        """Like `step`, of an `async def`."""
        if self._recall is None:
            return await function(*args, **kwargs)
        self.check()
        return await self.memo.astep(name, function, args, kwargs)

    @cached_property
    def memo(self) -> Memo:
        """The steps of this job."""
        if self._recall is None:
            raise WrongUse("this context belongs to no job, so there are no steps to recall")
        return self._recall()

    def sleep_until(self, when: datetime) -> None:
        """Give the slot back until then; the function begins anew, its steps stay done.

        Returns at once when the moment has come. Compute the moment in a step, so that it
        is the same in each attempt. The attempt is not counted.

        Raises:
            Snooze: let it pass.
            BadOption: the moment has no time zone.
        """
        if not isinstance(when, datetime) or when.tzinfo is None:
            raise BadOption(f"sleep_until was given {when!r}; use a datetime with a time zone")
        if self._wall_ms is None:
            return
        left_ms = int(when.timestamp() * 1000) - self._wall_ms()
        if left_ms > 0:
            raise Snooze(left_ms / 1000)

    def join(self, handles: Iterable[Grip[R]], *, partial: bool = False) -> list[R | None]:
        """Give the slot back until these jobs (or workflows) have ended; return their results.

        The function begins anew once they have, so enqueue them in steps:
        `context.join([context.step("ask", ask.enqueue, 7)])`. The attempt is not counted.

        Args:
            partial: return None for those that did not succeed, instead of raising.

        Raises:
            JobFailed, JobCancelled, JobExpired, ResultGone: of the first that has no result.
        """
        grips = list(handles)
        jobs = tuple(grip.id.bytes for grip in grips)
        if self._recall is not None and self.memo.are_open(jobs):
            raise Joining(jobs)
        outside = current.set(None)  # what has ended is not waited for
        try:
            return [_result(grip.result, partial=partial) for grip in grips]
        finally:
            current.reset(outside)

    async def ajoin(self, handles: Iterable[Grip[R]], *, partial: bool = False) -> list[R | None]:
        """Like `join`, without blocking the event loop."""
        grips = list(handles)
        jobs = tuple(grip.id.bytes for grip in grips)
        if self._recall is not None and await self.memo.aare_open(jobs):
            raise Joining(jobs)
        outside = current.set(None)
        try:
            return [await _aresult(grip.aresult, partial=partial) for grip in grips]
        finally:
            current.reset(outside)

    def transaction(self, connection: object | None = None) -> JobTransaction:
        """Commit the job's own writes and its completion together: `with` or `async with`.

        Leaving the block by its end, or by `return tx.complete(value)`, settles the job
        as succeeded with that value and commits. An exception rolls back, and the attempt
        ends by it. Make the block the last thing the function does.

        Args:
            connection: where the job writes: a connection or session of psycopg,
                SQLAlchemy or apsw, or a Django alias, on the database that holds the
                jobs. The block commits all that is uncommitted on it. Without one,
                `tx.connection` is a connection of the store's own.

        Raises:
            LeaseLost: on leaving: the job is another's by now; all is rolled back.
            NotSupported: the engine has no transactions to share; says what to do.
            WrongUse: the connection cannot be joined, or the job is settled already.
        """
        if self._transact is None:
            raise WrongUse(
                "this context belongs to no application, so there is no store to complete a job "
                "in; call the task itself, or run its job"
            )
        return self._transact(connection)

    def _report(self, done: int, total: int | None, message: str | None) -> None:
        if total is not None:
            self._note(Progress(min(1.0, done / total), message))
        else:
            self._note(Progress(None, f"{message}: {done}" if message else f"{done} done"))


def _result(result: Callable[[], R], *, partial: bool) -> R | None:
    try:
        return result()
    except (JobFailed, JobCancelled, JobExpired):
        if not partial:
            raise
        return None


async def _aresult(result: Callable[[], Awaitable[R]], *, partial: bool) -> R | None:
    try:
        return await result()
    except (JobFailed, JobCancelled, JobExpired):
        if not partial:
            raise
        return None


def _nowhere(_: Progress) -> None:
    """Take progress that nobody asked for."""


def _never() -> bool:
    return False


current: ContextVar[Context | None] = ContextVar("backlane_current", default=None)
"""The context of the job that runs here. The worker sets it around the function, whether
or not the function asks for a `Context`; enqueues made there know their parent by it."""
