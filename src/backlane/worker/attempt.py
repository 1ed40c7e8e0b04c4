"""An attempt: one lease -> one settlement. The pipeline, read top to bottom.

    find the task -> decode its arguments -> context -> middleware -> the function
    -> encode its result, or judge its error -> settlement

The same code serves shared and exclusive executors, the embedded worker and the test
kit. It never touches the engine, and nothing that user code raises leaves it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from backlane.context import Context, current
from backlane.engine.protocol import Settled
from backlane.errors import WrongUse
from backlane.memo import Memo
from backlane.middleware import Call, compose, drive
from backlane.model.codec.envelope import is_enveloped, is_needed
from backlane.model.event import AttemptEnded, AttemptStarted
from backlane.model.job import Lease, Progress
from backlane.model.outcome import Failed, Outcome, Reason, RetryAfter, Settlement, Succeeded
from backlane.model.workflow import OWN_TASKS
from backlane.transaction import JobTransaction, Settling
from backlane.worker.packing import Packed
from backlane.worker.references import aresolve, resolve
from backlane.worker.slices import run_own
from backlane.worker.verdict import Stop, judge, parked, spoilt

if TYPE_CHECKING:
    from backlane.app import Backlane
    from backlane.task import Task

log = logging.getLogger("backlane.worker")

Keep = Callable[[Lease, Progress], None]  # takes the progress a job reports
Done = Callable[[Lease, Settled], None]  # takes word that a job has settled itself
Ask = Callable[[], Stop | None]  # says what a function is asked for

SUCCEEDED = Succeeded()

Begin = Callable[["Attempt", object | None], JobTransaction]
Remember = Callable[["Attempt"], Memo]


class Attempt:
    """One execution of a job, as its executor holds it while it runs.

    `ask`, where nobody else sets `stop`, is asked for it whenever the function asks.
    """

    __slots__ = (
        "_ask",
        "_keep",
        "asyncio_task",
        "begin",
        "completed",
        "is_overdue",
        "is_replaced",
        "lease",
        "place",
        "remember",
        "started",
        "stop",
        "transaction",
    )

    def __init__(self, lease: Lease, keep: Keep, place: int = 0, ask: Ask | None = None) -> None:
        self.lease = lease
        self.place = place
        self._keep = keep
        self._ask = ask
        self.stop: Stop | None = None  # what its function has been asked for
        self.started = 0.0  # monotonic; 0 until its function is about to run
        self.is_overdue = False  # past its hard limit, and still running
        self.is_replaced = False  # overdue, and its slot was given to another
        self.asyncio_task: asyncio.Task[Any] | None = None
        self.begin: Begin = _no_transaction  # of its application, once it has been entered
        self.remember: Remember = _no_memo
        self.transaction: JobTransaction | None = None  # the last it asked for
        self.completed: Succeeded | None = None  # as a transaction of its own has settled it

    def is_cancelled(self) -> bool:
        if self.stop is None and self._ask is not None:
            self.stop = self._ask()
        return self.stop is not None

    def note(self, progress: Progress) -> None:
        self._keep(self.lease, progress)

    def recall(self) -> Memo:
        return self.remember(self)

    def transact(self, connection: object | None) -> JobTransaction:
        if self.completed is not None:
            raise WrongUse(
                "this job is settled already: its transaction has been committed, and a job has "
                "one; do the rest within it, or enqueue another job there"
            )
        if self.transaction is not None and self.transaction.is_open:
            raise WrongUse(
                "a transaction of this job is open already, and the end of one within it would "
                "settle the job without it; write on the connection of the open one"
            )
        self.transaction = self.begin(self, connection)
        return self.transaction


class Attempts:
    """Runs attempts of one application's tasks.

    `run` is for plain functions and `arun` for `async def` ones; the `inline` forms
    take either and are for tests and for one job at a time.
    """

    def __init__(self, app: Backlane, keep: Keep | None = None, done: Done | None = None) -> None:
        self._tasks: Mapping[str, Task[Any, Any, Any]] = app.tasks
        self._observers = app.observers
        self._middleware = app.attempt_middleware
        self._clock = app.clock
        self._keep: Keep = keep if keep is not None else _drop
        self._app, self._done = app, done
        self._begin: Begin = self._begin_for  # bound once, not for each attempt
        self._remember: Remember = self._memo

    def is_async(self, lease: Lease) -> bool:
        """Say whether the lease's task is an `async def`; False for an unknown one."""
        task = self._tasks.get(lease.task or "")
        return task is not None and task.is_async

    def run(self, attempt: Attempt) -> Settlement:
        """Run an attempt of a plain function in the calling thread."""
        body: bytes | Outcome = attempt.lease.body
        if is_enveloped(attempt.lease.body):
            body = resolve(self._app, attempt.lease)
        entered = self._enter(attempt, body)
        if isinstance(entered, Settlement):
            return entered
        task, context, args, kwargs = entered
        previous = current.set(context)
        try:
            if self._middleware:
                value = drive(self._wrapped(task, context, args, kwargs))
            elif task.takes_context:
                value = task.function(context, *args, **kwargs)
            else:
                value = task.function(*args, **kwargs)
            outcome = self._succeeded(task, value, attempt.lease)
        except BaseException as error:  # noqa: BLE001 - SystemExit too is an error of this job
            outcome = judge(error, attempt.lease, task.retry, attempt.stop)
        finally:
            current.reset(previous)
        return self._leave(attempt, outcome)

    async def arun(self, attempt: Attempt) -> Settlement:
        """Run an attempt of an `async def`; cancelling the caller cancels the function."""
        body: bytes | Outcome = attempt.lease.body
        if is_enveloped(attempt.lease.body):
            body = await aresolve(self._app, attempt.lease)
        entered = self._enter(attempt, body)
        if isinstance(entered, Settlement):
            return entered
        task, context, args, kwargs = entered
        previous = current.set(context)
        try:
            if self._middleware:
                value = await self._wrapped(task, context, args, kwargs)
            elif task.takes_context:
                value = await task.function(context, *args, **kwargs)
            else:
                value = await task.function(*args, **kwargs)
            outcome = self._succeeded(task, value, attempt.lease)
        except BaseException as error:  # noqa: BLE001 - as above
            outcome = judge(error, attempt.lease, task.retry, attempt.stop)
        finally:
            current.reset(previous)
        return self._leave(attempt, outcome)

    def run_inline(self, lease: Lease) -> Settlement:
        """Run one attempt here and now, also of an `async def`, with a loop of its own.

        Inside a running loop an async function gets a thread for its loop, so that a
        sync test may drain from anywhere.
        """
        attempt = Attempt(lease, self._keep)
        if not self.is_async(lease):
            return self.run(attempt)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._timed(attempt))
        return _in_thread(lambda: asyncio.run(self._timed(attempt)))

    async def arun_inline(self, lease: Lease) -> Settlement:
        """Like `run_inline`, within the running loop."""
        attempt = Attempt(lease, self._keep)
        if not self.is_async(lease):
            return self.run(attempt)
        return await self._timed(attempt)

    async def _timed(self, attempt: Attempt) -> Settlement:
        """Run an async attempt under its soft limit, by the application's clock."""
        soft_ms = attempt.lease.policy.soft_ms
        if soft_ms is None:
            return await self.arun(attempt)
        running = asyncio.ensure_future(self.arun(attempt))
        limit = asyncio.ensure_future(self._clock.sleep(soft_ms / 1000))
        try:
            await asyncio.wait({running, limit}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                attempt.stop = Stop.TIMEOUT
                running.cancel()
            return await running
        finally:
            limit.cancel()

    def _wrapped(self, task: Task[Any, Any, Any], context: Context, args: Any, kwargs: Any) -> Any:
        """Return the awaitable of a call through the middleware around attempts."""

        async def innermost(call: Call) -> object:
            first = (context,) if task.takes_context else ()
            value = task.function(*first, *call.args, **call.kwargs)
            return await value if task.is_async else value

        call = Call(
            task=task.name,
            queue=context.queue,
            args=args,
            kwargs=kwargs,
            headers=context.headers,
            context=context,
        )
        return compose(self._middleware, innermost)(call)

    def _enter(
        self, attempt: Attempt, body: bytes | Outcome
    ) -> tuple[Task[Any, Any, Any], Context, tuple[Any, ...], dict[str, Any]] | Settlement:
        """Find the task and decode its arguments, or say why that cannot be."""
        lease = attempt.lease
        if not isinstance(body, bytes):
            return Settlement(lease.job, lease.token, body)
        task = self._tasks.get(lease.task)  # type: ignore[arg-type]  # None finds nothing
        if task is None:
            if lease.task in OWN_TASKS:
                return run_own(self._app, lease, body)
            return Settlement(lease.job, lease.token, parked(lease))
        try:
            args, kwargs = task.codec.decode_arguments(body)
        except Exception as error:  # noqa: BLE001 - a type's own validation may raise anything
            return Settlement(lease.job, lease.token, spoilt(Reason.UNDECODABLE, error))
        context = Context(
            lease,
            note=attempt.note,
            is_cancelled=attempt.is_cancelled,
            transact=attempt.transact,
            recall=attempt.recall,
            wall_ms=self._clock.wall_ms,
        )
        attempt.begin, attempt.remember = self._begin, self._remember
        if self._observers:
            self._tell_started(lease)
        attempt.started = time.monotonic()
        return task, context, args, kwargs

    def _begin_for(self, attempt: Attempt, connection: object | None) -> JobTransaction:
        """Return the transaction that settles an attempt's job."""
        task = self._tasks[attempt.lease.task or ""]
        lease, done = attempt.lease, self._done

        def completed(outcome: Succeeded, settled: Settled) -> None:
            attempt.completed = outcome
            if done is not None:
                done(lease, settled)

        engine = self._app.engine
        encode = task.codec.encode_result if task.keeps_result else _nothing
        if not task.keeps_result and is_needed(lease.body):
            encode = task.codec.encode_needed
        settling = Settling(engine, lease, encode, completed, attempt.started)
        return JobTransaction(engine.transaction(connection), settling)

    def _memo(self, attempt: Attempt) -> Memo:
        """Return the steps of an attempt's job; a first lease finds none."""
        lease = attempt.lease
        max_bytes = self._tasks[lease.task or ""].codec.max_bytes
        is_fresh = lease.token == 1
        return Memo(self._app.engine, lease, Packed(self._app), max_bytes, is_fresh=is_fresh)

    def _succeeded(self, task: Task[Any, Any, Any], value: object, lease: Lease) -> Outcome:
        try:
            if not task.keeps_result:
                if not is_needed(lease.body):
                    return SUCCEEDED
                return Succeeded(task.codec.encode_needed(value))
            return Succeeded(task.codec.encode_result(value))
        except Exception as error:  # noqa: BLE001 - it ran: a retry would only repeat its effects
            return spoilt(Reason.UNSTORABLE, error)

    def _leave(self, attempt: Attempt, outcome: Outcome) -> Settlement:
        lease, ran = attempt.lease, time.monotonic() - attempt.started
        if attempt.completed is not None:
            outcome = _as_completed(attempt.completed, lease, outcome)
        if self._observers:
            self._tell_ended(lease, outcome, ran)
        if isinstance(outcome, RetryAfter):  # what fails for good is told by the dispatcher
            _log_retry(lease, outcome)
        return Settlement(lease.job, lease.token, outcome, int(ran * 1000))

    def _tell_started(self, lease: Lease) -> None:
        waited = max(0, self._clock.wall_ms() - lease.enqueued_ms)
        self._observers.tell(
            AttemptStarted(
                job=_uuid(lease),
                task=lease.task or "",
                queue=lease.queue,
                attempt=lease.attempt + 1,
                waited=timedelta(milliseconds=waited),
            )
        )

    def _tell_ended(self, lease: Lease, outcome: Outcome, ran: float) -> None:
        error = getattr(outcome, "error", None)
        self._observers.tell(
            AttemptEnded(
                job=_uuid(lease),
                task=lease.task or "",
                queue=lease.queue,
                attempt=lease.attempt + 1,
                outcome=type(outcome).__name__.lower(),
                ran=timedelta(seconds=ran),
                error=None if error is None else f"{error.kind}: {error.message}",
            )
        )


def _uuid(lease: Lease) -> uuid.UUID:
    return uuid.UUID(bytes=lease.job)


def _log_retry(lease: Lease, outcome: RetryAfter) -> None:
    log.info(
        "job %s (task %s): execution %d of %d failed, the next one is due in %.1f s: %s: %s",
        _uuid(lease),
        lease.task,
        lease.attempt + 1,
        lease.policy.attempts,
        outcome.delay_ms / 1000,
        outcome.error.kind,
        outcome.error.message,
    )


def _as_completed(completed: Succeeded, lease: Lease, outcome: Outcome) -> Succeeded:
    """Return how a job ended that settled itself, whatever its function did after that."""
    error = getattr(outcome, "error", None)
    is_return = isinstance(outcome, Failed) and outcome.reason is Reason.UNSTORABLE
    if not isinstance(outcome, Succeeded) and not is_return:  # what it returns is not looked at
        log.warning(
            "job %s (task %s) had committed its completion, and then %s: it stays succeeded; "
            "make the transaction the last thing that it does",
            _uuid(lease),
            lease.task,
            "was asked to stop" if error is None else f"raised {error.kind}: {error.message}",
        )
    return completed


def _nothing(_value: object) -> None:
    """Encode the result of a task that keeps none."""


def _no_transaction(_attempt: Attempt, _connection: object | None) -> JobTransaction:
    raise WrongUse("this attempt has not been entered, so it has no transaction")


def _no_memo(_attempt: Attempt) -> Memo:
    raise WrongUse("this attempt has not been entered, so it has no steps")


def _drop(_lease: Lease, _progress: Progress) -> None:
    """Take progress that nobody keeps."""


def _in_thread(run: Callable[[], Settlement]) -> Settlement:
    ended: list[Settlement] = []
    thread = threading.Thread(target=lambda: ended.append(run()), name="backlane-inline")
    thread.start()
    thread.join()
    return ended[0]
