"""Redis, AOF everysec: two executors beside huey, taskiq and SAQ, and its own round trip."""

from __future__ import annotations

import redis as client

from bench.figure import Figure, at_least, at_most, rounds
from bench.process import WorkerProcess
from bench.servers.latency import latency
from bench.servers.place import redis_server
from bench.servers.rival import Rivals
from bench.setting import Setting
from bench.store import Store, one_by_one, round_trips

PAYLOAD_BYTES = 200  # of the jobs whose memory is measured


def redis(setting: Setting) -> list[Figure]:
    """Measure everything on one server, peers and raw commands in the same rounds."""
    with redis_server(setting.directory) as url:
        rivals = Rivals(setting.peers(), url, setting.directory)
        return [
            *_drains(setting, url, rivals),
            *_enqueues(setting, url, rivals),
            *_round_trips(setting, url),
            *latency(setting, _store(setting, url, "latency"), "Redis", p50=1.0, p99=3.0),
            *_memory(setting, url),
        ]


def _store(setting: Setting, url: str, name: str) -> Store:
    """Return a store in a namespace of its own."""
    return Store(setting.directory / f"redis-{name}", f"{url}?namespace=bench-{name}")


def _drains(setting: Setting, url: str, rivals: Rivals) -> list[Figure]:
    number = setting.size(60_000, 6_000)
    few = setting.size(20_000, 2_000)
    store = _store(setting, url, "drain")
    store.fill(1)
    with WorkerProcess(store, processes=2):
        store.pause(paused=True)
        taken = rounds(
            setting.size(5, 1),
            {
                "ours": lambda: _drained(store, number),
                "huey": lambda: rivals.huey(few),
                "taskiq": lambda: rivals.taskiq(few),
                "saq": lambda: rivals.saq(few // 2),
            },
        )
        store.pause(paused=False)
    store.close()
    return [
        at_least(
            "Redis: no-op jobs, two executors",
            taken["ours"],
            beside=f"{peer} {rivals.peers.version(peer)}",
            reference=taken[peer],
            times=5,
        )
        for peer in ("huey", "taskiq", "saq")
    ]


def _drained(store: Store, number: int) -> float:
    store.fill(number)
    return store.drain(number)


def _enqueues(setting: Setting, url: str, rivals: Rivals) -> list[Figure]:
    seconds = 1.0 if setting.full else 0.3
    bulk = setting.size(100_000, 10_000)
    store = _store(setting, url, "enqueue")
    taken = rounds(
        setting.size(7, 2),
        {
            "ours": lambda: one_by_one(store, seconds),
            "raw": lambda: rivals.printed("bare_redis", f"sets({seconds})"),
            "bulk": lambda: store.fill(bulk),
            "piped": lambda: rivals.printed("bare_redis", f"piped({bulk})"),
        },
    )
    store.close()
    return [
        at_least(
            "Redis: enqueue, one by one",
            taken["ours"],
            beside="a SET",
            reference=taken["raw"],
            times=0.8,
        ),
        at_least(
            "Redis: enqueue_many",
            taken["bulk"],
            beside="XADD, 100 a pipeline",
            reference=taken["piped"],
            times=0.6,
            good_hour=60_000,
        ),
    ]


def _round_trips(setting: Setting, url: str) -> list[Figure]:
    seconds = 1.0 if setting.full else 0.3
    store = _store(setting, url, "round-trip")
    with WorkerProcess(store):
        taken = rounds(setting.size(7, 2), {"ours": lambda: round_trips(store, seconds)})
    store.close()
    milliseconds = [1_000 / rate for rate in taken["ours"]]
    milliseconds.sort()
    return [
        at_most(
            "Redis: enqueue and wait for the result",
            milliseconds[len(milliseconds) // 2],
            unit="ms",
            bar=1_000 / 1_500,
            beside=f"{1_000 / milliseconds[len(milliseconds) // 2]:,.0f}/s, bar 1,500/s",
        )
    ]


def _memory(setting: Setting, url: str) -> list[Figure]:
    """Tell what a waiting job takes of the server's memory."""
    number = setting.size(100_000, 5_000)
    store = _store(setting, url, "memory")
    server = client.Redis.from_url(url)
    before = server.info("memory")["used_memory"]
    work = store.work
    size = PAYLOAD_BYTES - len(work.noop.codec.encode_arguments((0, ""), {}))
    work.noop.enqueue_many([((n, "x" * size), {}) for n in range(number)])
    used = server.info("memory")["used_memory"] - before
    store.close()
    server.close()
    return [
        at_most(
            f"Redis: memory of a waiting job, {PAYLOAD_BYTES} B of arguments",
            used / number,
            unit="B",
            bar=600,
            beside=f"{number:,} jobs",
        )
    ]
