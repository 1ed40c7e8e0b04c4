"""Counted: a queue's record, of the row that databases have of its settings and counters."""

from __future__ import annotations

from typing import Any

from backlane.model.queue import Bounds, Depth, Kind, QueueRecord


def queue_record(
    row: tuple[Any, ...], *, blocked: int, is_fair: bool, oldest_ready_ms: int | None
) -> QueueRecord:
    """Return the record of a queue.

    A row is its name, kind and whether it is paused; four bounds as declared, and as
    tuned; how many are scheduled, ready and running, and their bytes; then how many were
    appended, succeeded, failed, cancelled, expired, retried, started and ended, and for
    how long those ran, in milliseconds. What an engine has behind that is its own.
    """
    declared, tuned = Bounds(*row[3:7]), row[7:11]
    scheduled, ready, running, held = row[11:15]
    return QueueRecord(
        name=row[0],
        kind=Kind(row[1]),
        paused=bool(row[2]),
        is_fair=is_fair,
        bounds=declared.tuned(*tuned),
        declared=declared,
        tuned_max_jobs=tuned[0],
        tuned_max_bytes=tuned[1],
        tuned_max_wait_ms=tuned[2],
        tuned_group_share=tuned[3],
        depth=Depth(scheduled, ready, running, blocked, held),
        oldest_ready_ms=oldest_ready_ms,
        appended=row[15],
        succeeded=row[16],
        failed=row[17],
        cancelled=row[18],
        expired=row[19],
        retried=row[20],
        started=row[21],
        ended=row[22],
        ran_ms=row[23],
    )
