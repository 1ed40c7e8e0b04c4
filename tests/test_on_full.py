"""Waiting for room: `on_full="wait"`, plain and awaited, one job and many."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from tests.line import Line

from backlane import Backlane, BadOption, KeyReused, Queue, QueueFull, WrongUse, events
from backlane.engine.selection import Delete, Selection
from backlane.model.clock import SystemClock
from backlane.testing import testing
from backlane.worker import Worker


def greet(name: str) -> str:
    return name


@pytest.fixture
def app() -> Backlane:
    """Real time, and a queue of two places."""
    return Backlane("memory://", queues=[Queue("mail", max_jobs=2, on_full="wait")])


@pytest.fixture
def task(app):
    return app.task(queue="mail", name="greet")(greet)


def drained(app: Backlane, after: float, jobs: int) -> threading.Thread:
    """Make room for so many jobs, one each `after` seconds, as a worker would."""

    def work() -> None:
        for _ in range(jobs):
            time.sleep(after)
            app.engine.run(app.engine.amend(Selection(queue="mail"), Delete()))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@contextmanager
def draining(app: Backlane) -> Iterator[None]:
    """Make room every 50 ms within the block, for however long that takes."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            app.engine.run(app.engine.amend(Selection(queue="mail"), Delete()))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# -- one job --


def test_a_caller_that_waits_gets_the_room_that_is_made(app, task):
    task.enqueue("ada")
    task.enqueue("eve")
    worker = drained(app, 0.3, 1)

    job = task.enqueue("bob")

    worker.join()
    assert job.state == "ready"


def test_a_coroutine_that_waits_lets_others_run(app, task):
    seen = []

    async def main() -> str:
        await task.aenqueue("ada")
        await task.aenqueue("eve")
        waiting = asyncio.ensure_future(task.aenqueue("bob"))
        await asyncio.sleep(0.05)
        seen.append(waiting.done())
        app.engine.run(app.engine.amend(Selection(queue="mail"), Delete()))
        return (await waiting).state

    assert asyncio.run(main()) == "ready"
    assert seen == [False]


def test_a_wait_ends_with_its_timeout_and_tells_how_long_it_was(app, task):
    task.enqueue("ada")
    task.enqueue("eve")
    begun = time.monotonic()

    with pytest.raises(QueueFull) as refused:
        task.using(on_full_timeout=0.4).enqueue("bob")

    assert 0.4 <= time.monotonic() - begun < 2
    assert refused.value.waited >= timedelta(seconds=0.4)
    assert "it waited 0.4 s for room" in str(refused.value)


def test_one_enqueue_can_say_otherwise_than_its_queue(app, task):
    task.enqueue("ada")
    task.enqueue("eve")

    with pytest.raises(QueueFull) as refused:
        task.using(on_full="refuse").enqueue("bob")

    assert refused.value.waited == timedelta(0)


def test_one_enqueue_can_wait_where_its_queue_refuses():
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=1)])
    task = app.task(queue="mail", name="greet")(greet)
    task.enqueue("ada")
    worker = drained(app, 0.2, 1)

    job = task.using(on_full="wait", on_full_timeout=5).enqueue("bob")

    worker.join()
    assert job.state == "ready"


def test_every_wait_is_told_to_observers_and_the_end_once(app, task):
    told = []
    app.observe(told.append)
    task.enqueue("ada")
    task.enqueue("eve")

    with pytest.raises(QueueFull):
        task.using(on_full_timeout=0.3).enqueue("bob")

    waits = [event for event in told if isinstance(event, events.RoomAwaited)]
    assert waits
    assert {(one.queue, one.limit, one.count) for one in waits} == {("mail", "jobs", 1)}
    assert sum((one.wait for one in waits), timedelta(0)) >= timedelta(seconds=0.25)
    assert [type(event) for event in told].count(events.JobRefused) == 1


def test_the_same_job_is_sent_at_every_try(app, task):
    """A try whose answer was lost must not make a second job of it."""
    sent = []
    append = app.engine.append
    app.engine.append = lambda jobs, admission: sent.append(jobs[0].id) or append(jobs, admission)
    task.enqueue("ada")
    task.enqueue("eve")
    del sent[:]

    with pytest.raises(QueueFull):
        task.using(on_full_timeout=0.3).enqueue("bob")

    assert len(sent) > 1
    assert len(set(sent)) == 1


def test_a_time_beyond_the_timeout_is_not_waited_for():
    line = Line(queue=Queue("mail", max_wait=5, on_full="wait", on_full_timeout=2))
    line.warm()
    refuse = line.task.using(on_full="refuse")
    for _ in range(400):
        try:
            refuse.enqueue("ada")
        except QueueFull:
            continue
    before = line.clock.boot_ms()

    with pytest.raises(QueueFull) as refused:
        line.task.enqueue("bob")

    assert refused.value.retry_after > timedelta(seconds=2)
    assert line.clock.boot_ms() == before


def test_messages_wait_too():
    app = Backlane("memory://", queues=[Queue("raw", max_jobs=1, on_full="wait")])
    raw = app.messages("raw")
    raw.send(b"a")

    def receive() -> None:
        time.sleep(0.2)
        raw.receive()[0].ack()

    receiver = threading.Thread(target=receive)
    receiver.start()
    sent = raw.send(b"b")

    receiver.join()
    assert sent


# -- many --


def test_many_jobs_go_in_as_room_is_made(app, task):
    with draining(app):
        jobs = task.enqueue_many([((str(number),), {}) for number in range(12)])

    assert len({job.id for job in jobs}) == 12


