"""Windows: which ready jobs a transport is carrying, and since when."""

from __future__ import annotations

from backlane.engine.memory.row import Row
from backlane.model.job import Lane


class Windows:
    """When each job was offered (wall clock), by queue and lane."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, Lane], dict[bytes, int]] = {}

    def of(self, queue: str, lane: Lane) -> dict[bytes, int]:
        return self._windows.get((queue, lane), {})

    def room(self, queue: str, own: int | None) -> int | None:
        """What is left of the room of a queue's own limit, once what is offered has run."""
        offered = sum(len(self.of(queue, lane)) for lane in Lane)
        return None if own is None else max(0, own - offered)

    def add(self, row: Row, now_ms: int) -> None:
        self._windows.setdefault((row.queue, row.lane), {})[row.job.id] = now_ms

    def drop(self, row: Row) -> None:
        """Whether it was offered or not."""
        window = self._windows.get((row.queue, row.lane))
        if window and window.pop(row.job.id, None) is not None and not window:
            del self._windows[row.queue, row.lane]
