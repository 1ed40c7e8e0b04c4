"""The writer: group commit, one transaction for all plans that wait.

A caller that finds nobody waiting runs its plan itself. All others leave theirs to
one thread, which runs what has come together in one transaction, commits once, and
answers with one call into each event loop. There are no savepoints (they cost 20 %):
when one plan raises, all is rolled back and each is begun again alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from backlane.engine.plan import Plan, finish
from backlane.engine.protocol import Settled, Turn
from backlane.engine.sqlite.append.append import append_all
from backlane.engine.sqlite.driver.store import Store
from backlane.engine.sqlite.store.faults import BREAKING, OF_THE_VALUES, translated
from backlane.engine.sqlite.store.fork import inside_sqlite
from backlane.engine.sqlite.store.plans import AppendPlan, SettlePlan, UnsyncedPlan, needs_no_sync
from backlane.engine.sqlite.store.transaction import Rings, SqliteTx
from backlane.errors import OutcomeUnknown
from backlane.model.breaker import ResourceRecord
from backlane.model.clock import Clock
from backlane.model.outcome import ErrorRecord, Failed, Reason, Settlement

T = TypeVar("T")

log = logging.getLogger("backlane")

GROUP_PLANS = 500
# 2,000 jobs are about 10 ms of transaction: the longest a worker's turn should wait.
GROUP_JOBS = 2_000


class Request:
    """A plan, who waits for it, and what became of it."""

    __slots__ = ("_done", "error", "future", "loop", "plan", "value")

    def __init__(
        self,
        plan: Plan[Any],
        loop: asyncio.AbstractEventLoop | None = None,
        future: asyncio.Future[Any] | None = None,
    ) -> None:
        self.plan = plan
        self.loop = loop
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def wait(self) -> None:
        self._done.acquire()

    def answer(self) -> None:
        """Wake the caller that waits in `wait`."""
        self._done.release()

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class NotBegun(Exception):
    """The transaction could not be opened: no plan is to blame."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class Retired(Exception):
    """The engine was closed meanwhile: the plan belongs to the handles opened next."""


