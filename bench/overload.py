"""Overload: three times what the worker can do, offered over HTTP for a minute.

A real gateway and a real worker on one file; jobs nap for 20 ms on 20 slots; 200 clients.
Once every refused client obeys (comes back when it was told, with its ticket), once none
comes back. What a naps worker does by itself, measured before and after in the same run,
is what it has to do under the storm too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import httpx2
import msgspec

from backlane import Backlane
from backlane.engine.protocol import Admission, Engine
from backlane.model.ids import new_ids
from backlane.model.job import Job, Refusal
from bench.crowd import Attempt, Orders, Phase, Told, statuses
from bench.figure import Figure, Nothing, at_most, percentile
from bench.overloaded import MAX_JOBS, MAX_WAIT_SECONDS, NAP_SECONDS, QUEUE, SLOTS
from bench.process import ROOT
from bench.setting import Setting
from bench.store import batches

CLIENTS = 200
TIMES = 3.0  # of the service rate
SETTLED_SECONDS = 30.0  # after a step in the load, from when promises are judged
CALM_SECONDS = 5.0  # after the offer falls below the service rate: then nothing is refused


@dataclass(slots=True)
class Watched:
    """What was seen of the queue and the processes while the crowd pressed."""

    depth: int = 0
    gateway_mib: list[float] = field(default_factory=list)
    worker_mib: list[float] = field(default_factory=list)
    file_mib: list[float] = field(default_factory=list)


class Site:
    """A gateway and a worker on one file, as their commands start them."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.db"
        self.url = f"sqlite:///{self.path}"
        self._logs = directory
        self._started: list[subprocess.Popen[bytes]] = []
        self.port = 0
        self.engine: Engine = Backlane(self.url).engine

    @contextlib.contextmanager
    def open(self) -> Iterator[Site]:
        """Start both; end them with the block."""
        try:
            self.worker = self._start(
                *("worker", "bench.overloaded:app", "--processes", "1"),
                *("--concurrency", str(SLOTS)),
            )
            self.gateway = self._start("serve", "bench.overloaded:app", "--port", "0")
            self.port = self._port()
            yield self
        finally:
            for process in self._started:
                process.send_signal(signal.SIGTERM)
            for process in self._started:
                process.wait(30)
            self.engine.close()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self._logs / f"{words[0]}.log").open("w")
        environment = {**os.environ, "BENCH_URL": self.url, "PYTHONPATH": str(ROOT)}
        started = subprocess.Popen(
            [sys.executable, "-m", "backlane", *words], env=environment, stdout=log, stderr=log
        )
        self._started.append(started)
        return started

    def _port(self) -> int:
        """Return the port that the gateway says it listens on, once it answers there."""
        log, limit = self._logs / "serve.log", time.monotonic() + 20
        while time.monotonic() < limit:
            for word in log.read_text().split():
                if word.startswith("http://127.0.0.1:"):
                    port = int(word.removeprefix("http://127.0.0.1:").strip("/"))
                    if httpx2.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                        return port
            time.sleep(0.05)
        raise Nothing(f"the gateway did not come up: {log.read_text()[-2000:]}")

    def crowd(self, phases: list[Phase], *, obeys: bool, patience: float) -> Told:
        """Let the crowd loose and return what it saw."""
        orders = Orders(
            self.port, "/v1/tasks/nap/jobs", {"arguments": {"seconds": NAP_SECONDS}},
            CLIENTS, phases, obeys, patience,
        )  # fmt: skip
        words = [sys.executable, "-m", "bench.crowd", msgspec.json.encode(orders).decode()]
        done = subprocess.run(words, capture_output=True, check=False, cwd=ROOT)
        if done.returncode:
            raise Nothing(f"the crowd failed: {done.stderr.decode()[-2000:]}")
        return msgspec.json.decode(done.stdout, type=Told)

    def unloaded(self, seconds: float) -> float:
        """Return jobs/s of the worker alone, with a backlog and no crowd."""
        number = int(seconds * SLOTS / NAP_SECONDS)
        for batch in batches(number, 1_000):
            self._append(len(batch))
        began, first = time.monotonic(), self._succeeded()
        while (done := self._succeeded()) == first:
            _tire(began, "the worker does nothing")
        since, first = time.monotonic(), done
        while self._depth() > number // 20:
            _tire(began, "the worker does not finish")
        rate = (self._succeeded() - first) / (time.monotonic() - since)
        while self._depth():
            _tire(began, "the worker does not finish")
        return rate

    def _append(self, number: int) -> None:
        """Store naps past the door, which may still keep places for callers of the crowd."""
        body = msgspec.json.encode({"seconds": NAP_SECONDS})
        ids = new_ids(time.time_ns() // 1_000_000, number)
        jobs = [Job(id=job, queue=QUEUE, task="nap", body=body) for job in ids]
        answer = self.engine.run(self.engine.append(jobs, Admission()))
        if isinstance(answer, Refusal):
            raise Nothing(f"the backlog did not fit: {answer}")

    def _depth(self) -> int:
        return sum(it.depth.jobs for it in self.engine.run(self.engine.list_queues()))

    def _succeeded(self) -> int:
        return sum(it.succeeded for it in self.engine.run(self.engine.list_queues()))

    @contextlib.contextmanager
    def watched(self) -> Iterator[Watched]:
        """Look at depth, memory and file five times a second within the block."""
        seen, over = Watched(), threading.Event()
        looking = threading.Thread(target=self._look, args=(seen, over))
        looking.start()
        try:
            yield seen
        finally:
            over.set()
            looking.join()

    def _look(self, seen: Watched, over: threading.Event) -> None:
        while not over.wait(0.2):
            seen.depth = max(seen.depth, self._depth())
            seen.gateway_mib.append(_resident_mib(self.gateway.pid))
            seen.worker_mib.append(_resident_mib(self.worker.pid))
            files = self.path.parent.glob(self.path.name + "*")
            seen.file_mib.append(sum(it.stat().st_size for it in files if it.is_file()) / 2**20)

    def starts(self) -> dict[bytes, tuple[int, int]]:
        """Return of each finished job when it was enqueued and claimed, in wall ms."""
        reading = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            rows = reading.execute(
                "select id, enqueued_ms, finished.started_ms from backlane_job "
                "join backlane_finished as finished using (seq)"
            )
            return {job: (enqueued, started) for job, enqueued, started in rows}
        finally:
            reading.close()


def _tire(began: float, what: str) -> None:
    if time.monotonic() - began > 120:
        raise Nothing(what)
    time.sleep(0.02)


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def overload(setting: Setting) -> list[Figure]:
    """Press with clients that obey, then with clients that never come back."""
    figures: list[Figure] = []
    for obeys in (True, False):
        name = "obeying" if obeys else "one-shot"
        directory = setting.directory / name
        directory.mkdir()
        with Site(directory, name).open() as site:
            figures += _pressed(site, setting, name, obeys=obeys)
    return figures


def _pressed(site: Site, setting: Setting, name: str, *, obeys: bool) -> list[Figure]:
    site.unloaded(1.0)  # warm
    alone = [site.unloaded(setting.size(5, 3))]
    mu, storm = alone[0], setting.size(60, 12)
    calm = setting.size(20, 10)
    phases = [
        Phase(setting.size(35, 10), 0.8 * mu),  # a steady load, from which promises are judged
        Phase(storm, TIMES * mu),
        Phase(calm, 0.5 * mu),
    ]
    with site.watched() as seen:
        told = site.crowd(phases, obeys=obeys, patience=3.0 * storm + 30)
    while site._depth():
        time.sleep(0.1)
    alone.append(site.unloaded(setting.size(5, 3)))
    storm_began = phases[0].seconds
    return [
        *_service(site, told, seen, name, min(alone), (storm_began, storm)),
        *(_obedience(told, name) if obeys else _calm(told, name, storm_began + storm)),
        *_promises(site, told, name, phases),
    ]


def _service(
    site: Site, told: Told, seen: Watched, name: str, alone: float, storm: tuple[float, float]
) -> list[Figure]:
    """What those who were accepted saw, and what it cost."""
    begins, lasts = storm
    starts = site.starts()
    from_ms, to_ms = (told.began + begins) * 1000, (told.began + begins + lasts) * 1000
    waits = [
        (started - enqueued) / 1000
        for enqueued, started in starts.values()
        if from_ms <= enqueued <= to_ms
    ]
    # From when the line is full: before that the worker waits for the crowd.
    seconds = Counter(
        int((started - from_ms) / 1000)
        for _, started in starts.values()
        if from_ms + 2000 <= started < to_ms
    )
    rates = [seconds.get(second, 0) for second in range(2, int(lasts))]
    served = sum(rates) / len(rates)
    found = statuses(told.attempts)
    strange = {status: count for status, count in found.items() if status not in (202, 503)}
    told_of = ", ".join(f"{status}: {count:,}" for status, count in sorted(found.items()))
    storm_attempts = [it for it in told.attempts if begins <= it.sent < begins + lasts]
    offered = sum(1 for it in storm_attempts if it.number == 0) / lasts
    took = [it.took * 1000 for it in storm_attempts]
    return [
        at_most(f"{name}: wait of accepted jobs, p99", percentile(waits, 99), unit="s",
                bar=1.3 * MAX_WAIT_SECONDS,
                beside=f"{len(waits):,} jobs, p50 {percentile(waits, 50):.2f} s"),
        _at_least(f"{name}: throughput under the storm", served / alone, 0.95,
                  f"{served:,.0f}/s beside {alone:,.0f}/s alone; worst second {min(rates)}",
                  note=f"offered {offered:,.0f} new/s, {len(took) / lasts:,.0f} requests/s, "
                       f"answered in p50 {percentile(took, 50):.1f}, "
                       f"p99 {percentile(took, 99):.0f} ms"),
        at_most(f"{name}: answers other than 202 and 503",
                sum(strange.values()) + told.unanswered, unit="answers", bar=0.5, beside=told_of),
        at_most(f"{name}: deepest queue", seen.depth, unit="jobs", bar=MAX_JOBS),
        at_most(f"{name}: growth of the gateway under the storm",
                max(seen.gateway_mib) - seen.gateway_mib[0], unit="MiB", bar=100.0,
                beside=f"{max(seen.gateway_mib):.0f} MiB at most; worker "
                       f"{max(seen.worker_mib):.0f} MiB; file {max(seen.file_mib):.0f} MiB"),
    ]  # fmt: skip


def _obedience(told: Told, name: str) -> list[Figure]:
    """What obeying cost and was worth."""
    accepted = sum(1 for it in told.attempts if it.status == 202)
    first_returns = [it for it in told.attempts if it.number == 1]
    came_in = sum(1 for it in first_returns if it.status == 202)
    if not first_returns:
        raise Nothing("nobody was refused, so nobody came back")
    return [
        at_most(f"{name}: attempts per accepted job", len(told.attempts) / accepted,
                unit="attempts", bar=2.0, beside=f"{accepted:,} accepted"),
        _at_least(f"{name}: accepted at the first return", came_in / len(first_returns), 0.95,
                  f"{came_in:,} of {len(first_returns):,}"),
        at_most(f"{name}: never accepted", told.gave_up, unit="jobs", bar=0.5),
    ]  # fmt: skip


def _calm(told: Told, name: str, ends: float) -> list[Figure]:
    """After the storm nobody is refused any more."""
    refused = [it.sent - ends for it in told.attempts if it.status == 503]
    late = max(refused, default=0.0)
    return [
        at_most(f"{name}: last refusal after the storm", max(0.0, late), unit="s",
                bar=CALM_SECONDS, beside=f"{len(refused):,} refusals in all"),
    ]  # fmt: skip


def _promises(site: Site, told: Told, name: str, phases: list[Phase]) -> list[Figure]:
    """How the expected wait compares with the actual one, where anybody waited at all."""
    starts = site.starts()
    ratios = []
    for attempt in _steady(told.attempts, phases):
        found = starts.get(bytes.fromhex(attempt.job.replace("-", "")))
        if found is None or not attempt.expected_wait or attempt.expected_wait < 0.1:
            continue
        ratios.append((found[1] - found[0]) / 1000 / attempt.expected_wait)
    if len(ratios) < 100:
        raise Nothing(f"{name}: only {len(ratios)} jobs had a wait foretold")
    middle = percentile(ratios, 50)
    off = [abs(ratio - 1) for ratio in ratios]
    return [
        at_most(f"{name}: actual against expected wait, median off by", abs(middle - 1), unit="",
                bar=0.2, beside=f"{len(ratios):,} jobs, median {middle:.2f}"),
        at_most(f"{name}: actual against expected wait, off by at p90", percentile(off, 90),
                unit="", bar=0.5),
    ]  # fmt: skip


def _steady(attempts: list[Attempt], phases: list[Phase]) -> Iterator[Attempt]:
    """Yield the attempts of times when no step in the load is recent."""
    begins = 0.0
    settles = min(SETTLED_SECONDS, min(phase.seconds for phase in phases) / 2)
    for phase in phases:
        ends = begins + phase.seconds
        for attempt in attempts:
            if begins + settles <= attempt.sent < ends and attempt.job:
                yield attempt
        begins = ends


def _at_least(name: str, value: float, bar: float, beside: str, note: str = "") -> Figure:
    return Figure(
        name=name,
        measured=f"{value:.1%}",
        beside=beside,
        ratio=f"{value / bar:.2f}",
        bar=f"at least {bar:.0%}",
        holds=value >= bar,
        note=note,
    )
