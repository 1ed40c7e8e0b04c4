"""What a broker can do to a bare engine: answer late, never, twice, or go away."""

from __future__ import annotations

import contextlib
import time
import uuid

import pytest
from tests.engine.bare.counter import BROKEN, QUEUE, Counter, job

from backlane.engine.bare import Bare
from backlane.engine.transport import Parcel
from backlane.engine.transports.memory import Incident, MemoryBroker
from backlane.errors import EngineUnavailable, OutcomeUnknown
from backlane.model.job import Policy, Refusal
from backlane.model.outcome import Failed, Reason, Released, RetryAfter, Succeeded

PHYSICAL = "backlane.1.mail"


def fates(broker: MemoryBroker, *incidents: Incident) -> None:
    """Let these become of the next messages; all others arrive."""
    left = list(incidents)
    broker.fate = lambda _queue, _parcel: left.pop(0) if left else Incident.ARRIVED


def until(holds, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


# -- appending --


def test_a_refused_message_is_a_refusal_that_says_whose(broker, memory: Counter) -> None:
    fates(broker, Incident.REFUSED)

    refused = memory.append(job())

    assert isinstance(refused, Refusal)
    assert (refused.limit, refused.retry_ms) == ("broker", 1_000)


def test_a_blocked_broker_is_a_refusal_at_once(broker, memory: Counter) -> None:
    broker.is_blocked = True
    began = time.monotonic()

    refused = memory.append(job())

    assert isinstance(refused, Refusal)
    assert refused.limit == "broker"
    assert time.monotonic() - began < 1.0


def test_a_message_without_an_answer_is_a_doubt_that_names_it(broker, memory: Counter) -> None:
    fates(broker, Incident.UNANSWERED)
    sent = job()

    with pytest.raises(OutcomeUnknown) as doubt:
        memory.append(sent)

    assert doubt.value.jobs == (uuid.UUID(bytes=sent.id),)


def test_a_part_that_is_stored_is_a_doubt_that_names_the_rest(broker, memory: Counter) -> None:
    fates(broker, Incident.ARRIVED, Incident.REFUSED, Incident.ARRIVED)
    sent = [job(), job(), job()]

    with pytest.raises(OutcomeUnknown, match="2 of 3") as doubt:
        memory.append(*sent)

    assert doubt.value.jobs == (uuid.UUID(bytes=sent[1].id),)


def test_a_broker_that_is_away_stores_nothing(broker, memory: Counter) -> None:
    broker.go_away()

    with pytest.raises(EngineUnavailable):
        memory.append(job())
    broker.come_back()

    assert not isinstance(memory.append(job()), Refusal)


# -- outcomes --


@pytest.mark.parametrize("outcome", [RetryAfter(0, BROKEN), Failed(Reason.ERROR, BROKEN)])
def test_an_outcome_that_cannot_be_published_is_published_later(broker, memory, outcome) -> None:
    memory.append(job())
    [lease] = memory.take()
    broker.is_blocked = True

    settled = memory.settle(lease, outcome=outcome)
    acked = broker.acked.total()
    broker.is_blocked = False

    assert settled.lost == []
    assert acked == 0  # it is not let go before its copy is there
    until(lambda: broker.acked.total() == 1)
    if isinstance(outcome, RetryAfter):
        [again] = memory.take()
        assert again.attempt == 1
    else:
        [dead] = memory.engine.run(memory.engine.list_dead(QUEUE, 1))
        assert dead.reason == "error"


def test_a_copy_in_doubt_may_be_there_twice_and_is_never_lost(broker, memory: Counter) -> None:
    memory.append(job())
    [lease] = memory.take()
    fates(broker, Incident.LOST)

    memory.settle(lease, outcome=RetryAfter(0, BROKEN))
    [again] = memory.take()

    assert (again.job, again.attempt) == (lease.job, 1)


def test_an_ack_that_is_lost_runs_nothing_again_here(broker, memory: Counter) -> None:
    """A connection that went after a job had succeeded showed its message again."""
    memory.append(job())
    [lease] = memory.take()
    broker.go_away()
    broker.come_back()

    assert memory.settle(lease, outcome=Succeeded()).lost == []
    assert memory.is_empty()
    until(lambda: broker.acked.total() == 1)


def test_a_message_shown_again_while_its_job_runs_waits_for_the_outcome(broker, memory) -> None:
    memory.append(job())
    [lease] = memory.take()
    broker.go_away()
    broker.come_back()

    nothing = memory.is_empty()
    extended = memory.engine.run(memory.engine.extend([(lease.job, lease.token)], 30_000))

    assert nothing
    assert extended.lost == []  # the message is ours again
    assert broker.acked.total() == 0
    memory.settle(lease, outcome=Succeeded())
    assert broker.acked.total() == 1


def test_what_another_process_has_by_now_is_lost(broker, memory: Counter) -> None:
    memory.append(job())
    [lease] = memory.take()
    broker.go_away()
    broker.come_back()

    with contextlib.closing(Bare(broker.connect())) as engine:
        [theirs] = Counter(engine).take()
        extended = memory.engine.run(memory.engine.extend([(lease.job, lease.token)], 30_000))
        memory.settle(lease, outcome=Succeeded())

        assert theirs.job == lease.job
        assert extended.lost == [lease.job]
        assert Counter(engine).settle(theirs, outcome=Succeeded()).lost == []


def test_a_copy_that_is_shown_before_its_original_is_settled_is_kept(broker, memory) -> None:
    """The copy for a retry was dropped with the message that it was to replace."""
    memory.append(job(), job())
    first, other = memory.take(2)
    memory.settle(first, outcome=RetryAfter(0, BROKEN))
    [again] = memory.take()

    memory.settle(again, outcome=RetryAfter(0, BROKEN))
    [third] = memory.take()

    assert [first.attempt, again.attempt, third.attempt] == [0, 1, 2]
    memory.settle(third, other, outcome=Succeeded())
    assert memory.is_empty()


def test_a_doubled_message_runs_once_at_a_time(broker, memory: Counter) -> None:
    fates(broker, Incident.DOUBLED)
    memory.append(job())

    [lease] = memory.take(2, seconds=0.5)
    memory.settle(lease, outcome=Succeeded())

    assert memory.is_empty()


def test_what_was_shown_a_hundred_times_is_a_dead_letter(broker, memory: Counter) -> None:
    memory.append(job(policy=Policy(attempts=1_000)))
    for _ in range(100):
        [lease] = memory.take()
        memory.settle(lease, outcome=Released())

    assert memory.is_empty()
    [dead] = memory.engine.run(memory.engine.list_dead(QUEUE, 1))
    assert dead.reason == "crashed"
    assert "100" in dead.error or "101" in dead.error


# -- what others send --


def foreign(broker: MemoryBroker, body: bytes, id: str = "m-1") -> None:  # noqa: A002
    broker.put(PHYSICAL, Parcel(id, body))


def test_the_least_that_another_language_sends_runs(broker, memory: Counter) -> None:
    foreign(broker, b'{"task":"send","args":{"user_id":7}}')

    [lease] = memory.take()

    assert (lease.task, lease.body, lease.attempt) == ("send", b'{"user_id":7}', 0)
    memory.settle(lease, outcome=RetryAfter(0, BROKEN))
    [again] = memory.take()
    assert (again.job, again.attempt) == (lease.job, 1)
    memory.settle(again, outcome=Succeeded())


@pytest.mark.parametrize("body", [b"hello", b'{"v":2,"task":"send"}', b'{"task":1}', b"\xff"])
def test_what_is_no_letter_is_kept_with_its_bytes(broker, memory: Counter, body: bytes) -> None:
    foreign(broker, body)

    nothing = memory.is_empty()
    [dead] = memory.engine.run(memory.engine.list_dead(QUEUE, 1))

    assert nothing
    assert (dead.reason, dead.body, dead.task) == ("undecodable", body, None)
    assert memory.engine.run(memory.engine.redrive_dead(QUEUE, 10)) == 1
    assert memory.is_empty()
    [again] = memory.engine.run(memory.engine.list_dead(QUEUE, 1))
    assert again.body == body


def test_any_message_of_another_program_is_a_message(broker, memory: Counter) -> None:
    broker.put("backlane.1.orders", Parcel("", b"\x00{", {"shop": "7"}))

    [message] = memory.messages(queues=("orders",))

    assert message.body == b"\x00{"
    memory.settle(message, outcome=Failed(Reason.ERROR, BROKEN))
    [dead] = memory.engine.run(memory.engine.list_dead("orders", 1))
    assert dead.body == b"\x00{"
    assert memory.engine.run(memory.engine.redrive_dead("orders", 1)) == 1
    [again] = memory.messages(queues=("orders",))
    assert again.body == b"\x00{"


# -- hands --


def test_what_was_brought_and_nobody_takes_goes_to_another(broker, memory: Counter) -> None:
    memory.claim(10)  # asks for ten, and never again
    time.sleep(0.1)
    memory.append(job(), job())

    with contextlib.closing(Bare(broker.connect())) as engine:
        other = Counter(engine)
        leases = other.take(2)
        other.settle(*leases, outcome=Succeeded())

    assert len(leases) == 2
