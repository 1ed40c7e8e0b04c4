"""SQS: a worker's rate behind it, beside what the endpoint itself does by tens.

The bare loop has one process that sends and one that receives and deletes, as ours have,
with as many threads as one queue of ours has polls. The same number of jobs goes through
SQS and a ledger, and through SQS alone. All share one endpoint, moto's, in turn.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tests.servers import sqs as servers

from bench.figure import Figure, Nothing, at_least, at_most, percentile
from bench.latency import samples
from bench.process import ROOT, WorkerProcess
from bench.setting import Setting
from bench.sqs_served import served
from bench.store import Store

THREADS = 8  # as many polls as one queue of ours has
BATCH = 10
ROUNDS = 3
BEGUN = 100.0  # milliseconds within which a lone job begins
LONGEST_SECONDS = 300
PAYLOAD = "x" * 256


def sqs(setting: Setting) -> list[Figure]:
    """Measure both, in alternating rounds on one endpoint; then lone jobs."""
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
        lone = [_lone(setting, server.url, name) for name in ("alone", "SQLite")]
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
        *lone,
    ]


def _lone(setting: Setting, url: str, ledger: str) -> Figure:
    """Time lone jobs; they are to begin at once where the endpoint answers at once."""
    options = f"prefix=lone-{ledger.lower()}"
    if ledger == "SQLite":
        options += f"&ledger=sqlite:///{setting.directory / 'sqs-lone.db'}"
    store = Store(setting.directory / f"sqs-lone-{ledger}", f"{url}?{options}")
    path = setting.directory / f"sqs-lone-{ledger}.stamps"
    process = WorkerProcess(store)
    process.start()
    try:
        samples(store, path, 20)  # until then the worker may still be starting
        taken = samples(store, path, setting.size(400, 40))
    finally:
        process.stop()
        store.close()
    return at_most(
        f"SQS {ledger if ledger == 'alone' else f'before {ledger}'}: "
        "enqueue to first line, 20 jobs/s, p99",
        percentile(taken, 99),
        unit="ms",
        bar=BEGUN,
        beside=f"{len(taken)} samples, p50 {percentile(taken, 50):.1f} ms",
    )


def _bare(url: str, number: int) -> float:
    """Return messages/s of plain boto3: all sent by one process, while another receives."""
    clients = [servers.client(url) for _ in range(THREADS)]
    queue = clients[0].create_queue(QueueName=f"bare-{time.time_ns()}")["QueueUrl"]
    total = number // THREADS // BATCH * BATCH * THREADS
    spawning = multiprocessing.get_context("spawn")
    is_ready, may_send = spawning.Event(), spawning.Event()
    sender = spawning.Process(target=_send_all, args=(url, queue, total, is_ready, may_send))
    sender.start()
    is_ready.wait(LONGEST_SECONDS)
    done = [0] * THREADS
    receivers = [
        threading.Thread(target=_receive, args=(client, queue, done, n, total))
        for n, client in enumerate(clients)
    ]
    began = time.perf_counter()
    may_send.set()
    for thread in receivers:
        thread.start()
    for thread in receivers:
        thread.join()
    took = time.perf_counter() - began
    sender.join()
    return total / took


def _send_all(url: str, queue: str, total: int, is_ready: Event, may_send: Event) -> None:
    clients = [servers.client(url) for _ in range(THREADS)]
    is_ready.set()
    may_send.wait(LONGEST_SECONDS)
    senders = [
        threading.Thread(target=_send, args=(client, queue, total // THREADS)) for client in clients
    ]
    for thread in senders:
        thread.start()
    for thread in senders:
        thread.join()


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
