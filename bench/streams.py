"""Streams: what thousands of idle followers of jobs cost a gateway, and the others.

`backlane serve` is a process of its own. Here are the followers, one connection each, and
beside them a caller who reads and submits jobs one after the other, timed, first with no
stream open and then with all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backlane.engine.selection import Cancel, Selection
from backlane.model.job import State
from bench.figure import Figure, Nothing, at_most, percentile
from bench.process import environment, proportional_mib
from bench.setting import Setting
from bench.store import PATIENCE, Store

STREAMS = 2_000
RATE = 50.0  # requests/s beside the streams: neither end is busy, so what is timed is a wait
CHANGED = 200  # jobs that change at last, to see that all streams still live


def streams(setting: Setting) -> list[Figure]:
    """Hold 2,000 streams of jobs that wait, and time other requests meanwhile."""
    store = setting.store("streams")
    store.fill(STREAMS)
    with _gateway(store) as (process, port):
        pid = [process.pid]
        figures = asyncio.run(_measured(store, port, pid, setting.size(30, 5)))
    store.close()
    return figures


async def _measured(store: Store, port: int, pid: list[int], seconds: int) -> list[Figure]:
    jobs = _jobs(store)
    alone = await _timed(port, jobs, seconds)
    before = proportional_mib(pid)
    crowd = Crowd(port)
    began = time.monotonic()
    await crowd.gather(jobs)
    opened = time.monotonic() - began
    await asyncio.sleep(3)  # past the first looks, which come together
    beside = await _timed(port, jobs, seconds)
    grown = proportional_mib(pid) - before
    late = await crowd.changed(store, jobs[:CHANGED])
    if (alive := crowd.alive) < STREAMS - CHANGED:
        raise Nothing(f"{alive} of {STREAMS - CHANGED} idle streams are left")
    crowd.close()
    return [
        at_most(
            f"other requests beside {STREAMS:,} idle streams, p99",
            percentile(beside, 99),
            unit="ms",
            bar=60,
            beside=f"without streams {percentile(alone, 99):.3g} ms",
            note=f"p50 {percentile(beside, 50):.3g} ms beside {percentile(alone, 50):.3g} ms; "
            f"all opened within {opened:.1f} s",
        ),
        at_most(
            "memory of an idle stream",
            grown / STREAMS * 1024,
            unit="KiB",
            bar=64,
            beside=f"{before:.0f} MiB before, {before + grown:.0f} MiB then",
        ),
        at_most(
            f"a change seen by its follower, {CHANGED} at once, p99",
            percentile(late, 99) * 1000,
            unit="ms",
            bar=500,
            beside=f"p50 {percentile(late, 50) * 1000:.3g} ms",
        ),
    ]


def _jobs(store: Store) -> list[str]:
    engine = store.work.app.engine
    page = engine.run(engine.find(Selection(states=(State.READY,)), limit=STREAMS))
    return [record.id.hex() for record in page.records]


@contextmanager
def _gateway(store: Store) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    log = store.path.with_suffix(".serve.log")
    command = [sys.executable, "-m", "backlane", "serve", "bench.served:app", "--port", "0"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, env=environment(store), stdout=written, stderr=written, start_new_session=True
        )
    try:
        limit = time.monotonic() + 20
        while "http://" not in (said := log.read_text()):
            if process.poll() is not None or time.monotonic() > limit:
                raise Nothing(f"the gateway did not start: {said[-1000:]}")
            time.sleep(0.05)
        yield process, int(said.partition("http://")[2].split()[0].rpartition(":")[2])
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()


async def _timed(port: int, jobs: list[str], seconds: int) -> list[float]:
    """Read and submit jobs in turn; return how long each took, in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"arguments": {"_n": 1, "_text": ""}, "delay": 3_600}).encode()
    head = "\r\nHost: localhost\r\n"
    post = (
        f"POST /v1/tasks/bench.workload.noop/jobs HTTP/1.1{head}Content-Type: application/json\r\n"
    )
    took: list[float] = []
    due = time.perf_counter()
    for number in range(int(seconds * RATE)):
        due += 1 / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        if number % 2:
            get = f"GET /v1/jobs/{jobs[number % len(jobs)]} HTTP/1.1{head}\r\n"
            writer.write(get.encode())
        else:
            writer.write(f"{post}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status = await _answer(reader)
        took.append((time.perf_counter() - began) * 1000)
        if status not in (200, 202):
            raise Nothing(f"a request was answered with {status}")
    writer.close()
    return took


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split()[1])


@dataclass
class Crowd:
    """All followers of this process."""

    port: int
    first: int = 0  # streams that have told their job
    changes: dict[str, float] = field(default_factory=dict)  # when a job's next event came
    open: dict[str, asyncio.StreamWriter] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def gather(self, jobs: list[str]) -> None:
        """Follow each of these jobs, and wait until all were told of theirs."""
        for start in range(0, len(jobs), 100):
            await asyncio.gather(*(self._follow(job) for job in jobs[start : start + 100]))
        limit = time.monotonic() + PATIENCE
        while self.first < len(jobs):
            if time.monotonic() > limit:
                raise Nothing(f"{self.first} of {len(jobs)} streams told of their job")
            await asyncio.sleep(0.01)

    async def _follow(self, job: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=16_384)
        writer.write(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.open[job] = writer
        self.tasks.append(asyncio.create_task(self._read(job, reader)))

    async def _read(self, job: str, reader: asyncio.StreamReader) -> None:
        told = 0
        while line := await reader.readline():
            if line.startswith(b"data: "):
                told += 1
                if told == 1:
                    self.first += 1
                else:
                    self.changes[job] = time.monotonic()
        del self.open[job]

    @property
    def alive(self) -> int:
        return sum(not task.done() for task in self.tasks)

    async def changed(self, store: Store, jobs: list[str]) -> list[float]:
        """Cancel these jobs; return how many seconds later their streams told so."""
        engine = store.work.app.engine
        ids = tuple(bytes.fromhex(job) for job in jobs)
        await engine.arun(engine.amend(Selection(ids=ids), Cancel()))
        began = time.monotonic()
        while len(self.changes) < len(jobs):
            if time.monotonic() - began > 20:
                raise Nothing(f"{len(self.changes)} of {len(jobs)} changes were told")
            await asyncio.sleep(0.01)
        return [when - began for when in self.changes.values()]

    def close(self) -> None:
        for writer in self.open.values():
            writer.close()
