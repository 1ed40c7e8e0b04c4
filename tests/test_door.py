"""The door: what the refused are told, and that what they are told comes true."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from datetime import timedelta

import pytest
from tests.engine.contract import engines
from tests.line import Line

from backlane import Backlane, Queue, QueueFull
from backlane.model.clock import FakeClock
from backlane.model.pressure import ticket as tickets


@pytest.fixture
def line() -> Line:
    return Line(queue=Queue("mail", max_wait=5))


def refused(line: Line, ticket: str | None = None) -> QueueFull | None:
    """Enqueue one job; return the refusal, or None if it was taken."""
    try:
        (line.task.using(ticket=ticket) if ticket else line.task).enqueue("ada")
    except QueueFull as full:
        return full
    return None


def overfill(line: Line) -> QueueFull:
    """Enqueue until the first refusal, and return it."""
    for _ in range(100_000):
        full = refused(line)
        if full is not None:
            return full
    raise AssertionError("the queue was never full")


# -- when to come back --


def test_the_refused_are_told_a_time_that_grows_by_a_place_each(line):
    line.warm()
    overfill(line)

    told = [refused(line).retry_after for _ in range(100)]

    # 100 places at 20 a second are 5 s, behind the second that the line needs to its low mark.
    assert timedelta(seconds=1) <= told[0] <= timedelta(seconds=2)
    assert timedelta(seconds=5) <= told[-1] <= timedelta(seconds=8)


def test_nobody_is_told_a_time_where_no_speed_is_known():
    line = Line(queue=Queue("mail", max_jobs=3))

    full = overfill(line)

    assert (full.retry_after, full.ticket, full.estimated_wait) == (None, None, None)
    assert "start more workers" in str(full)


def test_what_can_never_fit_is_told_no_time():
    line = Line(queue=Queue("mail", max_jobs=100, max_bytes=1_000))
    line.warm()

    with pytest.raises(QueueFull) as caught:
        line.task.enqueue("a" * 2_000)

    assert (caught.value.can_fit, caught.value.retry_after) == (False, None)
    assert "raise max_bytes" in str(caught.value)


def test_callers_who_come_when_told_are_taken_at_their_first_return(line):
    line.warm()
    overfill(line)
    waiting = sorted(
        ((full.retry_after, full.ticket) for full in (refused(line) for _ in range(150))),
        key=lambda told: told[0],
    )

    taken, passed = 0, timedelta(0)
    for retry_after, ticket in waiting:
        line.wait_out(retry_after - passed)
        passed = max(passed, retry_after)
        taken += refused(line, ticket) is None

    assert taken >= 0.95 * len(waiting)


def test_coroutines_that_are_refused_together_do_not_wait_for_each_other_for_ever(tmp_path):
    """One that asked the store for places held a lock which another blocked the loop for."""
    line = Line(f"sqlite:///{tmp_path}/jobs.db", queue=Queue("mail", max_wait=5))
    line.warm()
    overfill(line)

    async def main() -> list[object]:
        return await asyncio.gather(
            *(line.task.aenqueue("ada") for _ in range(100)), return_exceptions=True
        )

    told = sorted(full.retry_after for full in asyncio.run(main()))
    line.app.close()

    assert timedelta(seconds=5) <= told[-1] <= timedelta(seconds=9)


# -- newcomers --


def test_newcomers_do_not_take_the_places_of_those_who_were_refused(line):
    line.warm()
    first = overfill(line)
    for _ in range(50):
        refused(line)
    line.work(10)  # there is room again

    newcomer = refused(line)

    assert newcomer is not None
    assert newcomer.promised
    assert "kept for those who were refused before" in str(newcomer)
    line.wait_out(first.retry_after)
    assert refused(line, first.ticket) is None


def test_a_newcomer_is_refused_without_touching_the_store(line, monkeypatch):
    line.warm()
    overfill(line)
    for _ in range(50):
        refused(line)
    asked: list[object] = []
    monkeypatch.setattr(line.app.engine, "run", asked.append)

    newcomer = refused(line)

    assert newcomer is not None
    assert asked == []


def test_a_short_line_lets_anyone_in_so_that_workers_are_never_idle(line):
    line.warm()
    overfill(line)
    for _ in range(200):
        refused(line)  # 10 s of places are promised, and nobody comes back
    line.work(80)

    assert refused(line) is None


def test_work_born_inside_a_job_passes_the_door(line):
    line.warm()
    overfill(line)
    for _ in range(50):
        refused(line)
    line.app.queue("mail").tune(max_wait=float("inf"))

    engine = line.app.engine
    (lease,) = engine.run(engine.claim(line.wanted(1))).leases
    with line.inside(lease):
        assert refused(line) is None


# -- tickets --


def test_a_ticket_that_comes_early_keeps_its_place(line):
    line.warm()
    overfill(line)
    for _ in range(60):
        refused(line)
    first = refused(line)

    again = refused(line, first.ticket)

    assert again.ticket == first.ticket
    assert again.retry_after <= first.retry_after
    assert refused(line).retry_after > again.retry_after


@pytest.mark.parametrize(
    "ticket", ["x", "é" * 8, "A" * 256, base64.urlsafe_b64encode(bytes(32)).decode()]
)
def test_a_forged_ticket_is_no_ticket(line, ticket):
    line.warm()
    overfill(line)
    for _ in range(50):
        refused(line)

    assert refused(line, ticket).promised


def test_a_ticket_signed_with_another_secret_is_none(line):
    line.warm()
    overfill(line)
    for _ in range(50):
        refused(line)
    now = line.clock.wall_ms()
    forged = tickets.signed(tickets.ticket(now - 1, 1, now - 1), b"guessed", "mail")

    assert refused(line, forged).promised


def test_a_ticket_never_passes_a_hard_bound():
    line = Line(queue=Queue("mail", max_jobs=50))
    line.warm()
    full = overfill(line)

    line.pass_time(full.retry_after.total_seconds() + 1)  # and nobody works

    again = refused(line, full.ticket)
    assert (again.limit, again.depth, again.bound) == ("jobs", 50, 50)


def test_one_who_comes_in_time_to_a_full_queue_keeps_its_place_before_newcomers():
    """It was sent to the end of the line, behind all who had come since."""
    line = Line(queue=Queue("mail", max_jobs=50))
    line.warm()
    first = overfill(line)
    for _ in range(200):
        refused(line)  # 10 s of places
    line.pass_time(first.retry_after.total_seconds() + 0.1)  # and nobody works

    again = refused(line, first.ticket)

    assert again.ticket == first.ticket
    assert again.retry_after < timedelta(seconds=2)
    line.wait_out(again.retry_after)
    assert refused(line, again.ticket) is None
    line.pass_time(120)
    overfill(line)
    assert refused(line, first.ticket).ticket != first.ticket  # not for ever


@pytest.mark.parametrize("maker", engines.SHARED, ids=lambda maker: maker.name)
def test_a_ticket_is_good_in_another_process_too(maker, tmp_path):
    with maker.place(tmp_path, FakeClock()) as url:
        ticket_is_good_elsewhere(url)


def ticket_is_good_elsewhere(url):
    line = Line(url, queue=Queue("mail", max_wait=5))
    line.warm()
    overfill(line)
    full, *_ = [refused(line) for _ in range(50)]
    other = Backlane(url, clock=line.clock, queues=[Queue("mail", max_wait=5)])
    task = other.task(queue="mail", name="greet")(line.task.function)
    task_refused = pytest.raises(QueueFull, match="kept for those")

    with task_refused:
        task.enqueue("eve")
    line.wait_out(full.retry_after)
    task.using(ticket=full.ticket).enqueue("ada")

    other.close()
    line.app.close()


# -- other limits --


def test_a_group_that_is_refused_shuts_nobody_else_out():
    line = Line(queue=Queue("mail", max_jobs=100, group_share=0.3))
    line.warm()
    acme = line.task.using(group="acme")
    for _ in range(30):
        acme.enqueue("ada")

    told = []
    for _ in range(20):
        with pytest.raises(QueueFull) as caught:
            acme.enqueue("ada")
        told.append(caught.value.retry_after)

    assert told[-1] > told[0]
    assert refused(line) is None


def test_callers_who_never_return_push_the_others_of_their_group_no_further_than_the_line():
    """They pushed it to 5 minutes, with 5 s of work in the whole queue."""
    line = Line(queue=Queue("mail", max_jobs=100, group_share=0.3))
    line.warm()
    acme = line.task.using(group="acme")
    line.fill(60)

    told = []
    for _ in range(3_000):
        with contextlib.suppress(QueueFull):
            acme.enqueue("ada")
    for _ in range(100):
        with pytest.raises(QueueFull) as caught:
            acme.enqueue("ada")
        told.append(caught.value.retry_after.total_seconds())

    assert 2 < min(told) < max(told) < 6
    assert max(told) - min(told) > 2  # apart from each other all the same


def test_no_time_is_told_while_nobody_serves_the_queue():
    line = Line(queue=Queue("mail", max_jobs=20))
    line.warm()
    line.announce(leaving=True)
    line.pass_time(1)

    full = overfill(line)

    assert (full.limit, full.retry_after, full.ticket) == ("jobs", None, None)


def test_a_queue_without_a_live_worker_says_so(line):
    line.warm()
    line.fill(10)
    line.announce(leaving=True)
    line.pass_time(6)

    full = refused(line)

    assert (full.limit, full.retry_after) == ("no_workers", None)
    assert "no worker serves queue 'mail'" in str(full)
    line.task.using(delay=60).enqueue("ada")  # who knows who serves it by then
