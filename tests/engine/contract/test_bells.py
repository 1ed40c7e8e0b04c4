"""listen and watch: a ring after each commit that matters, and none lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from tests.engine.contract.desk import FAILED, RELEASED, SUCCEEDED, Desk, retry

from backlane.engine.protocol import Admission, Note
from backlane.engine.selection import Cancel, Move, Redrive, Reprioritise
from backlane.model.clock import FakeClock
from backlane.model.job import Progress, State

SOON = 5.0  # real seconds that a ring may take on a busy machine; it is heard at once


def quiet(bell) -> None:
    """Hear what has rung so far."""
    while bell.heard(0):
        pass


APPENDS: list[Callable[[Desk], object]] = [
    lambda desk: desk.add_one(),
    lambda desk: desk.add_one(delay_ms=60_000),
]


@pytest.mark.parametrize("append", APPENDS)
def test_an_append_rings_those_who_listen_to_its_queue(desk: Desk, append) -> None:
    bell = desk.engine.listen(["mail"])
    quiet(bell)

    append(desk)

    assert bell.heard(SOON)
    bell.close()


@pytest.mark.parametrize("outcome", [RELEASED, retry(0), retry(60)])
def test_a_job_given_back_rings_its_queue(desk: Desk, outcome) -> None:
    desk.add()
    lease = desk.lease()
    bell = desk.engine.listen(["mail"])
    quiet(bell)

    desk.settle(lease, outcome)

    assert bell.heard(SOON)
    bell.close()


@pytest.mark.parametrize(
    "rung",
    [
        lambda desk: desk.resume("mail"),
        lambda desk: desk.amend(Redrive(), states=(State.FAILED,)),
        lambda desk: desk.amend(Cancel(), states=(State.RUNNING,)),
        lambda desk: desk.amend(Move("mail"), queue="video"),
    ],
    ids=["resume", "redrive", "cancel a running job", "move"],
)
def test_what_gives_a_worker_something_to_do_rings(desk: Desk, rung) -> None:
    desk.in_state(State.FAILED)
    desk.in_state(State.RUNNING)
    desk.add(1, "video")
    desk.pause("mail")
    bell = desk.engine.listen(["mail"])
    quiet(bell)

    rung(desk)

    assert bell.heard(SOON)
    bell.close()


def test_a_ring_before_the_wait_is_not_lost(desk: Desk) -> None:
    bell = desk.engine.listen(["mail"])
    desk.add()
    bell_rang_before_anybody_waited = bell.heard(SOON)

    assert bell_rang_before_anybody_waited
    bell.close()


def test_nobody_rings_where_nothing_happened(desk: Desk) -> None:
    bell = desk.engine.listen(["mail"])
    quiet(bell)

    assert not bell.heard(0)
    bell.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda desk, lease: desk.settle(lease, SUCCEEDED),
        lambda desk, lease: desk.settle(lease, FAILED),
        lambda desk, lease: desk.settle(lease, retry(60)),
        lambda desk, lease: desk.amend(Cancel(), lease.job),
        lambda desk, lease: desk.run(
            desk.engine.note([Note(lease.job, lease.token, Progress(0.5))])
        ),
    ],
    ids=["success", "failure", "retry", "asked to stop", "progress"],
)
def test_a_change_of_a_job_rings_those_who_watch_it(desk: Desk, change) -> None:
    job = desk.add_one()
    lease = desk.lease()
    bell = desk.engine.watch([job])
    quiet(bell)

    change(desk, lease)

    assert bell.heard(SOON)
    bell.close()


@pytest.mark.parametrize(
    "change",
    [Cancel(), Move("slow"), Reprioritise(9)],
    ids=["cancel", "move", "reprioritise"],
)
def test_an_amended_waiting_job_rings_those_who_watch_it(desk: Desk, change) -> None:
    job = desk.add_one()
    bell = desk.engine.watch([job])
    quiet(bell)

    desk.amend(change, job)

    assert bell.heard(SOON)
    bell.close()


def test_a_watcher_of_several_jobs_hears_each(desk: Desk) -> None:
    jobs = desk.add(3)
    leases = desk.claim(3).leases
    bell = desk.engine.watch(jobs)
    quiet(bell)

    for lease in leases:
        desk.settle(lease, SUCCEEDED)
        assert bell.heard(SOON)
    bell.close()


def test_every_listener_hears_the_ring(desk: Desk) -> None:
    bells = [desk.engine.listen(["mail"]) for _ in range(3)]
    for bell in bells:
        quiet(bell)

    desk.add()

    assert all(bell.heard(SOON) for bell in bells)
    for bell in bells:
        bell.close()


def test_one_bell_may_listen_to_several_queues(desk: Desk) -> None:
    bell = desk.engine.listen(["mail", "video"])
    quiet(bell)

    desk.add(1, "video")

    assert bell.heard(SOON)
    bell.close()


def test_a_closed_bell_may_be_closed_again(desk: Desk) -> None:
    bell = desk.engine.listen(["mail"])
    bell.close()
    bell.close()
    desk.add()


def test_a_waiting_thread_is_woken(desk: Desk) -> None:
    bell = desk.engine.listen(["mail"])
    quiet(bell)
    heard: list[bool] = []
    waiter = threading.Thread(target=lambda: heard.append(bell.heard(SOON)))
    waiter.start()

    desk.add()
    waiter.join(SOON * 2)

    assert heard == [True]
    bell.close()


def test_a_waiting_coroutine_is_woken_from_another_thread(desk: Desk) -> None:
    async def wait() -> bool:
        bell = desk.engine.listen(["mail"])
        while await bell.aheard(0):
            pass
        waiting = asyncio.create_task(bell.aheard(SOON))
        await asyncio.sleep(0)
        await asyncio.to_thread(desk.add)
        rang = await asyncio.wait_for(waiting, SOON)
        bell.close()
        return rang

    assert asyncio.run(wait())


def test_a_coroutine_hears_what_rang_before_it_waited(desk: Desk) -> None:
    async def wait() -> list[bool]:
        bell = desk.engine.watch([job])
        await desk.engine.arun(desk.engine.settle([]))
        desk.settle(lease, SUCCEEDED)
        rang = [await asyncio.wait_for(bell.aheard(SOON), SOON)]
        while rang[-1] and len(rang) < 10:
            rang.append(await bell.aheard(0))
        bell.close()
        return rang

    job = desk.add_one()
    lease = desk.lease()
    rang = asyncio.run(wait())
    assert rang[0]
    assert not rang[-1], "what was heard is not used up"  # who begins to listen rings once more


def test_no_ring_is_lost_between_subscribing_and_reading(desk: Desk) -> None:
    """Whatever the moment of the change, a reader that subscribed first comes to see it."""
    for _ in range(20):
        job = desk.add_one()
        lease = desk.lease()
        bell = desk.engine.watch([job])
        settler = threading.Thread(target=desk.settle, args=(lease, SUCCEEDED))
        settler.start()
        while desk.state(job) is State.RUNNING:
            assert bell.heard(SOON)
        settler.join()
        bell.close()


def test_a_waiting_coroutine_can_be_cancelled(desk: Desk) -> None:
    async def wait() -> None:
        bell = desk.engine.listen(["mail"])
        waiting = asyncio.create_task(bell.aheard(600))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await desk.engine.arun(desk.engine.append([desk.job()], Admission()))
        bell.close()

    asyncio.run(wait())


def test_a_fake_clock_ends_a_wait(desk: Desk, clock: FakeClock) -> None:
    async def wait() -> bool:
        bell = desk.engine.listen(["mail"])
        while await bell.aheard(0):
            pass
        waiting = asyncio.create_task(bell.aheard(0.05))
        for _ in range(10):  # let it begin to wait
            await asyncio.sleep(0)
        clock.advance(seconds=1)
        rang = await asyncio.wait_for(waiting, SOON)
        bell.close()
        return rang

    assert asyncio.run(wait()) is False


def test_who_follows_a_job_hears_that_it_is_taken(desk: Desk) -> None:
    job = desk.add_one()
    bell = desk.engine.watch([job], starts=True)
    quiet(bell)

    desk.claim()

    assert bell.heard(SOON)
    bell.close()


def test_a_watch_tells_which_jobs_rang(desk: Desk) -> None:
    jobs = desk.add(4)
    leases = {lease.job: lease for lease in desk.claim(4).leases}
    bell = desk.engine.watch(jobs[:3])
    quiet(bell)

    for job in jobs[1:]:
        desk.settle(leases[job], SUCCEEDED)

    rang: set[bytes] = set()
    while rang != set(jobs[1:3]):  # they may ring one after the other
        new = asyncio.run(bell.arang(SOON))
        assert new
        assert new <= set(jobs[1:3])
        rang |= new
    assert asyncio.run(bell.arang(0)) == set()
    bell.close()


def test_a_watch_may_turn_to_other_jobs(desk: Desk) -> None:
    first, second = desk.add(2)
    leases = {lease.job: lease for lease in desk.claim(2).leases}
    bell = desk.engine.watch([first])
    bell.add([second, second])
    bell.discard([first, first])
    quiet(bell)

    for lease in leases.values():
        desk.settle(lease, SUCCEEDED)

    assert asyncio.run(bell.arang(SOON)) == {second}
    bell.close()
