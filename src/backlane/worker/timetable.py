"""The timetable: applies all schedules of a store on time.

Every worker has one, and none is needed in particular: each reads which schedules are
due, computes what is to be made of them, and ticks; of those that tick the same at once
one is first, and the others change nothing. So there is nobody whose end could stop the
schedules, and nobody to elect.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from backlane.engine.protocol import Engine
from backlane.engine.scheduling import Put, ScheduleRecord, Tick, Ticked, Timetable
from backlane.errors import BacklaneError
from backlane.model.job import Refusal
from backlane.model.schedule import decode_spec, upcoming
from backlane.tick import is_plain_fault, ticks
from backlane.worker.channel import Hello

log = logging.getLogger("backlane.worker")

LOOK_SECONDS = 5.0  # how soon a schedule is heard of that was put or changed elsewhere
SPREAD_SECONDS = 0.02  # workers that look at the same moment would only be in each other's way
DECLARE_SECONDS = 300.0  # a third of the time after which one that is not declared goes
AT_A_TIME = 200  # ticks in one transaction
DUE_AT_A_TIME = 1_000  # schedules that a store names at once
AGAIN_SECONDS, AGAIN_LONGEST_SECONDS = 1.0, 60.0  # after a refusal, doubled


class Timekeeper:
    """Applies the schedules of one store for as long as its worker runs."""

    def __init__(self, engine: Engine, hello: Hello) -> None:
        self._engine = engine
        self._late: dict[str, tuple[float, int]] = {}  # refused: when to try again, how often
        self._most: dict[str, int] = {}  # jobs that a full queue is asked to take at once
        self._bad: set[str] = set()  # told once as not to be applied
        self._changed = asyncio.Event()
        self._is_new = True
        self.learn(hello)

    def learn(self, hello: Hello) -> None:
        """Take the application as it is now: what it declares, and its tasks."""
        self._declared = {one.name: one for one in hello.schedules}
        self._templates = {job.task: job for job in hello.templates if job.task}
        self._admission = hello.admission
        self._is_new = True
        self._changed.set()

    async def serve(self) -> None:
        """Declare and tick until cancelled."""
        declare_at = 0.0
        while True:
            pause = LOOK_SECONDS
            try:
                if self._is_new or time.monotonic() >= declare_at:
                    await self.declare()
                    declare_at = time.monotonic() + DECLARE_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 - spread
                pause = await self.look()
            except BacklaneError as error:
                log.debug("no schedules this time: %s", error)
                pause = 1.0
            except Exception:
                log.exception("the timetable failed; it is tried again")
            await self._rest(pause)

    async def _rest(self, pause: float) -> None:
        if pause > 0:
            pause += random.uniform(0, SPREAD_SECONDS)  # noqa: S311 - spread
        try:
            await asyncio.wait_for(self._changed.wait(), min(pause, LOOK_SECONDS))
        except TimeoutError:
            return

    # -- declaring --

    async def declare(self) -> None:
        """Tell the store of the schedules that the code declares.

        At a start those that have changed are put as they are now; later they are left, for
        somebody who started after us may have changed them.
        """
        is_new, self._is_new = self._is_new, False
        self._changed.clear()
        if not self._declared:
            return
        timetable = await self._engine.arun(self._engine.list_schedules())
        known = {record.name: record for record in timetable.schedules}
        if is_new and any(self._is_other(known.get(name)) for name in self._declared):
            await self.look()  # what is due by the old rules
        for name, declared in list(self._declared.items()):
            record = known.get(name)
            if record is None and not upcoming(
                decode_spec(declared.spec), name, timetable.now_ms, 1
            ):
                continue  # it never fires again
            if self._is_other(record) and not is_new:
                continue
            put = Put(spec=declared.spec, task=declared.task, is_declared=True)
            await self._engine.arun(self._engine.alter_schedule(name, put))

    def _is_other(self, record: ScheduleRecord | None) -> bool:
        """Whether a schedule of the store is declared otherwise than by us."""
        if record is None or not record.is_declared:
            return False
        declared = self._declared[record.name]
        return (record.spec, record.task) != (declared.spec, declared.task)

    # -- ticking --

    async def look(self) -> float:
        """Apply what is due; return after how many seconds to look again."""
        timetable = await self._engine.arun(self._engine.list_schedules(due=True))
        waiting = self._waiting()
        found = ticks(timetable, self._templates, self._tell_bad, waiting, self._most)
        refused = 0
        for start in range(0, len(found), AT_A_TIME):
            part = found[start : start + AT_A_TIME]
            answers = await self._engine.arun(self._engine.tick(part, self._admission))
            refused += self._tell(part, answers)
        if len(timetable.schedules) >= DUE_AT_A_TIME and len(found) > refused:
            return 0.0  # there are more
        return self._pause(timetable, found)

    def _waiting(self) -> list[str]:
        """The schedules that were refused, and are not to be tried yet."""
        now = time.monotonic()
        return [name for name, (again_at, _) in self._late.items() if again_at > now]

    def _pause(self, timetable: Timetable, found: Sequence[Tick]) -> float:
        """How long until something is due, as far as is known."""
        late = self._late
        nexts = [it.next_ms for it in found if it.next_ms is not None and it.name not in late]
        nexts += [] if timetable.next_ms is None else [timetable.next_ms]
        waits = [(next_ms - timetable.now_ms) / 1000 for next_ms in nexts]
        now = time.monotonic()
        waits += [again_at - now for again_at, _ in self._late.values()]
        return max(0.001, min([LOOK_SECONDS, *waits]))

    def _tell(self, part: Sequence[Tick], answers: Sequence[Ticked]) -> int:
        """Note what was refused, and when to try again; return how many were."""
        refused = 0
        for tick, answer in zip(part, answers, strict=True):
            if answer.refusal is None:
                self._late.pop(tick.name, None)
                self._bad.discard(tick.name)
                if len(tick.jobs) < self._most.get(tick.name, 0):
                    del self._most[tick.name]
                continue
            refused += 1
            # What is caught up with may be more than the queue would ever take at once.
            self._most[tick.name] = max(1, len(tick.jobs) // 2)
            _, times = self._late.get(tick.name, (0.0, 0))
            pause = min(AGAIN_LONGEST_SECONDS, AGAIN_SECONDS * 2**times)
            self._late[tick.name] = (time.monotonic() + pause, times + 1)
            if not times:
                log.warning("schedule %s: its job waits: %s", tick.name, _why(answer.refusal))
        return refused

    def _tell_bad(self, name: str, error: Exception) -> None:
        if name in self._bad:
            return
        self._bad.add(name)
        log.error(
            "schedule %s cannot be applied, and is passed over until it is put anew: %s",
            name,
            error,
            exc_info=None if is_plain_fault(error) else error,
        )


def _why(refusal: Refusal) -> str:
    match refusal.limit:
        case "moving":
            return f"the store is being moved to {refusal.to}"
        case "key":
            return "its key is held by another job"
        case limit:
            return f"queue {refusal.queue} is at its bound ({limit}: {refusal.bound})"
