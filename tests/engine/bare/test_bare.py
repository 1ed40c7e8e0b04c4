"""Jobs at a broker alone, on each of them: what is kept of the contract."""

from __future__ import annotations

import time

import msgspec
import pytest
from tests.engine.bare.counter import BROKEN, QUEUE, Counter, job

from backlane.engine.protocol import Declare
from backlane.errors import TooLarge
from backlane.model.codec import decode_headers, encode_headers
from backlane.model.job import Lane, Policy, Refusal
from backlane.model.outcome import (
    Cancelled,
    Crashed,
    Failed,
    Reason,
    Released,
    RetryAfter,
    Snoozed,
    Succeeded,
)
from backlane.model.queue import Bounds, Kind

replace = msgspec.structs.replace


def test_a_job_comes_whole_and_is_gone_once_it_succeeded(counter: Counter) -> None:
    policy = Policy(attempts=3, base_ms=5, cap_ms=50, soft_ms=1_000, hard_ms=2_000)
    sent = job(
        headers=encode_headers({"tenant": "a", "traceparent": "00-ab"}),
        priority=5,
        policy=policy,
        group="acme",
        expires_ms=60_000,
    )

    [receipt] = counter.append(sent)
    [lease] = counter.take()
    settled = counter.settle(lease, outcome=Succeeded(b"1"))

    assert receipt.is_new
    assert (lease.job, lease.task, lease.body) == (sent.id, sent.task, sent.body)
    assert (lease.queue, lease.group, lease.policy) == (QUEUE, "acme", policy)
    assert decode_headers(lease.headers) == {"tenant": "a", "traceparent": "00-ab"}
    assert lease.attempt == 0
    assert lease.deadline_ms == receipt.enqueued_ms + 60_000
    assert settled.lost == settled.buried == []
    assert counter.is_empty()


@pytest.mark.parametrize("body", [b"{}", b'{"a":1,"a":2}', b"\x00\xff", b"", b"[1]"])
def test_any_body_arrives_as_it_was(counter: Counter, body: bytes) -> None:
    counter.append(job(body))

    [lease] = counter.take()

    assert lease.body == body
    counter.settle(lease, outcome=Succeeded())


def test_a_retry_is_a_copy_that_counts_the_attempt(counter: Counter) -> None:
    counter.append(job())
    [first] = counter.take()

    counter.settle(first, outcome=RetryAfter(0, BROKEN))
    [second] = counter.take()

    assert (second.job, second.attempt, second.body) == (first.job, 1, first.body)
    assert second.enqueued_ms == first.enqueued_ms
    assert counter.settle(first, outcome=Succeeded()).lost == [first.job]
    counter.settle(second, outcome=Succeeded())


@pytest.mark.parametrize(
    "outcome",
    [
        RetryAfter(0, BROKEN),
        Failed(Reason.TIMEOUT, BROKEN),
        Crashed(alone=True, error=BROKEN),
    ],
)
def test_the_last_attempt_makes_a_dead_letter_with_its_reason(counter: Counter, outcome) -> None:
    sent = job(policy=Policy(attempts=1))
    counter.append(sent)
    [lease] = counter.take()

    settled = counter.settle(lease, outcome=outcome)
    [dead] = counter.engine.run(counter.engine.list_dead(QUEUE, 10))

    reasons = {RetryAfter: "attempts", Failed: "timeout", Crashed: "crashed"}
    assert settled.buried == [sent.id]
    assert (dead.task, dead.queue, dead.reason) == ("send", QUEUE, reasons[type(outcome)])
    assert (dead.error, dead.attempts) == ("builtins.OSError: the line is down", 1)
    assert dead.body == sent.body
    assert counter.is_empty()


def test_a_dead_letter_is_sent_back_with_its_attempts_forgotten(counter: Counter) -> None:
    sent = [job(), job()]
    counter.append(*sent)
    counter.settle(*counter.take(2), outcome=Failed(Reason.ERROR, BROKEN))

    went = counter.engine.run(counter.engine.redrive_dead(QUEUE, 10))
    back = counter.take(2)

    assert went == 2
    assert {lease.job for lease in back} == {it.id for it in sent}
    assert [lease.attempt for lease in back] == [0, 0]
    counter.settle(*back, outcome=Succeeded())
    assert counter.engine.run(counter.engine.redrive_dead(QUEUE, 10)) == 0


def test_what_is_released_comes_again_uncounted(counter: Counter) -> None:
    counter.append(job())
    [lease] = counter.take()

    counter.settle(lease, outcome=Released())
    [again] = counter.take()

    assert (again.job, again.attempt) == (lease.job, 0)
    assert again.token != lease.token
    counter.settle(again, outcome=Cancelled())
    assert counter.is_empty()


def test_a_crash_is_tried_again_alone(counter: Counter) -> None:
    counter.append(job())
    [lease] = counter.take()

    counter.settle(lease, outcome=Crashed(alone=False, error=BROKEN))
    [alone] = counter.alone()

    assert (alone.job, alone.attempt, alone.crashes) == (lease.job, 1, 0)
    assert alone.lane is Lane.EXCLUSIVE
    counter.settle(alone, outcome=Succeeded())


