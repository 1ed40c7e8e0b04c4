"""The intake: the verb that tasks and message queues are given to store jobs by.

Here a refusal of the engine becomes the error it means, a commit in doubt gets the ids
to send again, and the observers are told.
"""

from __future__ import annotations

import sys
import uuid
import warnings
from collections.abc import Callable, Sequence

from backlane.engine.plan import Plan
from backlane.engine.protocol import Admission, Capability
from backlane.errors import NotSupported, OutcomeUnknown, QueueFull, Refused, StaleId, WrongUse
from backlane.middleware import Wrap
from backlane.model.event import JobEnqueued, JobRefused, Observers
from backlane.model.job import Job, Receipt, Refusal
from backlane.model.queue import Queue
from backlane.place import Place
from backlane.wait import in_a_loop

Answer = list[Receipt] | Refusal


class Intake:
    """The way into the store, for what holds tasks or for what holds messages.

    `admission` is what each append is judged by, `queue` finds a declared queue by its name,
    `wraps` is the middleware around each enqueue.
    """

    __slots__ = ("_admission", "_has_warned", "_observers", "place", "queue", "wraps")

    def __init__(
        self,
        place: Place,
        admission: Admission,
        queue: Callable[[str], Queue],
        observers: Observers,
        wraps: tuple[Wrap, ...],
    ) -> None:
        self.place = place
        self.queue = queue
        self.wraps = wraps
        self._admission = admission
        self._observers = observers
        self._has_warned = False

    def append(
        self, jobs: Sequence[Job], connection: object | None, accepted: int = 0
    ) -> list[Receipt]:
        """Store all jobs or none, in the caller's transaction if there is a connection.

        `accepted` counts the jobs of the same call that are stored already.

        Raises:
            QueueFull, StaleId, WrongUse: the store refused them.
            OutcomeUnknown: names the ids, which can be sent again.
        """
        self._warn_in_a_loop()
        try:
            return self._taken(jobs, self._run(self._plan(jobs), connection), accepted)
        except OutcomeUnknown as error:
            raise _naming(jobs, error) from error

    async def aappend(
        self, jobs: Sequence[Job], connection: object | None, accepted: int = 0
    ) -> list[Receipt]:
        """Like `append`."""
        try:
            return self._taken(jobs, await self._arun(self._plan(jobs), connection), accepted)
        except OutcomeUnknown as error:
            raise _naming(jobs, error) from error

    def require(self, capability: Capability, what: str) -> None:
        """Refuse, where it is written, what the engine cannot do.

        Raises:
            NotSupported: names the remedy.
        """
        if capability not in self.place.engine.capabilities:
            raise NotSupported(
                f"{what} needs an engine with {capability.name}, which {self.place.url} lacks; "
                "use one that has it, such as sqlite:///jobs.db"
            )

    def _plan(self, jobs: Sequence[Job]) -> Plan[Answer]:
        return self.place.engine.append(jobs, self._admission)

    def _run(self, plan: Plan[Answer], connection: object | None) -> Answer:
        engine = self.place.engine
        return engine.run(plan) if connection is None else engine.joined(connection).run(plan)

    async def _arun(self, plan: Plan[Answer], connection: object | None) -> Answer:
        engine = self.place.engine
        if connection is None:
            return await engine.arun(plan)
        return await engine.joined(connection).arun(plan)

    def _taken(self, jobs: Sequence[Job], answer: Answer, accepted: int) -> list[Receipt]:
        """Return the receipts, or raise what the refusal means; tell the observers."""
        if isinstance(answer, Refusal):
            if self._observers:
                told = JobRefused(jobs[0].task, answer.queue, answer.limit, len(jobs))
                self._observers.tell(told)
            raise _error_of(answer, accepted)
        if self._observers:
            for job, receipt in zip(jobs, answer, strict=True):
                made = uuid.UUID(bytes=receipt.first or receipt.job)
                self._observers.tell(JobEnqueued(made, job.task, job.queue, receipt.is_new))
        return answer

    def _warn_in_a_loop(self) -> None:
        if self._has_warned or not in_a_loop():
            return
        self._has_warned = True
        warnings.warn(
            "enqueue (or send) inside a running event loop blocks it until the job is stored; "
            "use `await task.aenqueue(…)` (or asend)",
            RuntimeWarning,
            stacklevel=_caller_depth(),
        )


def _error_of(refusal: Refusal, accepted: int) -> Refused | WrongUse:
    match refusal.limit:
        case "stale":
            job = "" if refusal.job is None else f" {uuid.UUID(bytes=refusal.job)}"
            return StaleId(
                f"the id{job} is older than the history of queue {refusal.queue!r}, which alone "
                "could tell whether the job ran already; enqueue it without an id if it did not"
            )
        case "kind":
            return WrongUse(
                f"queue {refusal.queue!r} does not hold this kind: a queue holds tasks or "
                "messages, and its first use has fixed which; name another one"
            )
        case limit:
            return QueueFull(
                refusal.queue,
                limit=limit,
                depth=refusal.depth,
                bound=refusal.bound,
                added=refusal.added,
                can_fit=refusal.can_fit,
                accepted=accepted,
            )


def _naming(jobs: Sequence[Job], error: OutcomeUnknown) -> OutcomeUnknown:
    return OutcomeUnknown(str(error), tuple(uuid.UUID(bytes=job.id) for job in jobs))


def _caller_depth() -> int:
    """Return how many frames up the first one outside this package is."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == "backlane":
        depth, frame = depth + 1, frame.f_back
    return depth
