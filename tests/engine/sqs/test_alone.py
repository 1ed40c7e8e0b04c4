"""SQS without a ledger, as one process meets it: through the proxy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from tests.engine.bare.counter import QUEUE, Counter, job
from tests.servers import sqs
from tests.servers.unruly import Unruly

from backlane.engine.bare import Bare
from backlane.engine.bare.sending import publish_seconds
from backlane.engine.connect import connect
from backlane.engine.protocol import Turn
from backlane.engine.transports.sqs import open_url
from backlane.engine.transports.sqs.naming import sqs_name
from backlane.model.clock import SystemClock
from backlane.model.job import Lease
from backlane.model.outcome import Settlement, Succeeded


@pytest.fixture
def url(endpoint: str, bad: Unruly) -> str:
    return f"{bad.before(endpoint)}?wait=1&visibility=1&prefix={sqs.prefix()}"


@pytest.fixture
def alone(url: str) -> Iterator[Counter]:
    with contextlib.closing(opened(url)) as engine:
        yield Counter(engine)


def opened(url: str) -> Bare:
    engine = connect(url, SystemClock())
    assert isinstance(engine, Bare)
    return engine


def ended(counter: Counter, leases: list[Lease]) -> Turn:
    settlements = [Settlement(lease.job, lease.token, Succeeded()) for lease in leases]
    return counter.engine.run(counter.engine.turn(settlements, []))


def test_a_turn_waits_for_no_acknowledgement(alone: Counter, bad: Unruly):
    """A worker's slots were empty until SQS had answered: half of its speed."""
    alone.append(*[job() for _ in range(5)])
    leases = alone.take(5)
    bad.delay, bad.only = 1.0, "DeleteMessageBatch"
    began = time.monotonic()

    turn = ended(alone, leases)

    assert time.monotonic() - began < 0.5
    assert turn.settled.lost == []
    assert ended(alone, leases).settled.lost == [lease.job for lease in leases]


def test_what_a_turn_has_ended_is_gone_once_the_engine_is_closed(
    url: str, bad: Unruly, endpoint: str
):
    with contextlib.closing(opened(url)) as engine:
        counter = Counter(engine)
        counter.append(*[job() for _ in range(15)])
        leases = counter.take(15)
        bad.delay, bad.only = 0.3, "DeleteMessageBatch"
        ended(counter, leases)

    assert number_there(endpoint, url) == 0


def test_an_acknowledgement_that_fails_runs_nothing_again_here(
    alone: Counter, bad: Unruly, endpoint: str, url: str
):
    alone.append(job())
    (lease,) = alone.take(1, lease_ms=1_000)
    bad.answers, bad.only = (400, "AccessDenied", "not today"), "DeleteMessageBatch"

    ended(alone, [lease])
    bad.calls.clear()
    while not bad.calls["DeleteMessageBatch"]:
        time.sleep(0.01)
    bad.answers = None

    while number_there(endpoint, url):  # it comes again, is known, and is acknowledged
        assert not alone.claim().leases
        time.sleep(0.05)


def test_many_jobs_have_more_time_than_one_by_as_many_calls_as_they_take():
    """Of a thousand an endpoint of a second a call had taken a part when the time was over."""
    terms = open_url("sqs://eu-central-1").terms

    assert [publish_seconds(terms, number) for number in (1, 500, 1_000)] == [10, 10, 20]


def number_there(endpoint: str, url: str) -> int:
    """Return how many messages there are of a queue, held or not."""
    client = sqs.client(endpoint)
    name = sqs_name(f"{url.rpartition('=')[2]}.1.{QUEUE}")
    answer = client.get_queue_attributes(
        QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"], AttributeNames=["All"]
    )["Attributes"]
    kinds = ("", "NotVisible", "Delayed")
    return sum(int(answer[f"ApproximateNumberOfMessages{kind}"]) for kind in kinds)
