"""What an enqueue is told: how full its queue is, and how long it will wait."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import timedelta

import pytest
from tests.line import Line

from backlane import Backlane, BadOption, EngineUnavailable, Queue, QueueFull
from backlane.engine.plan import Plan
from backlane.engine.protocol import Measured
from backlane.gauge import MOST_LINES
from backlane.model.clock import FakeClock


@pytest.fixture
def line() -> Line:
    return Line(queue=Queue("mail", max_jobs=200, max_wait=5))


# -- the handle --


def test_a_handle_tells_how_full_its_queue_is():
    line = Line(queue=Queue("mail", max_jobs=4))

    told = [line.task.enqueue("ada").pressure for _ in range(4)]

    assert told == [0.25, 0.5, 0.75, 1.0]


def test_a_handle_by_id_was_told_nothing(line):
    job = line.task.enqueue("ada")

    found = line.app.job(job.id)

    assert (found.pressure, found.expected_wait) == (None, None)


def test_the_wait_is_not_known_while_nothing_has_run(line):
    assert line.task.enqueue("ada").expected_wait is None


def test_the_wait_is_foretold_from_the_speed_of_the_line(line):
    line.warm()
    line.fill(40)

    job = line.task.enqueue("ada")

    assert job.expected_wait == pytest.approx(timedelta(seconds=2), abs=timedelta(seconds=0.2))


def test_a_more_urgent_job_waits_for_less(line):
    line.warm()
    line.fill(40)

    urgent = line.task.using(priority=9).enqueue("ada")

    assert urgent.expected_wait < timedelta(seconds=0.2)


def test_the_wait_that_is_foretold_comes_true(line):
    line.warm()
    line.fill(60)
    job = line.task.enqueue("ada")
    enqueued_ms = line.clock.boot_ms()

    while job.state == "ready":
        line.work(2)

    waited = (line.clock.boot_ms() - enqueued_ms) / 1000
    assert job.expected_wait.total_seconds() == pytest.approx(waited, rel=0.1)


async def expected_wait(line: Line) -> timedelta | None:
    return (await line.task.aenqueue("ada")).expected_wait


def test_an_awaited_enqueue_is_told_the_same(line):
    line.warm()
    line.fill(20)

    assert asyncio.run(expected_wait(line)) > timedelta(seconds=0.8)


# -- the queue --


def test_a_queue_tells_its_pressure_and_its_wait(line):
    line.warm()
    line.fill(50)
    line.pass_time(1.1)

    queue = line.app.queue("mail")

    assert queue.pressure() == pytest.approx(0.5, abs=0.05)  # of 5 s; of 200 jobs it is less
    assert queue.expected_wait() == pytest.approx(
        timedelta(seconds=2.5), abs=timedelta(seconds=0.2)
    )
    assert queue.expected_wait(priority=9) == timedelta(0)


def test_an_unused_queue_knows_nothing(line):
    queue = line.app.queue("mail")

    assert (queue.pressure(), queue.expected_wait()) == (None, None)


def test_a_priority_that_is_none_is_refused(line):
    with pytest.raises(BadOption, match="0 to 9"):
        line.app.queue("mail").expected_wait(priority=10)


def test_a_paused_queue_foretells_nothing(line):
    line.warm()
    line.app.queue("mail").pause()
    line.pass_time(1.1)

    assert line.task.enqueue("ada").expected_wait is None


# -- the bound on the wait --


def test_a_job_that_would_wait_too_long_is_refused(line):
    line.warm()

    with pytest.raises(QueueFull) as refused:
        line.fill(200)

    full = refused.value
    assert (full.limit, full.bound) == ("wait", 5.0)
    assert full.jobs == pytest.approx(100, abs=3)
    assert full.estimated_wait == pytest.approx(timedelta(seconds=5), abs=timedelta(seconds=0.3))
    assert str(full).startswith("a new job of queue 'mail' would wait 5.")


def test_a_job_that_would_start_too_late_is_refused(line):
    line.warm()
    line.fill(60)

    with pytest.raises(QueueFull) as refused:
        line.task.using(expires=1).enqueue("ada")

    full = refused.value
    assert full.limit == "deadline"
    assert full.bound == pytest.approx(0.9, abs=0.01)  # it is to be done by then, in 100 ms
    assert full.retry_after is not None
    assert line.task.enqueue("ada")  # nobody else is refused for it


def test_a_bound_on_the_wait_is_lifted_and_set_at_run_time(line):
    line.warm()
    line.fill(90)
    mail = line.app.queue("mail")

    record = mail.tune(max_wait=float("inf"))
    line.fill(60)

    assert record.tuned_max_wait_ms == 0
    mail.tune(max_wait=1)
    with pytest.raises(QueueFull, match="max_wait is 1 s"):
        line.task.enqueue("ada")


def test_a_share_of_a_group_is_its_own(line):
    line.app.queue("mail")
    line.task.enqueue("ada")
    line.app.queue("mail").tune(group_share=0.05)
    acme = line.task.using(group="acme")
    for _ in range(10):
        acme.enqueue("ada")

    with pytest.raises(QueueFull) as refused:
        acme.enqueue("ada")

    full = refused.value
    assert (full.limit, full.group, full.depth, full.bound) == ("group", "acme", 10, 10)
    assert "group 'acme' in queue 'mail' holds 10 jobs" in str(full)
    line.task.using(group="other").enqueue("ada")
    line.task.enqueue("ada")


@pytest.mark.parametrize("max_wait", [0, -1, float("nan"), "5", True])
def test_a_wait_that_cannot_bound_is_refused(line, max_wait):
    line.task.enqueue("ada")

    with pytest.raises(BadOption):
        line.app.queue("mail").tune(max_wait=max_wait)


# -- measuring --


class Counting:
    """An engine that counts how often it is measured, and can fail at it."""

    def __init__(self, line: Line) -> None:
        self.engine = line.app.engine
        self.measured: list[tuple[str, ...]] = []
        self.fails = False

    def measure(self, queues: list[str]) -> Plan[Measured]:
        self.measured.append(tuple(queues))
        if self.fails:
            raise EngineUnavailable("the disk is away; ask again")
        return self.engine.measure(queues)

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)


def test_a_queue_is_measured_once_a_second_whatever_is_enqueued(line):
    line.fill(10)
    line.work(10)
    line.pass_time(1.0)
    line.task.enqueue("ada")
    counting = Counting(line)
    with line.app.replaced(counting, line.clock):
        for _ in range(5):
            line.fill(10)
            line.pass_time(0.5)

    assert len(counting.measured) == 3


def test_a_queue_of_unknown_speed_is_measured_again_soon(line):
    """A first crowd of callers was told nothing for a second, though jobs had ended."""
    line.fill(10)
    line.work(2)

    job = line.task.enqueue("ada")

    assert job.expected_wait is not None


def test_queues_in_use_are_measured_together(line):
    app = Backlane("memory://", clock=line.clock)
    task = app.task(nothing)
    for name in ("a", "b", "c"):
        task.using(queue=name).enqueue()
    counting = Counting(line)
    counting.engine = app.engine
    with app.replaced(counting, line.clock):
        for name in ("a", "b", "c"):
            task.using(queue=name).enqueue()
        line.pass_time(1.0)
        for name in ("a", "b", "c"):
            task.using(queue=name).enqueue()

    assert counting.measured == [("a",), ("b",), ("c",), ("a", "b", "c")]


def nothing() -> None: ...


def test_of_very_many_queues_only_the_latest_are_watched(line):
    app = Backlane("memory://", clock=line.clock)
    task = app.task(nothing)
    counting = Counting(line)
    with app.replaced(counting, line.clock):
        for number in range(MOST_LINES + 50):
            task.using(queue=f"q{number}").enqueue()
        line.pass_time(1.0)
        task.using(queue="one.more").enqueue()

    assert len(counting.measured[-1]) <= MOST_LINES


def test_a_queue_that_nobody_uses_any_more_is_not_measured(line):
    app = Backlane("memory://", clock=line.clock)
    task = app.task(nothing)
    counting = Counting(line)
    with app.replaced(counting, line.clock):
        task.using(queue="once").enqueue()
        line.pass_time(120)
        task.using(queue="other").enqueue()
        line.pass_time(1)
        task.using(queue="other").enqueue()

    assert counting.measured[-1] == ("other",)


def test_a_store_that_cannot_be_measured_takes_jobs_all_the_same(line):
    line.warm()
    counting = Counting(line)
    with line.app.replaced(Failing(counting), line.clock):
        job = line.task.enqueue("ada")

    assert job.expected_wait is None
    assert job.id


class Failing(Counting):
    """An engine whose measures fail as they are carried out."""

    def __init__(self, inner: Counting) -> None:
        self.engine = inner.engine

    def measure(self, queues: list[str]) -> Plan[Measured]:
        return self.engine.measure(queues)

    def run(self, plan: Plan[object]) -> object:
        value = self.engine.run(plan)
        if isinstance(value, Measured):
            raise EngineUnavailable("the disk is away; ask again")
        return value


def test_another_store_is_known_anew(line):
    line.warm()
    line.fill(20)
    other = Line()

    with line.app.replaced(other.app.engine, FakeClock()):
        assert line.task.enqueue("ada").expected_wait is None

    assert line.task.enqueue("ada").expected_wait is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_measures_for_itself(line):
    """A child that was forked while its parent measured waited for the parent's lock."""
    line.warm()
    line.pass_time(1)
    due = line.app._gauge.due(line.app.engine, "mail")
    assert due is not None

    child = os.fork()
    if child == 0:
        again = line.app._gauge.due(line.app.engine, "mail")
        os._exit(0 if again is not None else 1)
    _, status = os.waitpid(child, 0)
    due.end(None)

    assert os.waitstatus_to_exitcode(status) == 0


def test_one_caller_measures_and_the_others_go_on(line):
    line.warm()
    line.pass_time(1)
    due = line.app._gauge.due(line.app.engine, "mail")

    other: list[object] = []
    thread = threading.Thread(target=lambda: other.append(line.task.enqueue("ada")))
    thread.start()
    thread.join(5)
    due.end(None)

    assert len(other) == 1
