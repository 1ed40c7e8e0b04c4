"""Sessions ended by an administrator again and again, and a server without a free one."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.faults.diarist import QUEUE, diarist
from tests.faults.fleet import fleet, wait_until
from tests.faults.history import judge, read_diary
from tests.faults.producer import Producer
from tests.faults.stores import LEASE, POSTGRES, durable_postgres

from backlane import Backlane, EngineUnavailable, Queue
from backlane.model.queue import QueueRecord

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

WORKERS = 2
RATE = 60.0
EVERY = 0.25  # seconds

END_ALL = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
"""

CONNECTIONS = 16  # three of them are kept for administrators
PRODUCERS = 50
EACH = 10
LONGEST_CALL = 15.0
CROWDED = replace(POSTGRES, open=lambda _: durable_postgres(max_connections=str(CONNECTIONS)))


def test_sessions_that_are_ended_again_and_again_lose_and_repeat_nothing(
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = 240 if proving else 20

    with (
        POSTGRES.opened(tmp_path) as store,
        fleet(tmp_path, WORKERS, store=store.url, lease=LEASE) as workers,
        psycopg.connect(store.url, autocommit=True) as admin,
    ):
        producer = Producer(diarist(store.url), workers.diary, chance, RATE)
        producer.enqueue()
        wait_until(producer.is_drained, 20, "a first job is done")
        producer.start()
        ended = 0
        for _ in range(rounds):
            time.sleep(EVERY)
            (number,) = admin.execute(END_ALL).fetchone() or (0,)
            ended += number
        producer.stop()
        wait_until(producer.is_drained, 60, "all jobs are done")
        verdict = judge(producer.calls, producer.finished(), read_diary(workers.diary), [])
        producer.work.app.close()

    unknown = len(producer.calls.unknown)
    record_property("figure", f"sessions ended={ended} unknown={unknown} {verdict}")
    assert ended >= rounds, "there were no sessions to end"
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]


def test_producers_without_a_free_session_are_told_so_soon_and_workers_go_on(
    tmp_path: Path, chance: random.Random, record_property: Callable[[str, object], None]
) -> None:
    with (
        CROWDED.opened(tmp_path) as store,
        fleet(tmp_path, 1, store=store.url, lease=LEASE) as workers,
    ):
        producer = Producer(diarist(store.url), workers.diary, chance, RATE)
        producer.enqueue()
        wait_until(producer.is_drained, 20, "a first job is done")
        told, longest = _crowd(store.url)
        depth = {it.name: it.depth.jobs for it in _queues(producer.work.app)}
        # it serves as before once there are sessions again
        for _ in range(20):
            producer.enqueue()
        wait_until(producer.is_drained, 20, "jobs are done again")
        producer.work.app.close()

    record_property("figure", f"of {PRODUCERS * EACH}: {dict(told)} longest={longest:.2f} s")
    assert depth["more"] == told["acknowledged"]
    assert depth[QUEUE] == 0
    assert told["EngineBusy"] > 0, f"the sessions sufficed: {told}"
    assert set(told) <= {"acknowledged", "EngineBusy"}, told
    assert longest <= LONGEST_CALL


def _crowd(url: str) -> tuple[Counter[str], float]:
    """Enqueue from many applications at once; return how calls ended, and the longest."""
    told, took = Counter[str](), []
    apps = [Backlane(url, queues=[Queue("more")]) for _ in range(PRODUCERS)]

    def produce(app: Backlane) -> None:
        task = app.task(name="nothing", queue="more")(_nothing)
        for _ in range(EACH):
            began = time.monotonic()
            try:
                task.enqueue()
                told["acknowledged"] += 1
            except EngineUnavailable as error:
                told[type(error).__name__] += 1
            took.append(time.monotonic() - began)

    threads = [threading.Thread(target=produce, args=(app,)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for app in apps:
        app.close()
    return told, max(took)


def _nothing() -> None: ...


def _queues(app: Backlane) -> list[QueueRecord]:
    limit = time.monotonic() + 20
    while True:
        try:
            return app.engine.run(app.engine.list_queues())
        except EngineUnavailable:
            assert time.monotonic() < limit
            time.sleep(0.1)
