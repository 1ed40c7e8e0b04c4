"""Enqueueing: one call and many, with options, refused and in doubt."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.hand import only, take

from backlane import (
    Backlane,
    BadOption,
    Context,
    OutcomeUnknown,
    Queue,
    QueueFull,
    TooLarge,
    Unencodable,
)
from backlane.context import current
from backlane.engine.capability import Capability
from backlane.engine.memory import MemoryEngine
from backlane.errors import NotSupported
from backlane.model.clock import FakeClock
from backlane.model.codec import decode_headers

HOUR_MS = 3_600_000


@pytest.fixture
def app() -> Backlane:
    return Backlane("memory://")


def greet(name: str, *, loud: bool = False) -> str:
    """Say hello."""
    return name.upper() if loud else name


async def agreet(name: str) -> str:
    return name


# -- enqueueing one --


def test_an_enqueue_stores_the_call_with_the_tasks_options(app):
    task = app.task(queue="mail", priority=7, expires=3600)(greet)

    record = task.enqueue("ada", loud=True).record()

    assert record.body == b'{"name":"ada","loud":true}'
    assert (record.queue, record.task, record.priority) == ("mail", task.name, 7)
    assert record.deadline_ms - record.enqueued_ms == HOUR_MS
    assert record.policy == task.policy


def test_an_enqueue_awaited_stores_the_same(app):
    task = app.task(greet)

    record = asyncio.run(task.aenqueue("ada")).record()

    assert record.body == b'{"name":"ada","loud":false}'


@pytest.mark.parametrize("call", [(), ("ada", "eve"), (1,)], ids=["few", "many", "type"])
def test_arguments_that_do_not_fit_are_refused_and_nothing_is_stored(app, call):
    task = app.task(greet)

    with pytest.raises(TypeError, match="greet"):
        task.enqueue(*call)

    assert take(app) == []


def test_what_cannot_be_encoded_is_refused(app):
    with pytest.raises(Unencodable):
        app.task(anything).enqueue(object())


def anything(value: Any) -> None: ...


def test_what_is_too_large_is_refused_with_the_limit_of_the_application():
    app = Backlane("memory://", max_bytes=100)

    with pytest.raises(TooLarge, match="100"):
        app.task(greet).enqueue("a" * 101)


def test_a_full_queue_refuses_and_says_so():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=1)])
    task = app.task(queue="mail")(greet)
    task.enqueue("ada")

    with pytest.raises(QueueFull) as refused:
        task.enqueue("eve")

    full = refused.value
    assert (full.queue, full.limit, full.depth, full.bound) == ("mail", "jobs", 1, 1)
    assert full.can_fit


def test_an_enqueue_inside_a_running_loop_works_and_warns_once_naming_aenqueue(app):
    task = app.task(greet)

    async def twice():
        return [task.enqueue("ada").state, task.enqueue("eve").state]

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        states = asyncio.run(twice())

    assert states == ["ready", "ready"]
    assert [str(one.message).count("aenqueue") for one in warned] == [1]
    assert warned[0].filename == __file__


def test_a_job_enqueued_inside_a_job_knows_its_parent(app):
    task = app.task(greet)
    outer = task.enqueue("ada")
    context = Context(only(take(app)), note=lambda _: None, is_cancelled=lambda: False)
    token = current.set(context)

    inner = task.enqueue("eve")
    current.reset(token)

    assert inner.record().parent == outer.id.bytes


# -- using --


def test_options_of_an_enqueue_go_before_those_of_the_task(app):
    task = app.task(priority=2, expires=60)(greet)

    record = task.using(priority=8, expires=3600, queue="bulk", group="acme").enqueue("x").record()

    assert (record.priority, record.queue, record.group) == (8, "bulk", "acme")
    assert record.deadline_ms - record.enqueued_ms == HOUR_MS


def test_using_makes_another_view_and_leaves_the_first_as_it_was(app):
    task = app.task(greet)
    later = task.using(delay=60, headers={"a": "1"})
    urgent = later.using(priority=9, headers={"b": "2"})

    records = [it.enqueue("x").record() for it in (task, later, urgent)]

    assert [record.state for record in records] == ["ready", "scheduled", "scheduled"]
    assert [record.priority for record in records] == [5, 5, 9]
    assert [decode_headers(record.headers) for record in records] == [
        {},
        {"a": "1"},
        {"a": "1", "b": "2"},
    ]


def test_a_moment_is_turned_into_a_delay_at_each_enqueue(app):
    clock = FakeClock(datetime(2030, 1, 1, tzinfo=UTC))
    noon = app.task(greet).using(at=datetime(2030, 1, 1, 12, tzinfo=UTC))

    with app.replaced(MemoryEngine(clock), clock):
        early = noon.enqueue("x").record()
        clock.advance(hours=13)
        late = noon.enqueue("x").record()

    assert (early.due_ms - early.enqueued_ms, early.state) == (12 * HOUR_MS, "scheduled")
    assert late.state == "ready"


def test_a_moment_behind_the_expiry_is_refused_at_the_enqueue(app):
    view = app.task(expires=60)(greet).using(at=datetime(2100, 1, 1, tzinfo=UTC))

    with pytest.raises(BadOption, match="it would never run"):
        view.enqueue("x")


def test_a_later_delay_goes_before_an_earlier_moment(app):
    view = app.task(greet).using(at=datetime(2100, 1, 1, tzinfo=UTC)).using(delay=0)

    assert view.enqueue("x").state == "ready"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": -1}, "delay is -1"),
        ({"delay": float("nan")}, "delay is nan"),
        ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "one of them"),
        ({"at": datetime(2030, 1, 1)}, "without a time zone"),  # noqa: DTZ001
        ({"at": "12:00"}, "use a datetime"),
        ({"delay": 60, "expires": 60}, "it would never run"),
        ({"expires": 0}, "it would never run"),
        ({"priority": -1}, "priority is -1"),
        ({"key": ""}, "1 to 256 characters"),
        ({"key": 7}, "key is 7"),
        ({"key": "k" * 257}, "1 to 256 characters"),
        ({"group": None}, "group is None"),
        ({"id": "seven"}, "is not a job id"),
        ({"id": uuid.uuid4()}, "version 7"),
        ({"headers": "a=b"}, "headers"),
        ({"headers": {"a": 1}}, "headers"),
    ],
)
def test_an_option_of_an_enqueue_that_cannot_work_is_refused(app, options, message):
    task = app.task(greet)

    with pytest.raises((BadOption, TypeError), match=message):
        task.using(**options)


def test_a_taken_key_gives_the_first_job_until_it_has_ended(app):
    once = app.task(greet).using(key="welcome:7")

    first, second = once.enqueue("ada"), once.enqueue("eve")
    first.cancel()
    third = once.enqueue("eve")

    assert second == first
    assert third != first


def test_keys_of_different_tasks_do_not_meet(app):
    first = app.task(greet).using(key="k").enqueue("ada")
    second = app.task(agreet).using(key="k").enqueue("ada")

    assert first != second


def test_the_same_id_sent_again_is_the_same_job(app):
    task = app.task(greet)
    first = task.enqueue("ada")

    again = task.using(id=first.id).enqueue("ada")

    assert again == first
    assert len(take(app, number=10)) == 1


# -- enqueueing many --


def test_many_are_stored_in_order_and_their_handles_come_in_order(app):
    task = app.task(greet)

    handles = task.enqueue_many([((str(i),), {}) for i in range(2_500)])

    leases = take(app, number=3_000)
    assert [lease.job for lease in leases] == [handle.id.bytes for handle in handles]
    assert len(leases) == 2_500


def test_many_awaited_are_stored_alike(app):
    task = app.task(greet)

    handles = asyncio.run(task.aenqueue_many([(("a",), {}), (("b",), {"loud": True})]))

    assert [lease.job for lease in take(app, number=10)] == [it.id.bytes for it in handles]


def test_many_are_read_only_as_far_as_they_are_accepted():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=2_000)])
    task = app.task(queue="mail")(greet)
    read = []

    def endless():
        while True:
            read.append(1)
            yield ("x",), {}

    with pytest.raises(QueueFull) as refused:
        task.enqueue_many(endless())

    assert refused.value.accepted == 2_000
    assert "2000 jobs of this call were accepted" in str(refused.value)
    assert len(read) == 3_000


def test_atomic_stores_all_or_none():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=2_000)])
    task = app.task(queue="mail")(greet)

    with pytest.raises(QueueFull) as refused:
        task.enqueue_many([(("x",), {})] * 2_001, atomic=True)

    assert (refused.value.accepted, refused.value.can_fit) == (0, False)
    assert take(app, "mail") == []


def test_atomic_takes_ten_thousand_and_no_more(app):
    task = app.task(greet)

    handles = task.enqueue_many([(("x",), {})] * 10_000, atomic=True)

    assert len(handles) == 10_000
    with pytest.raises(BadOption, match="10,000"):
        task.enqueue_many([(("x",), {})] * 10_001, atomic=True)


@pytest.mark.parametrize("call", [1, "xy", ("x",), ("x", {}), ["x", {}], (("x",), {}, 1)])
def test_what_is_no_call_is_refused_with_an_example(app, call):
    with pytest.raises(BadOption, match=r"give each as \(args, kwargs\)"):
        app.task(greet).enqueue_many([call])


def test_a_call_that_does_not_fit_tells_how_many_are_stored(app):
    calls = [(("x",), {})] * 1_500 + [((), {})]

    with pytest.raises(TypeError) as refused:
        app.task(greet).enqueue_many(calls)

    assert refused.value.__notes__ == ["The first 1000 jobs of this call are stored."]
    assert len(take(app, number=2_000)) == 1_000


def test_many_cannot_have_one_id(app):
    task = app.task(greet)
    made = task.enqueue("x")

    with pytest.raises(BadOption, match="names one job"):
        task.using(id=made.id).enqueue_many([(("x",), {})])


def test_none_at_all_is_an_empty_list(app):
    assert app.task(greet).enqueue_many([]) == []


# -- an engine in trouble --


class Doubtful(MemoryEngine):
    """Commits an append, and then cannot say so, the first time."""

    doubts = True

    def run(self, plan: Any) -> Any:
        done = super().run(plan)
        if self.doubts and isinstance(done, list):
            self.doubts = False
            raise OutcomeUnknown("the connection broke at the commit")
        return done


def test_a_commit_in_doubt_names_the_ids_and_sending_one_again_is_safe(app):
    clock = FakeClock()
    task, engine = app.task(greet), Doubtful(clock)

    with app.replaced(engine, clock):
        with pytest.raises(OutcomeUnknown) as unknown:
            task.enqueue("ada")
        [job] = unknown.value.jobs
        again = task.using(id=job).enqueue("ada")
        leases = take(app, number=10)

    assert again.id == job
    assert [lease.job for lease in leases] == [job.bytes]


class Bare(MemoryEngine):
    """An engine that can neither enforce keys nor join transactions."""

    capabilities = frozenset({Capability.RECORDS})


@pytest.mark.parametrize("option", ["key", "idempotency_key", "connection"])
def test_what_the_engine_cannot_do_is_refused_where_it_is_written(app, option):
    clock = FakeClock()
    task = app.task(greet)

    with app.replaced(Bare(clock), clock), pytest.raises(NotSupported, match=r"sqlite:///jobs\.db"):
        task.using(**{option: "x"})