class InDoubt(Exception):
    """The commit failed in a way that leaves open whether it will be found after a crash."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class Writer:
    """Carries plans out, one transaction at a time in this process."""

    def __init__(self, store: Store, clock: Clock, ring: Callable[[Rings], None]) -> None:
        self._store = store
        self._clock = clock
        self._ring = ring
        self._turn = threading.Lock()  # held by who is in a transaction
        # In C: a `threading.Semaphore` beside a deque cost a hand-over 60 us more.
        self._waiting: SimpleQueue[Request | None] = SimpleQueue()  # None: look, and maybe end
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._is_closing = False

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out, on this thread if nobody waits.

        Raises:
            Retired: the writer was closed; nothing has begun.
        """
        request = Request(plan)
        if self._waiting.empty() and self._turn.acquire(blocking=False):
            try:
                if self._is_closing:
                    raise Retired
                self._carry_out([request])
            finally:
                self._turn.release()
        else:
            self._submit(request)
            request.wait()
        value: T = request.outcome()
        return value

    async def arun(self, plan: Plan[T]) -> T:
        """Leave a plan to the writer's thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._submit(Request(plan, loop, future))
        return await future

    def open(self) -> None:
        """Open the file, if it is not open.

        Raises:
            EngineUnavailable: it cannot be, and why.
        """
        try:
            with self._turn:
                self._store.open()
        except Exception as error:
            told = translated(error, self._store.database.name)
            if told is error:
                raise
            raise told from error

    def exclusively(self, work: Callable[[], object]) -> None:
        """Do some other work between two transactions of this process, inside the gate."""
        with self._turn, inside_sqlite:
            self._store.gate.acquire()
            try:
                work()
            finally:
                self._store.gate.release()

    def close(self) -> None:
        """Carry out what waits, then end the thread."""
        with self._starting:
            self._is_closing = True
            thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            thread.join()
        with self._turn:
            self._store.close()

    # -- the thread --

    def _submit(self, request: Request) -> None:
        with self._starting:
            if self._is_closing:
                raise Retired
            self._waiting.put(request)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="backlane-writer", daemon=True
                )
                self._thread.start()

    def _serve(self) -> None:
        while True:
            first = self._waiting.get()
            if first is not None:
                with self._turn:
                    group = self._gather(first)
                    self._carry_out(group)
                    self._answer(group)
            if self._is_closing and self._waiting.empty():
                return

    def _gather(self, first: Request) -> list[Request]:
        """Return what waits, as far as one transaction should carry it."""
        group: list[Request] = []
        jobs = 0
        request: Request | None = first
        while request is not None:
            group.append(request)
            if isinstance(request.plan, AppendPlan):
                jobs += len(request.plan.batch[0])
            if len(group) >= GROUP_PLANS or jobs >= GROUP_JOBS:
                break
            try:
                request = self._waiting.get_nowait()
            except Empty:
                break
        return group

    def _answer(self, group: Sequence[Request]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}
        for request in group:
            if request.loop is None:
                request.answer()
            else:
                loops.setdefault(request.loop, []).append(request)
        for loop, requests in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, requests)
            except RuntimeError:  # the loop was closed: nobody is left to hear it
                log.debug("%d plans were carried out for a closed event loop", len(requests))

    # -- transactions --

    def _carry_out(self, group: Sequence[Request]) -> None:
        error = self._try(group)
        if error is None:
            return
        if len(group) == 1 or isinstance(error, NotBegun | InDoubt):
            for request in group:
                self._fail(request, error)
            return
        for request in sorted(group, key=lambda one: not isinstance(one.plan, SettlePlan)):
            error = self._try([request])
            if error is not None:
                self._fail(request, error)

    def _try(self, group: Sequence[Request]) -> BaseException | None:
        """Carry plans out in one transaction; return why it was rolled back."""
        try:
            rings = self._commit(group)
        except (NotBegun, InDoubt) as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever a plan raises is its caller's
            return error
        self._ring(rings)
        return None

    def _commit(self, group: Sequence[Request]) -> Rings:
        # From begin to commit: a child would take an inherited transaction for an open one.
        with inside_sqlite:
            return self._commit_inside(group)

    def _commit_inside(self, group: Sequence[Request]) -> Rings:
        store = self._store
        unsynced = [one for one in group if needs_no_sync(one.plan)]
        must_sync = len(unsynced) < len(group)
        try:
            connection = store.begin(is_synced=must_sync)
        except Exception as error:
            raise NotBegun(error) from error
        try:
            tx = SqliteTx(connection)
            try:
                self._run_all(tx, group)
            except BaseException as error:
                store.roll_back(is_broken=isinstance(error, BREAKING))
                raise
            self._end(connection)
        finally:
            store.gate.release()
        if not must_sync and any(_must_be_synced(one) for one in unsynced):
            self._sync()
        return tx.rings

    def _run_all(self, tx: SqliteTx, group: Sequence[Request]) -> None:
        appends = [one for one in group if isinstance(one.plan, AppendPlan)]
        if len(appends) > 1:
            batches = [one.plan.batch for one in appends if isinstance(one.plan, AppendPlan)]
            answers = finish(append_all(tx, self._clock, batches))
            for request, answer in zip(appends, answers, strict=True):
                request.value = answer
        for request in group:
            if len(appends) < 2 or not isinstance(request.plan, AppendPlan):
                request.value = finish(request.plan.within(tx))

    def _end(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("commit")
        except apsw.IOError as error:
            # The log may hold the whole commit, unsynced: it would be found after a crash.
            self._store.roll_back(is_broken=True)
            raise InDoubt(error) from error
        except BaseException as error:
            self._store.roll_back(is_broken=isinstance(error, BREAKING))
            raise

    def _sync(self) -> None:
        try:
            self._store.sync()
        except Exception as error:
            raise InDoubt(error) from error

    # -- failing --

    def _fail(self, request: Request, error: BaseException) -> None:
        plan = request.plan
        if isinstance(plan, SettlePlan) and isinstance(error, OF_THE_VALUES):
            error_left = self._settle_one_by_one(request, plan)
            if error_left is None:
                return
            error = error_left
        request.error = self._translated(error, plan)

    def _translated(self, error: BaseException, plan: Plan[Any]) -> BaseException:
        path = self._store.database.name
        cause = error.cause if isinstance(error, NotBegun | InDoubt) else error
        if isinstance(error, InDoubt):
            jobs = tuple(job.id for job in plan.batch[0]) if isinstance(plan, AppendPlan) else ()
            made: BaseException = in_doubt(path, cause, jobs)
        else:
            made = translated(cause, path)
        if made is not cause:
            made.__cause__ = cause
        return made

    def _settle_one_by_one(self, request: Request, plan: SettlePlan[Any]) -> BaseException | None:
        """Settle what can be stored; what cannot becomes a dead letter that says why."""
        lost: list[bytes] = []
        buried: list[bytes] = []
        turned: list[ResourceRecord] = []
        for one in plan.settlements:
            single = Request(plan.alone([one]))
            error = self._try([single])
            if isinstance(error, OF_THE_VALUES):
                single = Request(plan.alone([unstorable(one, error)]))
                error = self._try([single])
            if error is not None:
                return error
            lost += single.value.lost
            buried += single.value.buried
            turned += single.value.turned
        request.value = Settled(lost, buried, turned)
        if plan.claims is not None:
            claims = Request(plan.claims)
            error = self._try([claims])
            if error is not None:
                return error
            request.value = Turn(request.value, claims.value.claimed)
        return None


def unstorable(one: Settlement, error: BaseException) -> Settlement:
    """Return the settlement that buries a job whose outcome cannot be stored."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    record = ErrorRecord(kind, f"its outcome cannot be stored: {error}")
    return Settlement(one.job, one.token, Failed(Reason.UNSTORABLE, record), one.ran_ms)


def in_doubt(path: str, error: BaseException, jobs: Sequence[bytes]) -> OutcomeUnknown:
    """Return the error for a commit that may or may not be found later."""
    return OutcomeUnknown(
        f"{path}: the disk failed during a commit ({error}), so it is not known whether it "
        "happened; send the same ids again, which is safe",
        tuple(uuid.UUID(bytes=job) for job in jobs),
    )


def _must_be_synced(request: Request) -> bool:
    plan = request.plan
    return isinstance(plan, UnsyncedPlan) and plan.must_be_synced(request.value)


def _deliver(requests: Sequence[Request]) -> None:
    """Answer the coroutines of one event loop; those that were cancelled are gone."""
    for request in requests:
        future = request.future
        if future is None or future.done():
            continue
        if request.error is not None:
            future.set_exception(request.error)
        else:
            future.set_result(request.value)
