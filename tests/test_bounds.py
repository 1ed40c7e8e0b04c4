"""Bounds hold whatever comes at once: threads, processes and jobs that make jobs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from backlane import Backlane, Queue, QueueFull, events
from backlane.model.queue import headroom
from backlane.worker import Worker

PRODUCERS = 50


def greet(name: str) -> str:
    return name


def test_fifty_threads_fill_a_queue_to_its_bound_and_no_further(every_url):
    with Backlane(every_url, queues=[Queue("mail", max_jobs=333)]) as app:
        task = app.task(queue="mail", name="greet")(greet)
        taken, refused = Counter[str](), Counter[str]()
        begin = threading.Barrier(PRODUCERS)

        def produce(number: int) -> None:
            begin.wait()
            for _ in range(20):
                try:
                    task.enqueue("ada")
                    taken[str(number)] += 1
                except QueueFull:
                    refused[str(number)] += 1

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert taken.total() == app.queue("mail").record().depth.jobs == 333
        assert refused.total() == PRODUCERS * 20 - 333


PRODUCER = """
import sys
from backlane import Backlane, Queue, QueueFull
app = Backlane(sys.argv[1], queues=[Queue("mail", max_jobs=500, max_bytes=9_000)])
@app.task(queue="mail", name="greet")
def greet(name: str) -> str: ...
taken = 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    try:
        greet.enqueue("a" * 9)  # 20 bytes, so that the bytes are full first
        taken += 1
    except QueueFull as full:
        assert full.limit == "bytes" and full.depth <= 9_000, full
print(taken, flush=True)
"""


def test_processes_fill_a_queue_to_its_bound_and_no_further(shared_url):
    producers = [
        subprocess.Popen(
            [sys.executable, "-c", PRODUCER, shared_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for producer in producers:
        assert producer.stdout.readline() == "ready\n"

    taken = sum(int(producer.communicate("go\n")[0]) for producer in producers)

    with Backlane(shared_url) as app:
        depth = app.queue("mail").record().depth
    # Of places that a process keeps at hand for its next jobs some may be left over.
    assert taken == depth.jobs
    assert 0.95 * 450 <= depth.jobs <= 450
    assert depth.bytes == 20 * depth.jobs


TUNED = """
import sys, time
from backlane import Backlane, Queue, QueueFull
app = Backlane(sys.argv[1], queues=[Queue("mail", max_jobs=1_000)])
@app.task(queue="mail", name="greet")
def greet(name: str) -> str: ...
greet.enqueue("ada")
print("ready", flush=True)
while True:
    try:
        greet.enqueue("ada")
    except QueueFull as full:
        print(time.time(), full.bound, flush=True)
        break
    time.sleep(0.02)
"""


def test_a_bound_that_is_tuned_holds_in_all_processes_within_a_second(shared_url):
    producers = [
        subprocess.Popen(
            [sys.executable, "-c", TUNED, shared_url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for producer in producers:
        assert producer.stdout.readline() == "ready\n"

    with Backlane(shared_url) as app:
        tuned = time.time()
        app.queue("mail").tune(max_jobs=1)
    told = [producer.communicate()[0].split() for producer in producers]

    assert [bound for _, bound in told] == ["1"] * 3
    assert max(float(when) for when, _ in told) - tuned < 1


WAITED = """
import sys, time
from backlane import Backlane, Queue, QueueFull
app = Backlane(sys.argv[1], queues=[Queue("mail", max_wait=3600)])
@app.task(queue="mail", name="greet")
def greet(name: str) -> str: ...
while greet.enqueue("ada").expected_wait is None:
    time.sleep(0.05)
print("ready", flush=True)
while True:
    try:
        greet.enqueue("ada")
    except QueueFull as full:
        print(time.time(), full.limit, full.bound, flush=True)
        break
    time.sleep(0.02)
"""


def nap(name: str) -> None:
    time.sleep(0.02)


def test_a_wait_that_is_tuned_is_bounded_in_all_processes_within_a_second(shared_url):
    with Backlane(shared_url, queues=[Queue("mail", concurrency=1)]) as app:
        task = app.task(name="greet", queue="mail")(nap)
        with Worker(app):
            task.enqueue_many([(("ada",), {})] * 1_000)
            producers = [
                subprocess.Popen(
                    [sys.executable, "-c", WAITED, shared_url], stdout=subprocess.PIPE, text=True
                )
                for _ in range(3)
            ]
            for producer in producers:
                assert producer.stdout.readline() == "ready\n"

            tuned = time.time()
            app.queue("mail").tune(max_wait=0.5)
            told = [producer.communicate()[0].split() for producer in producers]

    assert [(limit, bound) for _, limit, bound in told] == [("wait", "0.5")] * 3
    assert max(float(when) for when, *_ in told) - tuned < 1


def test_chains_that_enqueue_into_their_own_full_queue_finish(tmp_path):
    """Each job makes its successor in the queue it runs from, which is at its bound.

    More run at once than the headroom takes, so that some are refused even that, and
    are snoozed until the others have made room.
    """
    chains, length = 30, 3
    app = Backlane(f"sqlite:///{tmp_path}/jobs.db", queues=[Queue("links", max_jobs=chains)])
    ended, depths = list[int](), list[int]()
    outcomes = Counter[str]()

    @app.task(queue="links", name="link")
    async def link(left: int) -> None:
        await asyncio.sleep(0.3)  # all of them are running by now, and nobody has ended
        if left:
            await link.aenqueue(left - 1)
            depths.append((await app.queue("links").arecord()).depth.jobs)
        else:
            ended.append(left)

    @app.observe
    def count(event: events.Event) -> None:
        if isinstance(event, events.AttemptEnded):
            outcomes[event.outcome] += 1

    async def main() -> None:
        await link.aenqueue_many([((length - 1,), {}) for _ in range(chains)])
        with pytest.raises(QueueFull):
            await link.aenqueue(0)
        async with Worker(app, concurrency=chains + headroom(chains)):
            until = time.monotonic() + 60
            while len(ended) < chains and time.monotonic() < until:  # noqa: ASYNC110 - for all
                await asyncio.sleep(0.02)

    asyncio.run(main())

    assert len(ended) == chains
    assert chains < max(depths) <= chains + headroom(chains)
    assert outcomes["snoozed"] > 0
    assert outcomes["succeeded"] == chains * length
    app.close()
