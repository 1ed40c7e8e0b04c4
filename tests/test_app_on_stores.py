"""The application on each store that processes share: threads, coroutines, forks."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.hand import succeed

from backlane import Backlane, Queue, QueueFull
from backlane.model import ids

PROCESSES = 4
EACH = 50


@pytest.fixture
def app(shared_url: str) -> Iterator[Backlane]:
    with open_app(shared_url) as app:
        yield app


def open_app(url: str) -> Backlane:
    app = Backlane(url, queues=[Queue("tiny", max_jobs=25), Queue("orders")])
    app.task(name="double")(double)
    app.task(name="remind", queue="tiny")(remind)
    return app


def double(number: int) -> int:
    return 2 * number


def remind(number: int) -> None: ...


def waiting(app: Backlane, queue: str = "default") -> int:
    queues = app.engine.run(app.engine.list_queues())
    return sum(it.depth.jobs for it in queues if it.name == queue)


def in_a_fork(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; return the child's process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- threads and coroutines --


def test_threads_enqueue_side_by_side(app):
    double = app.tasks["double"]

    with ThreadPoolExecutor(16) as pool:
        jobs = list(pool.map(double.enqueue, range(320)))

    assert len({job.id for job in jobs}) == waiting(app) == 320


def test_threads_that_meet_at_the_first_use_share_one_engine(shared_url):
    app = open_app(shared_url)
    start = threading.Barrier(8)

    def first_use(number: int) -> object:
        start.wait()
        app.tasks["double"].enqueue(number)
        return app.engine

    with ThreadPoolExecutor(8) as pool:
        engines = set(map(id, pool.map(first_use, range(8))))

    assert (len(engines), waiting(app)) == (1, 8)
    app.close()


def test_two_hundred_coroutines_enqueue_side_by_side(app):
    double = app.tasks["double"]

    async def all_at_once():
        return await asyncio.gather(*(double.aenqueue(number) for number in range(200)))

    jobs = asyncio.run(all_at_once())

    assert len({job.id for job in jobs}) == waiting(app) == 200


def test_a_bound_holds_against_threads_that_race_for_it(app):
    remind = app.tasks["remind"]

    def attempt(number: int) -> bool:
        try:
            remind.enqueue(number)
        except QueueFull:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        stored = sum(pool.map(attempt, range(80)))

    assert stored == waiting(app, "tiny") == 25


def test_a_cancelled_enqueuer_leaves_the_others_alone(app):
    double = app.tasks["double"]

    async def half_cancelled():
        running = [asyncio.ensure_future(double.aenqueue(number)) for number in range(100)]
        await asyncio.sleep(0)
        for one in running[::2]:
            one.cancel()
        return await asyncio.gather(*running, return_exceptions=True)

    came = asyncio.run(half_cancelled())

    assert all(not isinstance(it, BaseException) for it in came[1::2])
    assert 50 <= waiting(app) <= 100


def test_a_result_is_waited_for_across_threads(app):
    job = app.tasks["double"].enqueue(4)
    ended = threading.Thread(target=succeed, args=(app, 8))
    ended.start()

    assert job.result(timeout=30) == 8
    ended.join()


# -- processes --


def test_forked_processes_enqueue_side_by_side_with_their_parent(app):
    double = app.tasks["double"]
    double.enqueue(0)

    def work() -> None:
        for number in range(EACH):
            double.enqueue(number)

    children = [in_a_fork(work) for _ in range(PROCESSES)]
    work()

    assert [status_of(child) for child in children] == [0] * PROCESSES
    assert waiting(app) == 1 + (PROCESSES + 1) * EACH


def test_a_forked_process_enqueues_in_a_loop_of_its_own(app):
    double = app.tasks["double"]
    asyncio.run(double.aenqueue(0))

    child = in_a_fork(lambda: asyncio.run(double.aenqueue(1)) and None)

    assert status_of(child) == 0
    assert waiting(app) == 2


def test_a_fork_at_any_moment_of_another_thread_leaves_the_child_able_to_enqueue(app):
    """A child once inherited a held lock and waited for ever at its first id."""
    double = app.tasks["double"]
    double.enqueue(0)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ids._lock:
            held.set()
            done.wait()

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()
    child = in_a_fork(lambda: double.enqueue(1) and None)
    status = status_of(child)
    done.set()
    holding.join()

    assert status == 0
    assert waiting(app) == 2


def test_a_job_is_known_to_every_application_on_the_store(app, shared_url):
    job = app.tasks["double"].enqueue(4)

    with open_app(shared_url) as other:
        succeed(other, 8)

    assert job.result(timeout=0) == 8


# -- messages --


def test_a_message_is_received_in_one_process_and_acked_in_another(app):
    orders = app.messages("orders")
    orders.send(b"a")
    [message] = orders.receive()
    receipt = message.receipt

    child = in_a_fork(lambda: orders.ack(receipt))

    assert status_of(child) == 0
    assert orders.ack_many([receipt]) == [receipt]


def test_a_receiver_is_woken_by_a_sender_in_another_process(app):
    orders = app.messages("orders")
    orders.send(b"first")
    orders.receive()[0].ack()

    child = in_a_fork(lambda: orders.send(b"a") and None)
    received = orders.receive(wait=30)

    assert [message.body for message in received] == [b"a"]
    assert status_of(child) == 0
