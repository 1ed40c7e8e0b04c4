"""The timetable of a test: schedules are applied when the test lets time pass, and then only."""

from __future__ import annotations

from backlane.app import Backlane
from backlane.engine.memory import MemoryEngine
from backlane.engine.scheduling import Put
from backlane.model.schedule import decode_spec, upcoming
from backlane.tick import ticks


class Timetable:
    """Declares an application's schedules, and makes jobs of those that are due."""

    def __init__(self, app: Backlane, engine: MemoryEngine) -> None:
        self._app, self._engine = app, engine
        self._known: set[str] = set()
        self.declare()

    def declare(self) -> None:
        """Put the schedules that code has declared since the last time."""
        run, now_ms = self._engine.run, self._app.clock.wall_ms()
        for name, declared in self._app.schedules.declared.items():
            if name not in self._known and upcoming(decode_spec(declared.spec), name, now_ms, 1):
                put = Put(spec=declared.spec, task=declared.task, is_declared=True)
                run(self._engine.alter_schedule(name, put))
            self._known.add(name)

    def tick(self) -> int | None:
        """Apply what is due; return how many milliseconds from now the next is.

        One that cannot be applied raises here: in a test that is what it is for.
        """
        self.declare()
        timetable = self._engine.run(self._engine.list_schedules(due=True))
        if timetable.schedules:
            templates = {name: task.template for name, task in self._app.tasks.items()}
            found = ticks(timetable, templates, _raised)
            self._engine.run(self._engine.tick(found, self._app.admission))
            timetable = self._engine.run(self._engine.list_schedules(due=True))
        return None if timetable.next_ms is None else timetable.next_ms - timetable.now_ms


def _raised(_name: str, error: Exception) -> None:
    raise error
