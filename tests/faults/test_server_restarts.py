"""The server ends and comes back under load, orderly and by SIGKILL: nothing is lost by it.

Of Redis that syncs once a second this is promised as far as its level says: what was
acknowledged within two seconds before a crash may be gone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.faults.diarist import diarist
from tests.faults.fleet import Fleet, fleet, until_jobs_start, wait_until
from tests.faults.history import judge, read_diary
from tests.faults.producer import Producer
from tests.faults.stores import POSTGRES, REDIS_ALWAYS, REDIS_EVERYSEC, Kind, Server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

WORKERS = 2
RATE = 60.0
BETWEEN = 1.2  # seconds that the server serves
DOWN = 0.3
AGAIN = 5.0  # seconds within which workers consume again
LONGEST_CALL = 15.0  # of an enqueue, whatever the server does


@dataclass(slots=True)
class Outages:
    """When the server was killed, in nanoseconds, and how long work stood still after it."""

    crashes: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # seconds until jobs started again

    def cause(self, server: Server, *, crash: bool) -> None:
        began = time.monotonic_ns()
        if crash:
            self.crashes.append(began)
            server.kill()
        else:
            server.stop()
        time.sleep(DOWN)
        server.start()


@pytest.mark.parametrize(
    "kind", [POSTGRES, REDIS_ALWAYS, REDIS_EVERYSEC], ids=lambda kind: kind.name
)
def test_no_restart_of_the_server_loses_or_repeats_a_job(
    kind: Kind,
    tmp_path: Path,
    proving: bool,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    restarts = 40 if proving else 2  # every second one is a crash

    with (
        kind.opened(tmp_path) as store,
        fleet(tmp_path, WORKERS, store=store.url, lease=kind.lease) as workers,
    ):
        assert store.server is not None
        producer, outages = _restarted(workers, store.server, chance, restarts)
        forgotten = [(at - int(kind.forgets * 1e9), at) for at in outages.crashes if kind.forgets]
        diary = read_diary(workers.diary)
        verdict = judge(producer.calls, producer.finished(), diary, [], forgotten)
        producer.work.app.close()

    waits = outages.waits
    record_property(
        "figure",
        f"{kind.name}: restarts={restarts} acknowledged={verdict.acknowledged} "
        f"unknown={len(producer.calls.unknown)} refused={len(producer.calls.refused)} "
        f"lost={len(verdict.lost)} unexplained={len(verdict.unexplained)} "
        f"consumed again max={max(waits):.2f} s longest call={producer.longest_call:.2f} s",
    )
    assert not verdict.lost, verdict.lost[:5]
    assert not verdict.overlaps, verdict.overlaps[:5]
    assert not verdict.unexplained, verdict.unexplained[:5]
    assert max(waits) <= (AGAIN if proving else 3 * AGAIN), waits
    assert producer.longest_call <= LONGEST_CALL


def _restarted(
    workers: Fleet, server: Server, chance: random.Random, restarts: int
) -> tuple[Producer, Outages]:
    """Restart the server again and again under load, then drain."""
    producer = Producer(diarist(workers.url), workers.diary, chance, RATE)
    outages = Outages()
    producer.enqueue()
    wait_until(producer.is_drained, 20, "a first job is done")
    producer.start()
    for number in range(restarts):
        time.sleep(BETWEEN)
        outages.cause(server, crash=number % 2 == 1)
        outages.waits.append(until_jobs_start(workers))
    producer.stop()
    wait_until(producer.is_drained, 60, "all jobs are done after the last restart")
    return producer, outages
