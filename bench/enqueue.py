"""Enqueue: one after the other, two hundred at once, in bulk; each durable at its return."""

from __future__ import annotations

import asyncio
import time

from bench.bare import PAYLOAD, bulk_rate, insert_rate
from bench.figure import Figure, Nothing, at_least, rounds
from bench.setting import Setting
from bench.store import Store, one_by_one

TOGETHER = 200


def enqueue(setting: Setting) -> list[Figure]:
    """Compare all three with what raw SQLite does in the same rounds."""
    seconds = 0.5 if setting.full else 0.2
    store = setting.store("enqueue")
    number = setting.size(20_000, 2_000)
    bulk = setting.size(100_000, 10_000)
    taken = rounds(
        setting.size(9, 2),
        {
            "raw": lambda: insert_rate(setting.directory, seconds),
            "one": lambda: one_by_one(store, seconds),
            "together": lambda: asyncio.run(_together(store, number)),
            "raw bulk": lambda: bulk_rate(setting.directory, bulk),
            "bulk": lambda: store.fill(bulk),
        },
    )
    _check(store)
    store.close()
    return [
        at_least(
            "enqueue, one by one",
            taken["one"],
            beside="raw insert a commit",
            reference=taken["raw"],
            times=0.75,
        ),
        at_least(
            f"{TOGETHER} concurrent aenqueue",
            taken["together"],
            beside="raw insert a commit",
            reference=taken["raw"],
            times=3.3,
            good_hour=15_000,
        ),
        at_least(
            "enqueue_many",
            taken["bulk"],
            beside="raw, 1,000 a commit",
            reference=taken["raw bulk"],
            times=0.5,
            good_hour=100_000,
        ),
    ]


async def _together(store: Store, number: int) -> float:
    """Keep `TOGETHER` callers busy, each of which waits for its own commit."""
    left = iter(range(number))

    async def caller() -> None:
        for n in left:
            await store.work.noop.aenqueue(n, PAYLOAD)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(TOGETHER)))
    rate = number / (time.perf_counter() - began)
    await store.work.app.aclose()
    return rate


def _check(store: Store) -> None:
    record = store.record()
    if record is None or record.depth.ready < 1 or record.depth.ready != record.appended:
        raise Nothing(f"what was enqueued is not all there: {record}")
