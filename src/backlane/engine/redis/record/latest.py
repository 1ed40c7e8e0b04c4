"""Latest: the newest result of a task, as settle copied it; and results of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backlane.engine.recalling import Latest, Resulted
from backlane.engine.redis.record.sheet import STATES, raw
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import RedisTx

LATEST = Script("latest", "model")
ALL = Script("all_latest", "model")
RESULTS = Script("results", "model")
RESTORE = Script("restore_latest", "model", "moves")

FIELDS = 4  # of one, with its task


async def results(tx: RedisTx, jobs: Sequence[bytes]) -> list[Resulted]:
    """See `Recalling.results`."""
    if not jobs:
        return []
    _, told = await tx.call(RESULTS, [raw(job) for job in dict.fromkeys(jobs)])
    return [
        Resulted(told[at], STATES[told[at + 1]] if told[at + 1] else None, told[at + 2])
        for at in range(0, len(told), 3)
    ]


async def latest(tx: RedisTx, task: str) -> Latest | None:
    """See `Recalling.latest`."""
    _, kept = await tx.call(LATEST, task)
    return None if kept is None else Latest(*kept)


async def all_latest(tx: RedisTx) -> dict[str, Latest]:
    """Return the newest results of all tasks that keep theirs."""
    _, told = await tx.call(ALL)
    return {
        told[at].decode(): Latest(*told[at + 1 : at + FIELDS]) for at in range(0, len(told), FIELDS)
    }


async def restore(tx: RedisTx, given: Mapping[str, Latest]) -> None:
    """Take in those of another store; of two of one task the later stays."""
    if given:
        told: list[Any] = []
        for task, one in given.items():
            told += [task, raw(one.job), one.ended_ms, raw(one.result)]
        await tx.call(RESTORE, told)
