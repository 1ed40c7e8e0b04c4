"""Handles: the caller's grip on a job.

A handle holds the job's id and how to read it, nothing that was read: each property
reads the store once, and `record()` reads all at once. Waiting listens for the store's
bell and reads again; where no bell rings it polls, so it never waits in vain.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any, Generic, NoReturn, TypeVar, cast

import msgspec

from backlane.context import current
from backlane.engine.plan import Plan
from backlane.engine.selection import Amended, Cancel, Page, Selection
from backlane.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    ResultGone,
    ResultTimeout,
    WrongUse,
)
from backlane.model.job import AttemptError, JobRecord, Progress, Receipt, State
from backlane.model.outcome import ErrorRecord
from backlane.model.retry import Duration
from backlane.place import Place
from backlane.wait import Wait, in_a_loop

R_co = TypeVar("R_co", covariant=True)


class Reader(msgspec.Struct, frozen=True):
    """What all handles of one task share: how its jobs are read, and their results."""

    place: Place
    decode_result: Callable[[bytes], Any]

    def find(self, job: bytes) -> Plan[Page]:
        """Return the plan that reads one job."""
        return self.place.engine.find(Selection(ids=(job,)), limit=1)

    def record(self, job: bytes) -> JobRecord:
        """Read one job, or raise `JobNotFound`."""
        return _only(job, self.place.engine.run(self.find(job)))

    async def arecord(self, job: bytes) -> JobRecord:
        """Like `record`."""
        return _only(job, await self.place.engine.arun(self.find(job)))


class JobChange(msgspec.Struct, frozen=True):
    """A difference between two readings of a job's record.

    `fields` names what differs from the reading before (nothing at the first).
    `revision` grows by one at every change of the job, so a gap tells how many
    changes came between two readings.
    """

    revision: int
    state: State
    fields: tuple[str, ...]
    record: JobRecord


class JobHandle(Generic[R_co]):
    """A job that was enqueued, whose function returns `R_co`.

    .. versionadded:: 0.1
    """

    __slots__ = ("_job", "_reader", "_receipt")

    def __init__(self, job: bytes, reader: Reader, receipt: Receipt | None = None) -> None:
        self._job = job
        self._reader = reader
        self._receipt = receipt

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and other._job == self._job

    def __hash__(self) -> int:
        return hash(self._job)

    @property
    def id(self) -> uuid.UUID:
        """The job's id, a UUID of version 7: it holds the time of the enqueue."""
        return uuid.UUID(bytes=self._job)

    # -- what the enqueue answered --

    @property
    def is_new(self) -> bool | None:
        """Whether the enqueue stored it; False: one with its id or key was there already.

        None for a handle that did not come from an enqueue.

        .. versionadded:: 0.1
        """
        return None if self._receipt is None else self._receipt.is_new

    @property
    def pressure(self) -> float | None:
        """How full its queue was after the enqueue, 0 to 1: the fullest of its bounds.

        None for a handle that did not come from an enqueue.

        .. versionadded:: 0.1
        """
        return None if self._receipt is None else self._receipt.pressure

    @property
    def expected_wait(self) -> timedelta | None:
        """How long it was expected to wait for a worker, told at the enqueue.

        None where nothing is known of the queue's speed, for a job that is due later, and
        for a handle that did not come from an enqueue.

        .. versionadded:: 0.1
        """
        if self._receipt is None or self._receipt.expected_ms is None:
            return None
        return timedelta(milliseconds=self._receipt.expected_ms)

    @property
    def receipt(self) -> Receipt | None:
        """What the store answered to the enqueue; None for a handle that did not come from one.

        .. versionadded:: 0.1
        """
        return self._receipt

    @property
    def decode_result(self) -> Callable[[bytes], Any]:
        """How the job's stored result is read: by the annotation of its task."""
        return self._reader.decode_result

    # -- one reading each --

    def record(self) -> JobRecord:
        """Read all that is known of the job now.

        Raises:
            JobNotFound: it is not stored, or its history has been pruned.
        """
        return self._reader.record(self._job)

    async def arecord(self) -> JobRecord:
        """Like `record`."""
        return await self._reader.arecord(self._job)

    @property
    def state(self) -> State:
        return self.record().state

    @property
    def attempts(self) -> int:
        """Executions counted so far."""
        return self.record().attempt

    @property
    def errors(self) -> tuple[AttemptError, ...]:
        """What ended the attempts that failed: the newest 20, oldest first."""
        return self.record().errors

    @property
    def progress(self) -> Progress | None:
        """What the job last reported of itself, at most a second old while it runs."""
        return self.record().progress

    # -- cancelling --

    def cancel(self) -> bool:
        """Cancel the job: at once while it waits, by asking it to stop while it runs.

        Returns False when it had ended already.

        Raises:
            JobNotFound: it is not stored.
        """
        return _cancelled(self._job, self._reader.place.engine.run(self._cancel()))

    async def acancel(self) -> bool:
        """Like `cancel`."""
        return _cancelled(self._job, await self._reader.place.engine.arun(self._cancel()))

    def _cancel(self) -> Plan[Amended]:
        return self._reader.place.engine.amend(Selection(ids=(self._job,)), Cancel())

    # -- the result --

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the job to end and return what its function returned.

        Without a timeout it waits as long as it takes. A timeout of 0 reads once.

        Raises:
            ResultTimeout: it has not ended in time; it goes on, and can be asked again.
            JobFailed: it is a dead letter; `error` is the record of its last error.
            JobCancelled, JobExpired: it will not run.
            ResultGone: it succeeded, and its result was not kept.
            JobNotFound: it is not stored.
            WrongUse: called inside a job, or where it would block an event loop.
        """
        refuse_inside_a_job()
        wait = Wait(self._reader.place.clock, timeout)
        if wait.is_over:
            return self._value(self.record(), wait)
        if in_a_loop():
            return self._value_without_waiting(wait)
        bell = self._reader.place.engine.watch((self._job,))
        try:
            while not (record := self.record()).state.is_final and not wait.is_over:
                wait.heard(bell)
        finally:
            bell.close()
        return self._value(record, wait)

    async def aresult(self, timeout: Duration | None = None) -> R_co:  # noqa: ASYNC109 - as `result`
        """Like `result`."""
        refuse_inside_a_job()
        wait = Wait(self._reader.place.clock, timeout)
        if wait.is_over:
            return self._value(await self.arecord(), wait)
        bell = self._reader.place.engine.watch((self._job,))
        try:
            while not (record := await self.arecord()).state.is_final and not wait.is_over:
                await wait.aheard(bell)
        finally:
            bell.close()
        return self._value(record, wait)

    def _value_without_waiting(self, wait: Wait) -> R_co:
        record = self.record()
        if record.state.is_final:
            return self._value(record, wait)
        raise WrongUse(
            f"result() of job {self.id} would block the running event loop; "
            "use `await job.aresult()`"
        )

    def _value(self, record: JobRecord, wait: Wait) -> R_co:
        if record.state is not State.SUCCEEDED:
            _refuse_result(record, wait)
        if record.result is None:
            raise ResultGone(
                f"job {self.id} ({record.task}) succeeded and its result was not kept; "
                "declare the task without keep_result=False to keep results"
            )
        return cast("R_co", self._reader.decode_result(record.result))

    # -- following --

    def follow(self) -> Iterator[JobChange]:
        """Yield the job as it is now, then each change, until it is in a final state.

        Changes that follow one another faster than they are read come as one.

        Raises:
            JobNotFound: it is not stored.
        """
        wait = Wait(self._reader.place.clock, None)
        bell = self._reader.place.engine.watch((self._job,), starts=True)
        before: JobRecord | None = None
        try:
            while before is None or not before.state.is_final:
                record = self.record()
                if before is None or record.revision != before.revision:
                    yield _change(before, record)
                    before = record
                    wait.restart()
                elif not record.state.is_final:
                    wait.heard(bell)
        finally:
            bell.close()

    async def events(self) -> AsyncIterator[JobChange]:
        """Like `follow`, as an async iterator."""
        wait = Wait(self._reader.place.clock, None)
        bell = self._reader.place.engine.watch((self._job,), starts=True)
        before: JobRecord | None = None
        try:
            while before is None or not before.state.is_final:
                record = await self.arecord()
                if before is None or record.revision != before.revision:
                    yield _change(before, record)
                    before = record
                    wait.restart()
                elif not record.state.is_final:
                    await wait.aheard(bell)
        finally:
            bell.close()


def _only(job: bytes, page: Page) -> JobRecord:
    if not page.records:
        raise JobNotFound(
            f"no job {uuid.UUID(bytes=job)} is stored: it was deleted, its history has been "
            "pruned, or it is in another store; check the id and the URL"
        )
    return page.records[0]


def _cancelled(job: bytes, amended: Amended) -> bool:
    if amended.changed or amended.flagged:
        return True
    if not amended.skipped:
        _only(job, Page(records=[]))
    return False


def _change(before: JobRecord | None, record: JobRecord) -> JobChange:
    differing = (
        ()
        if before is None
        else tuple(
            name
            for name in record.__struct_fields__
            if name != "revision" and getattr(before, name) != getattr(record, name)
        )
    )
    return JobChange(record.revision, record.state, differing, record)


def _refuse_result(record: JobRecord, wait: Wait) -> NoReturn:
    job = f"job {uuid.UUID(bytes=record.id)} ({record.task})"
    match record.state:
        case State.FAILED:
            last = record.errors[-1].error if record.errors else None
            reason = record.reason.value if record.reason else "error"
            raise JobFailed(
                f"{job} failed ({reason}) after {record.attempt} attempts{_in_a_line(last)}; "
                "read `job.errors` for more, and redrive it once the cause is gone",
                reason,
                last,
            )
        case State.CANCELLED:
            raise JobCancelled(f"{job} was cancelled and has no result; redrive it to run it")
        case State.EXPIRED:
            raise JobExpired(
                f"{job} expired before a worker could start it; start more workers, or enqueue "
                "it with a later `expires`"
            )
        case state:
            raise ResultTimeout(
                f"{job} is {state.value} after a wait of {wait.given}; it goes on, ask again, "
                "and see that a worker serves its queue"
            )


def _in_a_line(error: ErrorRecord | None) -> str:
    """Return an error as the end of a line: what it was, without its own lines."""
    if error is None:
        return ""
    words = " ".join(error.message.split())
    return f": {error.kind}: {words}" if len(words) <= 300 else f": {error.kind}: {words[:300]}…"


def refuse_inside_a_job() -> None:
    """Refuse to wait where every slot could wait for another."""
    running = current.get()
    if running is not None:
        raise WrongUse(
            f"job {running.id} ({running.task}) waits for the result of another job: once every "
            "slot of the workers does so, nothing moves. Enqueue the next step from the job "
            "that has the result, give the slot back with context.join(…), or wait outside of jobs"
        )
