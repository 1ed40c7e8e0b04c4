"""Control of a queue at run time: look at it, pause it, tune it."""

from __future__ import annotations

from backlane.engine.plan import Plan
from backlane.engine.protocol import Tune
from backlane.errors import BadOption, UnknownQueue, nearest
from backlane.model.event import Observers, QueueChanged
from backlane.model.queue import QueueRecord, checked_name
from backlane.place import Place


class QueueHandle:
    """A queue as the store has it: `app.queue(name)`. It keeps nothing that it read.

    What is set here goes before what the code declares, in all processes, and lasts
    until it is set anew or reset.

    .. versionadded:: 0.1
    """

    __slots__ = ("_observers", "_place", "name")

    def __init__(self, name: str, place: Place, observers: Observers) -> None:
        self.name = checked_name(name, "queue")
        self._place = place
        self._observers = observers

    def __repr__(self) -> str:
        return f"<QueueHandle {self.name}>"

    def record(self) -> QueueRecord:
        """Read its depth, its bounds in force and its counters.

        Raises:
            UnknownQueue: nothing was ever enqueued or sent there.
        """
        engine = self._place.engine
        return self._mine(engine.run(engine.list_queues()))

    async def arecord(self) -> QueueRecord:
        """Like `record`."""
        engine = self._place.engine
        return self._mine(await engine.arun(engine.list_queues()))

    def pause(self) -> QueueRecord:
        """Give its jobs to no worker until it is resumed; running ones go on.

        Enqueues are stored all the same, up to the bound. See `record` for errors.
        """
        return self._tuned(self._run(Tune(paused=True)), "paused")

    async def apause(self) -> QueueRecord:
        """Like `pause`."""
        return self._tuned(await self._arun(Tune(paused=True)), "paused")

    def resume(self) -> QueueRecord:
        """Give its jobs to workers again; see `record` for errors."""
        return self._tuned(self._run(Tune(paused=False)), "resumed")

    async def aresume(self) -> QueueRecord:
        """Like `resume`."""
        return self._tuned(await self._arun(Tune(paused=False)), "resumed")

    def tune(
        self, *, max_jobs: int | None = None, max_bytes: int | None = None, reset: bool = False
    ) -> QueueRecord:
        """Set its bounds at run time; `reset` first forgets what was set before.

        A bound below the present depth drops nothing: it refuses until there is room.

        Raises:
            BadOption: a bound is not a whole number from 1.
            UnknownQueue: nothing was ever enqueued or sent there.
        """
        return self._tuned(self._run(_bounds(max_jobs, max_bytes, reset=reset)), "tuned")

    async def atune(
        self, *, max_jobs: int | None = None, max_bytes: int | None = None, reset: bool = False
    ) -> QueueRecord:
        """Like `tune`."""
        return self._tuned(await self._arun(_bounds(max_jobs, max_bytes, reset=reset)), "tuned")

    def _run(self, change: Tune) -> QueueRecord | None:
        return self._place.engine.run(self._plan(change))

    async def _arun(self, change: Tune) -> QueueRecord | None:
        return await self._place.engine.arun(self._plan(change))

    def _plan(self, change: Tune) -> Plan[QueueRecord | None]:
        return self._place.engine.tune(self.name, change)

    def _tuned(self, record: QueueRecord | None, change: str) -> QueueRecord:
        if record is None:
            raise UnknownQueue(_never_used(self.name, []))
        if self._observers:
            self._observers.tell(QueueChanged(self.name, change))
        return record

    def _mine(self, records: list[QueueRecord]) -> QueueRecord:
        for record in records:
            if record.name == self.name:
                return record
        raise UnknownQueue(_never_used(self.name, [record.name for record in records]))


def _never_used(name: str, known: list[str]) -> str:
    return (
        f"the store holds no queue {name!r}{nearest(name, known)}: it is made by the first job "
        "or message, or by the first worker that serves it"
    )


def _bounds(max_jobs: int | None, max_bytes: int | None, *, reset: bool) -> Tune:
    for option, value in (("max_jobs", max_jobs), ("max_bytes", max_bytes)):
        if value is not None and (type(value) is not int or value < 1):
            raise BadOption(f"{option} is {value!r}; use a whole number from 1, or leave it out")
    return Tune(max_jobs=max_jobs, max_bytes=max_bytes, reset=reset)
