"""SQS: a worker's rate behind it, beside what the endpoint itself does by tens.

The bare loop sends all, then receives and deletes, in as many threads as there are slots
for calls; each kind of call is full. The same number of jobs goes through a ledger and
SQS, and through SQS alone. All share one endpoint, moto's, in turn.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.servers import sqs as servers

from bench.figure import Figure, Nothing, at_least
from bench.process import ROOT
from bench.setting import Setting
from bench.sqs_served import served

THREADS = 8  # as many polls as one queue of ours has
BATCH = 10
ROUNDS = 3
LONGEST_SECONDS = 300
PAYLOAD = "x" * 256


def sqs(setting: Setting) -> list[Figure]:
    """Measure both, in alternating rounds on one endpoint."""
    number = setting.size(20_000, 2_000)
    bare: list[float] = []
    alone: list[float] = []
    brokered: list[float] = []
    with servers.started() as server:
        for turn in range(ROUNDS):
            folder = setting.directory / f"sqs-{turn}"
            folder.mkdir()
            bare.append(_bare(server.url, number))
            alone.append(_ours(f"{server.url}?prefix=alone-{turn}", number, folder, "alone"))
            ledger = f"sqlite:///{folder / 'jobs.db'}"
            url = f"{server.url}?prefix=before-{turn}&ledger={ledger}"
            brokered.append(_ours(url, number, folder, "before"))
    note = "both ends: enqueued by thousands, worked off by one worker"
    return [
        at_least(
            f"{number:,} jobs through SQS and a SQLite ledger",
            brokered,
            beside="the endpoint by tens",
            reference=bare,
            times=0.8,
            note=note,
        ),
        at_least(
            f"{number:,} jobs through SQS alone",
            alone,
            beside="the endpoint by tens",
            reference=bare,
            times=0.8,
            note=note,
        ),
    ]


def _bare(url: str, number: int) -> float:
    """Return messages/s of plain boto3: all sent, while all is received and deleted."""
    clients = [servers.client(url) for _ in range(2 * THREADS)]
    queue = clients[0].create_queue(QueueName=f"bare-{time.time_ns()}")["QueueUrl"]
    done = [0] * THREADS
    calls: list[Callable[[], None]] = [
        lambda n=n: _send(clients[n], queue, number // THREADS)  # type: ignore[misc]
        for n in range(THREADS)
    ]
    total = number // THREADS // BATCH * BATCH * THREADS
    calls += [
        lambda n=n: _receive(clients[THREADS + n], queue, done, n, total)  # type: ignore[misc]
        for n in range(THREADS)
    ]
    threads = [threading.Thread(target=call) for call in calls]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total / (time.perf_counter() - began)


def _send(client: Any, queue: str, number: int) -> None:
    for _ in range(number // BATCH):
        entries = [{"Id": str(n), "MessageBody": PAYLOAD} for n in range(BATCH)]
        client.send_message_batch(QueueUrl=queue, Entries=entries)


def _receive(client: Any, queue: str, done: list[int], own: int, total: int) -> None:
    while sum(done) < total:
        answer = client.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1
        )
        found = answer.get("Messages", ())
        if found:
            client.delete_message_batch(
                QueueUrl=queue,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": it["ReceiptHandle"]}
                    for n, it in enumerate(found)
                ],
            )
        done[own] += len(found)


def _ours(url: str, number: int, folder: Path, name: str) -> float:
    """Return jobs/s from the first enqueue until the last has run, with a worker that waits."""
    counted = folder / f"{name}.counted"
    app = served(url, str(counted))
    noop = app.tasks["noop"]
    with _worker(url, counted, folder / f"{name}.log"):
        noop.enqueue(0, PAYLOAD)
        _wait_for(counted, 1)
        began = time.perf_counter()
        noop.enqueue_many(((n, PAYLOAD), {}) for n in range(number))
        _wait_for(counted, number + 1)
        took = time.perf_counter() - began
    app.close()
    return number / took


@contextlib.contextmanager
def _worker(url: str, counted: Path, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "backlane", "worker", "bench.sqs_served:app"]
    environment = {**os.environ, "BENCH_URL": url, "BENCH_COUNTED": str(counted)}
    environment["PYTHONPATH"] = str(ROOT)
    with log.open("w") as said:
        worker = subprocess.Popen(
            [*command, "--concurrency", "50"], env=environment, stdout=said, stderr=said
        )
    try:
        yield
    except BaseException as error:
        error.add_note(f"the worker said:\n{log.read_text()[-2000:]}")
        raise
    finally:
        worker.terminate()
        worker.wait(60)


def _wait_for(counted: Path, number: int) -> None:
    limit = time.perf_counter() + LONGEST_SECONDS
    while (found := counted.stat().st_size) < number:
        if time.perf_counter() > limit:
            raise Nothing(f"{found} of {number} jobs have run")
        time.sleep(0.005)
