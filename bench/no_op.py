"""No-op jobs, end to end: one supervisor, one executor, one pipe, FULL durability."""

from __future__ import annotations

from bench.bare import PAYLOAD, drain_rate
from bench.figure import Figure, at_least, rounds
from bench.process import WorkerProcess
from bench.setting import Setting
from bench.store import Store


def no_op(setting: Setting) -> list[Figure]:
    """Compare with the bare loop, with huey on SQLite and with celery on Redis."""
    number = setting.size(60_000, 6_000)
    peers = setting.peers()
    store = setting.store("no-op")
    store.fill(1)
    with WorkerProcess(store):
        store.pause(paused=True)
        taken = rounds(
            setting.size(5, 1),
            {
                "plain": lambda: _drained(store, number),
                "bare": lambda: drain_rate(setting.directory, number),
                "async": lambda: _adrained(store, number),
                "huey": lambda: peers.huey_rate(setting.directory, setting.size(8_000, 500)),
                "celery": lambda: peers.celery_rate(setting.directory, setting.size(3_000, 300)),
            },
        )
        store.pause(paused=False)
    store.close()
    plain = taken["plain"]
    name = "no-op jobs, one executor"
    huey, celery = peers.version("huey"), peers.version("celery")
    return [
        at_least(name, plain, beside="bare loop", reference=taken["bare"], times=0.5),
        at_least(name, plain, beside=f"huey {huey} SQLite", reference=taken["huey"], times=10),
        at_least(name, plain, beside=f"celery {celery} Redis", reference=taken["celery"], times=40),
        at_least(
            "the same, async def",
            taken["async"],
            beside="bare loop",
            reference=taken["bare"],
            times=0.5,
        ),
    ]


def _drained(store: Store, number: int) -> float:
    store.fill(number)
    return store.drain(number)


def _adrained(store: Store, number: int) -> float:
    store.work.anoop.enqueue_many([((n, PAYLOAD), {}) for n in range(number)])
    return store.drain(number)
