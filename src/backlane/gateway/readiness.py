"""Readiness: whether queues move that could, judged between two looks at them."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.protocol import Engine, WorkerRecord
from backlane.gateway.speed import Speed
from backlane.model.queue import Kind

STALLED_MS = 5_000  # a worker looks for jobs every second at the latest
LIVE_MS = 30_000


class Readiness:
    """Remembers since when a queue stands though it need not.

    It does where jobs are ready and none of it runs, and a live worker that serves it has
    free slots, and no lease was given between two looks that are some seconds apart. A
    paused queue stands rightly, one that no live worker serves waits for a deploy, and
    while any breaker is open its jobs cannot be told from others.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, int]] = {}  # when, and leases given till then

    async def stalled(self, engine: Engine, speeds: Sequence[Speed], now_ms: int) -> list[str]:
        """Return the queues that have stood for long."""
        standing = [it for it in speeds if _stands(it)]
        if not standing:
            self._since = {}
            return []
        workers = await engine.arun(engine.list_workers())
        resources = await engine.arun(engine.list_resources())
        if any(resource.state != "closed" for resource in resources):
            standing = []
        since: dict[str, tuple[int, int]] = {}
        for it in standing:
            name, started = it.record.name, it.record.started
            if _has_free_worker(name, workers):
                known = self._since.get(name)
                is_same = known is not None and known[1] == started
                since[name] = known if known is not None and is_same else (now_ms, started)
        self._since = since
        return [name for name, (at_ms, _) in since.items() if now_ms - at_ms >= STALLED_MS]


def _stands(it: Speed) -> bool:
    record = it.record
    return (
        not record.paused
        and record.kind is Kind.TASKS
        and record.depth.ready > 0
        and record.depth.running == 0
        and (record.oldest_ready_ms or 0) >= STALLED_MS
    )


def _has_free_worker(queue: str, workers: Sequence[WorkerRecord]) -> bool:
    return any(
        queue in worker.queues and worker.running < worker.slots and worker.beat_age_ms < LIVE_MS
        for worker in workers
    )
