"""A broker's queue that is there already, and made otherwise: its bounds would not hold."""

from __future__ import annotations

import contextlib
import logging

import pytest
from tests.engine.bare.counter import Counter, job

from backlane.engine.bare import Bare
from backlane.engine.connect import connect
from backlane.engine.protocol import Declare
from backlane.errors import SchemaMismatch
from backlane.model.clock import SystemClock
from backlane.model.outcome import Succeeded
from backlane.model.queue import Bounds, Kind

TOLD = "queue mail is not served"


def test_a_queue_made_otherwise_is_refused_and_others_go_on(
    rabbit_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As when one prefix was used with a ledger before."""
    with contextlib.closing(connect(rabbit_url, SystemClock())) as engine:
        assert isinstance(engine, Bare)
        Counter(engine).append(job(), bounds={"mail": Bounds(max_jobs=7)})
    with contextlib.closing(connect(rabbit_url, SystemClock())) as engine:
        assert isinstance(engine, Bare)
        engine.know({"mail": Bounds(), "post": Bounds()})
        counter = Counter(engine)
        with caplog.at_level(logging.WARNING, "backlane.broker"):
            engine.run(engine.tune("mail", Declare(Kind.TASKS, Bounds())))

            with pytest.raises(SchemaMismatch, match=r"x-max-length: 7, where .* prefix="):
                counter.append(job())
            counter.append(job(queue="post"))
            [lease] = counter.take(queues=("mail", "post"))
            counter.settle(lease, outcome=Succeeded())
            counter.claim(queues=("mail", "post"))

        assert lease.queue == "post"
        assert sum(TOLD in it.message for it in caplog.records) == 1
        [finding] = [it for it in engine.diagnose() if it.state == "error"]
        assert finding.subject.endswith("mail")
        assert "delete_queue" in f"{finding.text}{finding.remedy}"
