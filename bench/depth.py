"""Depth: what a million waiting jobs, or five million finished ones, cost a drain.

The large files are made through the engine's own verbs, once, and kept.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from backlane.engine.protocol import Admission, Wanted
from backlane.engine.selection import Delete, Selection
from backlane.model.ids import new_ids
from backlane.model.job import WAITING, Job
from backlane.model.outcome import Settlement, Succeeded
from backlane.model.queue import Bounds
from bench.bare import PAYLOAD
from bench.figure import Figure, Nothing, at_least, rounds
from bench.process import WorkerProcess
from bench.setting import Setting
from bench.store import Store, batches
from bench.workload import BOUND, HISTORIES, QUEUE

STANDING = 10_000  # jobs that wait in the small file, and are drained at a time
KEPT_SECONDS = 12 * 3600.0  # a history older than a day would be pruned while we measure


def depth(setting: Setting) -> list[Figure]:
    """Drain 10,000 of many and 10,000 of 10,000, in turns."""
    many = setting.size(1_000_000, 30_000)
    small, deep = setting.store("small"), setting.store("deep")
    return _compared(
        setting, small, deep, many, f"drain with {many:,} waiting", f"{STANDING:,} waiting"
    )


def history(setting: Setting) -> list[Figure]:
    """Drain beside millions of finished jobs and in a new file, in turns."""
    many = setting.size(5_000_000, 30_000)
    young, old = setting.store("young"), _aged(setting.kept, many)
    return _compared(setting, young, old, STANDING, f"drain with {many:,} finished", "no history")


def _compared(
    setting: Setting, plain: Store, loaded: Store, standing: int, name: str, beside: str
) -> list[Figure]:
    for store in (plain, loaded):
        store.fill(1)
        store.pause(paused=False)
    repeats = setting.size(4, 1)
    with WorkerProcess(plain), WorkerProcess(loaded):
        for store in (plain, loaded):
            store.pause(paused=True)
            store.wait_idle()
        taken = rounds(
            setting.size(5, 1),
            {
                "plain": lambda: _drained(plain, STANDING, repeats),
                "loaded": lambda: _drained(loaded, standing, repeats),
            },
        )
    if loaded.path.parent == setting.kept:
        _emptied(loaded)
    plain.close()
    loaded.close()
    return [at_least(name, taken["loaded"], beside=beside, reference=taken["plain"], times=0.8)]


def _drained(store: Store, standing: int, repeats: int) -> float:
    """Return the mean rate over `repeats` drains, each of a queue filled up to `standing`."""
    seconds = 0.0
    for _ in range(repeats):
        store.fill_to(standing)
        seconds += STANDING / store.drain(STANDING * 9 // 10)
        store.wait_idle()
    return repeats * STANDING / seconds


def _emptied(store: Store) -> None:
    """Delete what still waits, so that a kept file is as it was."""
    engine = store.work.app.engine
    cursor = None
    while True:
        page = engine.run(engine.amend(Selection(queue=QUEUE, states=WAITING), Delete(), cursor))
        if (cursor := page.cursor) is None:
            return


def _aged(kept: Path, number: int) -> Store:
    """Return a store whose history holds `number` finished jobs, made where it is not yet."""
    kept.mkdir(parents=True, exist_ok=True)
    path = kept / f"history-{number}.db"
    if path.exists() and time.time() - path.stat().st_ctime < KEPT_SECONDS:
        if _finished(store := Store(path)) >= number:
            return store
        store.close()
    print(f"bench: finishing {number:,} jobs for a history", file=sys.stderr, flush=True)
    store = Store.fresh(path)
    share = -(-number // len(HISTORIES))
    for queue in HISTORIES:
        _finish(store, queue, share)
    if (finished := _finished(store)) < number:
        raise Nothing(f"a history of {number} holds {finished}")
    return store


def _finish(store: Store, queue: str, number: int) -> None:
    """Append, claim and settle in transactions of 1,000, as producers and workers do."""
    engine = store.work.app.engine
    codec = store.work.noop.codec
    body = codec.encode_arguments((0, PAYLOAD), {})
    admission = Admission(declared={queue: Bounds(BOUND, 2**40)})
    wanted = Wanted(owner="bench", number=1_000, lease_ms=30_000, queues=(queue,))
    settlements: list[Settlement] = []
    for batch in batches(number, 1_000):
        ids = new_ids(store.work.app.clock.wall_ms(), len(batch))
        jobs = [Job(id=it, queue=queue, task=store.work.noop.name, body=body) for it in ids]
        engine.run(engine.append(jobs, admission))
        turn = engine.run(engine.turn(settlements, [wanted]))
        leases = turn.claimed[0].leases
        settlements = [Settlement(it.job, it.token, Succeeded(), ran_ms=1) for it in leases]
    engine.run(engine.settle(settlements))


def _finished(store: Store) -> int:
    engine = store.work.app.engine
    return sum(record.succeeded for record in engine.run(engine.list_queues()))
