"""Keys that many hold, replace and free at the same moment."""

from __future__ import annotations

import threading
import time
from collections import Counter

import msgspec
import pytest
from tests.engine.postgres.test_fan_in import at_once

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Wanted
from backlane.model.ids import new_id
from backlane.model.job import Job, Key, KeyRule, Receipt
from backlane.model.outcome import Settlement, Succeeded

APPENDERS, APPENDS = 6, 20
REPLACE = KeyRule("started", None, "replace")


def job(**fields: object) -> Job:
    made = Job(id=new_id(time.time_ns() // 1_000_000), queue="mail", task="t", body=b"{}")
    return msgspec.structs.replace(made, key=Key("t", "k"), **fields)


@pytest.mark.parametrize("delay_ms", [0, 15])
def test_arguments_that_replaced_others_run_unless_they_were_replaced(
    engine: PostgresEngine, delay_ms: int
) -> None:
    """While workers start what waits, nothing is lost: each job runs once, and what a thread
    appended last runs behind it or was replaced by what another one appended later."""
    told: list[Receipt] = []
    ran: list[bytes] = []
    are_done = threading.Event()
    left = threading.Semaphore(0)

    def append(name: int) -> None:
        for number in range(APPENDS):
            one = job(rule=REPLACE, delay_ms=delay_ms, body=b"%d/%d" % (name, number))
            receipts = engine.run(engine.append([one], Admission()))
            assert isinstance(receipts, list)
            told.extend(receipts)
        left.release()

    def work(owner: str) -> None:
        while True:
            leases = engine.run(engine.claim(Wanted(owner, 3, 60_000, ("mail",)))).leases
            ran.extend(lease.body for lease in leases)
            ended = [Settlement(it.job, it.token, Succeeded()) for it in leases]
            engine.run(engine.settle(ended))
            if (
                not leases
                and are_done.is_set()
                and not engine.run(engine.list_queues())[0].depth.jobs
            ):
                return

    def finish() -> None:
        for _ in range(APPENDERS):
            left.acquire()
        are_done.set()

    at_once(
        [finish, *(lambda i=i: append(i) for i in range(APPENDERS))]
        + [lambda owner=owner: work(owner) for owner in ("ann", "bob")]
    )

    new = [receipt.job for receipt in told if receipt.is_new]
    assert len(ran) == len(new) == len(set(ran))
    assert all(receipt.is_new or receipt.replaced for receipt in told)
    assert {receipt.first for receipt in told if receipt.first} <= set(new)


def test_of_many_that_raise_one_comes_in(engine: PostgresEngine) -> None:
    """Each time the key is free, exactly one of eight appends takes it."""
    rule = KeyRule("finished", None, "raise")
    for _ in range(5):
        answers: list[object] = []

        def append() -> None:
            answers.append(engine.run(engine.append([job(rule=rule)], Admission())))  # noqa: B023

        at_once([append] * 8)

        assert Counter(type(it).__name__ for it in answers) == {"list": 1, "Refusal": 7}
        (lease,) = engine.run(engine.claim(Wanted("ann", 9, 60_000, ("mail",)))).leases
        engine.run(engine.settle([Settlement(lease.job, lease.token, Succeeded())]))
