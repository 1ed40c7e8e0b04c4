"""SQS before a ledger: messages that come twice, and kill -9 wherever a message may be."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.diarist import QUEUE, diarist
from tests.faults.fleet import ROOT, Fleet, fleet, until_jobs_start, wait_until
from tests.faults.history import Attempt, judge, read_diary
from tests.faults.producer import Producer
from tests.servers import sqs
from tests.servers.missing import Missing, give_up
from tests.servers.unruly import Unruly, unruly

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

HURRIED = "tests.faults.hurried"
OPTIONS = "visibility=3&wait=1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An endpoint of our own: what killed workers left waiting there hurts no other test."""
    try:
        with sqs.started() as server:
            yield server.url
    except Missing as why:
        give_up("faults on SQS", why)


def brokered(way: str, folder: Path, prefix: str) -> str:
    return f"{way}?prefix={prefix}&{OPTIONS}&ledger=sqlite:///{folder / 'jobs.db'}"


def test_what_comes_twice_runs_once_whoever_is_killed(
    endpoint: str,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    seconds = 90.0 if proving else 4.0

    with unruly(endpoint) as way:
        way.twice, way.is_shuffled, way.late = 0.2, True, 0.05
        way.failing, way.throttled = 0.02, 0.01
        url = brokered(way.before(endpoint), tmp_path, sqs.prefix())
        with fleet(tmp_path, 2, store=url, program=HURRIED) as workers:
            work = diarist(workers.url)
            producer = Producer(work, workers.diary, chance, 40.0)
            producer.enqueue()
            wait_until(producer.is_drained, 40, "a first job is done")
            producer.start()
            ended = time.monotonic() + seconds
            while time.monotonic() < ended:
                until_jobs_start(workers)
                time.sleep(0.3)
                workers.kill_one(chance)
                workers.mend()
            producer.stop()
            wait_until(producer.is_drained, 90, "all jobs are done after the last kill")
            finished, diary = producer.finished(), read_diary(workers.diary)
            work.app.close()
        published = way.sent

    verdict = judge(producer.calls, finished, diary, workers.kills)
    record_property("figure", f"sqs+sqlite: {verdict}; {published} published")
    print(verdict, published)
    assert verdict.acknowledged > 50, producer.longest_call
    assert verdict.kills > 1
    assert not verdict.lost, verdict.lost[:5]
    assert not verdict.overlaps, verdict.overlaps[:5]
    assert not verdict.unexplained, verdict.unexplained[:5]


def test_a_backlog_is_not_published_twice(
    endpoint: str, tmp_path: Path, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    """However slow the workers are: only a window of it is at the broker."""
    number = 100_000 if proving else 500

    with unruly(endpoint) as way:
        url = brokered(way.before(endpoint), tmp_path, sqs.prefix())
        work = diarist(url)
        task = work.in_loop
        task.enqueue_many(((0, os.devnull), {}) for _ in range(number))
        with fleet(tmp_path, 1, store=url, concurrency=32):
            wait_until(
                lambda: work.app.queue(QUEUE).record().succeeded == number,
                900 if proving else 120,
                "the backlog is done",
            )
        work.app.close()
        published = way.sent

    record_property("figure", f"{published / number:.3f} publications a job, of {number}")
    print(f"{published} published of {number}")
    assert published <= 1.05 * number


# -- kill -9 at each step of a message's way --

JOBS = 12
PRODUCE = """
import os, sys
from tests.faults.diarist import diarist
work = diarist(os.environ["FAULTS_URL"])
for _ in range(int(sys.argv[1])):
    work.in_thread.enqueue(30, os.environ["FAULTS_DIARY"])
    print("x", flush=True)
sys.stdin.read()
"""


class Trap:
    """Kills all that speaks through a proxy, at a call of theirs, once."""

    def __init__(self, way: Unruly, action: str, phase: str) -> None:
        self.victims: Callable[[], list[int]] = list
        self.has_sprung = threading.Event()
        self._at = action, phase
        self._lock = threading.Lock()
        way.watch = self.see

    def see(self, action: str, phase: str, number: int) -> None:
        """`phase`: "asked", before the endpoint hears of it; "done", before the caller does."""
        with self._lock:
            if (action, phase) != self._at or not number or self.has_sprung.is_set():
                return
            for pid in self.victims():
                os.kill(pid, signal.SIGKILL)
            self.has_sprung.set()


@pytest.mark.parametrize(
    ("action", "phase"),
    [("SendMessageBatch", "asked"), ("SendMessageBatch", "done")],
    ids=["before it is published", "before it knows that it was published"],
)
def test_a_producer_that_is_killed_has_lost_nothing(
    endpoint: str, tmp_path: Path, action: str, phase: str
) -> None:
    prefix = sqs.prefix()
    with unruly(endpoint) as way:
        trap = Trap(way, action, phase)
        theirs = Fleet(tmp_path, brokered(way.before(endpoint), tmp_path, prefix))
        command = [sys.executable, "-c", PRODUCE, str(JOBS)]
        producer = subprocess.Popen(
            command,
            env=theirs.environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        trap.victims = lambda: [producer.pid]
        producer.wait(60)
        said = producer.stdout.read() if producer.stdout else b""

    assert trap.has_sprung.is_set()
    attempts = _drained(endpoint, tmp_path, prefix, at_least=said.count(b"x"))
    assert all(len(it) == 1 for it in attempts)


@pytest.mark.parametrize(
    ("action", "phase", "runs"),
    [("ReceiveMessage", "done", 1), ("DeleteMessageBatch", "asked", 2)],
    ids=["between receive and claim", "between claim and acknowledgement"],
)
def test_a_worker_that_is_killed_has_lost_nothing(
    endpoint: str, tmp_path: Path, action: str, phase: str, runs: int
) -> None:
    prefix = sqs.prefix()
    own = diarist(brokered(endpoint, tmp_path, prefix))
    diary = tmp_path / "diary"
    for _ in range(JOBS):
        own.in_thread.enqueue(300, str(diary))
    with unruly(endpoint) as way:
        trap = Trap(way, action, phase)
        url = brokered(way.before(endpoint), tmp_path, prefix)
        with fleet(tmp_path, 0, store=url, program=HURRIED) as doomed:
            trap.victims = doomed.living
            doomed.start()
            assert trap.has_sprung.wait(60)
    own.app.close()

    attempts = _drained(endpoint, tmp_path, prefix, at_least=JOBS)
    assert max(map(len, attempts)) <= runs


def _drained(endpoint: str, folder: Path, prefix: str, *, at_least: int) -> list[list[Attempt]]:
    """Let healthy workers finish all; return the attempts of each job, none beside another."""
    url = brokered(endpoint, folder, prefix)
    with fleet(folder, 1, store=url, program=HURRIED) as workers:
        own = diarist(url)
        queue = own.app.queue(QUEUE)
        wait_until(lambda: queue.record().depth.jobs == 0, 60, "all jobs are done")
        record = queue.record()
        own.app.close()
        diary = read_diary(workers.diary)
    assert record.succeeded == len(diary) >= at_least
    assert record.failed == 0
    for attempts in diary.values():
        assert sum(it.has_ended for it in attempts) == 1
        for first, second in itertools.pairwise(attempts):
            assert second.began >= first.last_sign
    return list(diary.values())