def test_many_go_out_and_come_in(counter: Counter) -> None:
    sent = [job(b'{"n":%d}' % n) for n in range(250)]

    counter.append(*sent)
    leases = counter.take(250)
    counter.settle(*leases, outcome=Succeeded())

    assert {lease.body for lease in leases} == {it.body for it in sent}
    assert counter.is_empty()


def test_a_message_travels_as_it_is(counter: Counter) -> None:
    sent = job(b"\x00any\xff", queue="orders", task=None, headers=encode_headers({"kind": "x"}))

    counter.append(sent)
    [message] = counter.messages(queues=("orders",))

    assert (message.job, message.body, message.task) == (sent.id, sent.body, None)
    assert decode_headers(message.headers) == {"kind": "x"}
    counter.settle(message, outcome=Released())
    [again] = counter.messages(queues=("orders",))
    assert again.job == sent.id
    counter.settle(again, outcome=Succeeded())


def test_what_expired_is_not_begun(counter: Counter) -> None:
    counter.append(job(expires_ms=0), job(b'{"n":2}'))

    [lease] = counter.take()

    assert lease.body == b'{"n":2}'
    counter.settle(lease, outcome=Succeeded())


def test_a_full_queue_refuses(counter: Counter) -> None:
    bounds = {QUEUE: Bounds(max_jobs=3)}
    counter.append(job(), job(), job(), bounds=bounds)

    refused = counter.append(job(), bounds=bounds)
    many = counter.append(*(job() for _ in range(4)), bounds=bounds)

    assert isinstance(refused, Refusal)
    assert (refused.limit, refused.depth, refused.bound) == ("jobs", 3, 3)
    assert refused.can_fit
    assert refused.retry_ms == 1_000
    assert isinstance(many, Refusal)
    assert not many.can_fit
    counter.settle(*counter.take(3), outcome=Succeeded())
    time.sleep(0.03)  # who is refused is counted anew, 20 ms apart
    assert not isinstance(counter.append(job(), bounds=bounds), Refusal)


def test_a_job_that_no_message_holds_is_refused(counter: Counter) -> None:
    most = counter.engine._transport.terms.most_bytes
    large = b'{"text":"' + b"x" * most + b'"}'

    with pytest.raises(TooLarge, match=f"takes {most:,}"):
        counter.append(job(large))


def test_a_lease_lapses_and_the_job_is_shown_again(counter: Counter) -> None:
    counter.append(job())
    [lease] = counter.take(lease_ms=300)

    [again] = counter.take(seconds=15)

    assert again.job == lease.job
    assert counter.settle(lease, outcome=Succeeded()).lost == [lease.job]
    assert counter.settle(again, outcome=Succeeded()).lost == []


def test_a_lease_is_extended_while_it_is_ours(counter: Counter) -> None:
    counter.append(job())
    [lease] = counter.take(lease_ms=700)

    for _ in range(4):
        time.sleep(0.25)
        extended = counter.engine.run(
            counter.engine.extend([(lease.job, lease.token), (b"\0" * 16, 1)], 700)
        )

    assert extended.lost == [b"\0" * 16]
    assert counter.is_empty(0.1)
    assert counter.settle(lease, outcome=Succeeded()).lost == []


def test_who_closes_gives_everything_back(counter: Counter) -> None:
    counter.append(job(), job())
    counter.take(2)

    counter.engine.close()
    if counter.engine.url.startswith("memory"):
        back = counter.take(2)
    else:
        back = counter.take(2, seconds=35)

    assert len({lease.job for lease in back}) == 2
    counter.settle(*back, outcome=Succeeded())


def test_a_queue_says_what_waits(counter: Counter) -> None:
    declare = Declare(Kind.TASKS, Bounds(max_jobs=10))
    counter.engine.run(counter.engine.tune(QUEUE, declare))
    counter.append(job(), job(), bounds={QUEUE: Bounds(max_jobs=10)})

    [record] = counter.engine.run(counter.engine.list_queues())

    assert (record.name, record.depth.ready, record.bounds.max_jobs) == (QUEUE, 2, 10)


@pytest.mark.parametrize("outcome", [Snoozed(1_200), RetryAfter(1_200, BROKEN)])
def test_what_is_put_off_comes_when_it_is_due(counter: Counter, outcome) -> None:
    if counter.engine.url.startswith("memory"):
        pytest.skip("the memory broker puts nothing off; see test_faults")
    counter.append(job())
    [lease] = counter.take()
    began = time.monotonic()

    counter.settle(lease, outcome=outcome)
    [again] = counter.take()

    assert 1.1 < time.monotonic() - began < 5
    assert again.attempt == (0 if isinstance(outcome, Snoozed) else 1)
    counter.settle(again, outcome=Succeeded())


def test_a_delay_is_kept(counter: Counter) -> None:
    if counter.engine.url.startswith("memory"):
        pytest.skip("the memory broker puts nothing off")
    began = time.monotonic()
    counter.append(job(delay_ms=1_500))

    [lease] = counter.take()

    assert 1.4 < time.monotonic() - began < 5
    counter.settle(lease, outcome=Succeeded())
