"""A bad network between the workers and their server: they consume again soon.

Half-open connections are the worst of it: nothing ever comes, and nothing says so.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import fleet, until_jobs_start, wait_until
from tests.faults.history import judge, read_diary
from tests.faults.producer import Producer
from tests.faults.stores import POSTGRES, REDIS_ALWAYS, Kind
from tests.servers.faulty import Network, network

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

WORKERS = 2
RATE = 60.0
LEASE = 15.0  # longer than what is found out by time-outs: no lapse helps here
AGAIN = 5.0  # seconds within which workers consume again
HELD = 3.0

Fault = Callable[[Network], object]


def _lose_an_answer(net: Network) -> None:
    net.lost_answers += 1


def _tear_an_answer(net: Network) -> None:
    net.torn_answers += 1


def _hold(net: Network) -> None:
    net.hold()
    time.sleep(HELD)
    net.resume()


FAULTS: dict[str, Fault] = {
    "reset": Network.reset,
    "cut": Network.cut,
    "lost answer": _lose_an_answer,
    "torn answer": _tear_an_answer,
    "half-open": Network.strand,
    "held": _hold,
}


@pytest.mark.parametrize("kind", [POSTGRES, REDIS_ALWAYS], ids=lambda kind: kind.name)
def test_workers_consume_again_whatever_the_network_did(
    kind: Kind,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = 10 if proving else 1

    with (
        kind.opened(tmp_path) as store,
        network(store.url) as net,
        fleet(tmp_path, WORKERS, store=net.before(store.url), lease=LEASE) as workers,
    ):
        producer = Producer(diarist(store.url), workers.diary, chance, RATE)
        producer.enqueue()
        wait_until(producer.is_drained, 20, "a first job is done")
        producer.start()
        waits = dict.fromkeys(FAULTS, 0.0)
        for _ in range(rounds):
            for name, fault in FAULTS.items():
                fault(net)
                waits[name] = max(waits[name], until_jobs_start(workers))
        producer.stop()
        wait_until(producer.is_drained, 60, "all jobs are done on a network that is well")
        verdict = judge(producer.calls, producer.finished(), read_diary(workers.diary), [])
        producer.work.app.close()

    told = " ".join(f"{name.replace(' ', '-')}={wait:.2f}s" for name, wait in waits.items())
    record_property("figure", f"{kind.name}: faults={rounds * len(FAULTS)} {told} {verdict}")
    assert verdict.is_valid, (verdict.lost + verdict.overlaps + verdict.unexplained)[:5]
    assert max(waits.values()) <= (AGAIN if proving else 3 * AGAIN), waits
