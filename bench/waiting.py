"""Jobs that wait: many at once in one executor's loop."""

from __future__ import annotations

from bench.bare import drain_rate
from bench.figure import Figure, at_least, rounds
from bench.process import WorkerProcess
from bench.setting import Setting
from bench.store import Store

NAP = 0.05
CONCURRENCY = 2_000


def waiting(setting: Setting) -> list[Figure]:
    """Run jobs that wait 50 ms, 2,000 at a time: 40,000/s would be no overhead at all."""
    number = setting.size(20_000, 4_000)
    store = setting.store("waiting")
    store.fill(1)
    with WorkerProcess(store, concurrency=CONCURRENCY):
        store.pause(paused=True)
        taken = rounds(
            setting.size(5, 1),
            {
                "naps": lambda: _naps(store, number),
                "bare": lambda: drain_rate(setting.directory, number),
            },
        )
        store.pause(paused=False)
    store.close()
    return [
        at_least(
            f"jobs that wait 50 ms, concurrency {CONCURRENCY:,}",
            taken["naps"],
            beside="bare loop",
            reference=taken["bare"],
            times=0.15,
            good_hour=15_000,
        )
    ]


def _naps(store: Store, number: int) -> float:
    store.work.nap.enqueue_many([((NAP,), {}) for _ in range(number)])
    return store.drain(number)
