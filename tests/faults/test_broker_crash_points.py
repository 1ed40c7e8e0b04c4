"""A process is killed at each point of a job's way through a real broker.

The same rows as tests/engine/brokered/test_crash_points.py, with a process that ends by
SIGKILL, and a broker and a ledger that are servers. What takes a minute takes a second here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import cast

import pytest
from tests.engine.brokered.stops import Stop
from tests.faults.dying import LEASE_MS
from tests.faults.stores import (
    RABBITMQ_POSTGRES,
    RABBITMQ_SQLITE,
    SQS_POSTGRES,
    SQS_SQLITE,
    Kind,
)

from backlane.engine.brokered import Brokered
from backlane.engine.brokered.patience import Patience
from backlane.engine.connect import connect
from backlane.engine.offering import Ledger
from backlane.engine.protocol import Wanted
from backlane.engine.selection import Selection
from backlane.engine.transports import rabbit, sqs
from backlane.model.clock import SystemClock
from backlane.model.job import Lease, State
from backlane.model.outcome import Settlement, Succeeded

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
NUMBER = 8
SOON = 60.0
HASTE = Patience(offer=1.0, held=0.5, settled=1.0, inexact=1.5, unordered=3.0, poll=0.1)

KINDS = [RABBITMQ_SQLITE, SQS_SQLITE]
if os.environ.get("BACKLANE_PROVE") == "1":
    KINDS += [RABBITMQ_POSTGRES, SQS_POSTGRES]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kill_at_any_point_loses_no_job_and_settles_none_twice(
    kind: Kind, tmp_path: Path
) -> None:
    """One after the other on one broker, each with queues and jobs of its own."""
    with kind.opened(tmp_path) as store:
        transport, _, ledger = store.url.partition("ledger=")
        transport = transport.rstrip("?&")
        for stop in ["BEFORE_RELAY", *Stop.__members__]:
            prefix = f"d{uuid.uuid4().hex[:12]}"
            _kill_at(stop, transport, ledger, prefix)
            _survive(transport, ledger, prefix, stop)


def _kill_at(stop: str, transport: str, ledger: str, prefix: str) -> None:
    command = [sys.executable, "-m", "tests.faults.dying", transport, ledger, prefix, stop]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [*command, str(NUMBER)], stdout=subprocess.PIPE, cwd=ROOT, env=surroundings
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"there\n", stop
    child.kill()
    child.wait()
    child.stdout.close()


def _survive(transport: str, ledger: str, prefix: str, stop: str) -> None:
    """Do what is left, and look at all."""
    opener = rabbit.open_url if transport.startswith("amqp") else sqs.open_url
    kept = cast("Ledger", connect(ledger, SystemClock()))
    engine = Brokered(opener(transport), kept, prefix=prefix, patience=HASTE)
    succeeded = Selection(states=(State.SUCCEEDED,))
    known = {record.id for record in kept.run(kept.find(succeeded, 1_000)).records}
    begun: dict[bytes, float] = {}
    settled: list[bytes] = []
    end = time.monotonic() + SOON
    while any(queue.depth.jobs for queue in kept.run(kept.list_queues())):
        assert time.monotonic() < end, f"{stop}: {len(settled)} of {NUMBER} were settled"
        wanted = Wanted("survivor", 50, LEASE_MS, ("mail",))
        leases: list[Lease] = engine.run(engine.claim(wanted)).leases
        for lease in leases:
            assert begun.get(lease.job, 0.0) <= time.monotonic(), f"{stop}: begun twice at once"
            begun[lease.job] = time.monotonic() + LEASE_MS / 1000
        ended = [Settlement(lease.job, lease.token, Succeeded()) for lease in leases]
        lost = engine.run(engine.settle(ended)).lost
        settled += [lease.job for lease in leases if lease.job not in lost]
        time.sleep(0.01)
    records = kept.run(kept.find(succeeded, 1_000)).records
    ours = [record for record in records if record.id not in known]
    engine.close()

    assert len(settled) == len(set(settled)) == len(ours) == NUMBER, stop
    assert max(record.attempt for record in ours) <= 2, stop