def test_many_awaited_go_in_as_room_is_made(app, task):
    with draining(app):
        jobs = asyncio.run(task.aenqueue_many([((str(number),), {}) for number in range(12)]))

    assert len({job.id for job in jobs}) == 12


def test_many_that_find_no_room_in_the_end_say_how_many_are_stored(app, task):
    with pytest.raises(QueueFull) as refused:
        task.using(on_full_timeout=0.2).enqueue_many([((str(n),), {}) for n in range(5)])

    assert refused.value.accepted == 2
    assert "2 jobs of this call were accepted" in str(refused.value)
    assert refused.value.__notes__ == ["The first 2 jobs of this call are stored."]
    assert app.queue("mail").record().depth.jobs == 2


def test_an_import_keeps_the_line_of_a_bounded_wait_moving(tmp_path):
    """Each place that is waited for costs a second at least, so they are taken many at a time."""
    queue = Queue("mail", max_wait=0.5, on_full="wait")
    app = Backlane(f"sqlite:///{tmp_path}/jobs.db", queues=[queue])

    @app.task(queue="mail", name="nap")
    async def nap(number: int) -> None:
        await asyncio.sleep(0.02)

    told: list[events.RoomAwaited] = []
    app.observe(lambda event: told.append(event) if isinstance(event, events.RoomAwaited) else None)

    with Worker(app, concurrency=4):
        nap.enqueue_many([((number,), {}) for number in range(40)])
        time.sleep(1.1)  # its speed is known by now
        begun = time.monotonic()
        jobs = nap.enqueue_many([((number,), {}) for number in range(800)])
        took = time.monotonic() - begun
    app.close()

    assert len(jobs) == 800
    assert told
    assert took < 20  # at 200 a second it is 4 s; one place at a time it was 13 minutes


def test_all_or_nothing_stays_so(app, task):
    with pytest.raises(QueueFull) as refused:
        task.using(on_full_timeout=0.2).enqueue_many(
            [((str(n),), {}) for n in range(5)], atomic=True
        )

    assert (refused.value.accepted, refused.value.can_fit) == (0, False)
    with pytest.raises(Exception, match="mail"):
        app.queue("mail").record()


# -- where nobody may wait --


def test_a_plain_enqueue_does_not_wait_in_a_running_loop(app, task):
    async def main() -> None:
        task.enqueue("ada")

    with pytest.raises(WrongUse, match="aenqueue"):
        asyncio.run(main())


def test_an_open_transaction_never_waits(tmp_path):
    with Backlane(f"sqlite:///{tmp_path}/jobs.db", queues=[Queue("mail")]) as app:
        task = app.task(queue="mail", name="greet")(greet)

        with pytest.raises(BadOption, match="do not go together"):
            task.using(connection=object(), on_full="wait")


def test_a_job_does_not_wait_unless_it_says_so():
    line = Line(queue=Queue("mail", max_jobs=1, on_full="wait"))
    line.task.enqueue("ada")
    (lease,) = line.app.engine.run(line.app.engine.claim(line.wanted(1))).leases

    with line.inside(lease):
        line.fill(10)  # the headroom
        with pytest.raises(QueueFull) as refused:
            line.task.enqueue("bob")

    assert refused.value.waited == timedelta(0)


def test_under_the_test_kit_time_passes_while_a_test_waits(app, task):
    with testing(app) as t:
        task.enqueue("ada")
        task.enqueue("eve")
        begun = time.monotonic()

        with pytest.raises(QueueFull) as refused:
            task.enqueue("bob")

        assert refused.value.waited >= timedelta(seconds=30)
        assert time.monotonic() - begun < 5
        assert t.now.second >= 30
    assert isinstance(app.clock, SystemClock)


# -- idempotency keys --


def test_the_same_call_with_an_idempotency_key_is_the_same_job_even_when_it_has_ended():
    line = Line()
    keyed = line.task.using(idempotency_key="order-7")
    first = keyed.enqueue("ada")
    line.work(1)

    again = keyed.enqueue("ada")

    assert again == first
    assert first.state == "succeeded"


def test_an_idempotency_key_with_another_call_is_refused():
    line = Line()
    keyed = line.task.using(idempotency_key="order-7")
    keyed.enqueue("ada")

    with pytest.raises(KeyReused, match="use a new key"):
        keyed.enqueue("eve")


def test_an_idempotency_key_names_one_job(app, task):
    with pytest.raises(BadOption, match="idempotency_key"):
        task.using(idempotency_key="k").enqueue_many([(("ada",), {})])
    with pytest.raises(BadOption, match="idempotency_key"):
        Backlane("memory://").messages("raw").send_many([b"a"], idempotency_key="k")


def test_a_caller_that_waits_comes_in_when_the_line_is_short_whoever_was_promised_a_place():
    """After 200 callers who never came back, the next one waited for all their places."""
    app = Backlane("memory://", queues=[Queue("mail", max_jobs=20)])
    rest = app.task(queue="mail", name="rest")(rested)
    with Worker(app, concurrency=2):
        for job in [rest.enqueue() for _ in range(20)]:
            job.result(timeout=10)
        while True:  # until the speed is known, and the line full
            try:
                rest.enqueue()
            except QueueFull as full:
                if full.retry_after is not None:
                    break
        for _ in range(200):
            with pytest.raises(QueueFull):
                rest.enqueue()
        began = time.monotonic()
        rest.using(on_full="wait").enqueue()

    assert time.monotonic() - began < 3


def rested() -> None:
    time.sleep(0.05)
