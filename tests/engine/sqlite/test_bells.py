"""Bells of a file: sockets beside it, and what happens where they cannot be."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk

from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.bells import bell
from backlane.engine.sqlite.bells.wants import MOST
from backlane.model.clock import FakeClock


def names(path: Path) -> list[str]:
    return os.listdir(f"{path}-side/bells")


def test_all_bells_of_a_process_share_one_socket(desk: Desk, path: Path):
    jobs = desk.add(300)
    bells = [desk.engine.watch([job]) for job in jobs] + [desk.engine.listen(["mail"])]

    assert len(names(path)) == 2  # the socket, and what it wants

    for hung in bells:
        hung.close()


def test_a_closed_engine_leaves_no_file(engine: SqliteEngine, path: Path):
    hung = engine.listen(["mail"])
    hung.close()

    engine.close()

    assert names(path) == []


def test_a_bell_outlives_the_close_of_its_engine(desk: Desk, path: Path):
    hung = desk.engine.listen(["mail"])
    desk.engine.close()

    desk.add()
    has_rung = hung.heard(1)
    hung.close()

    assert (has_rung, names(path)) == (True, [])


def test_an_ear_that_nobody_has_any_more_is_removed(desk: Desk, path: Path):
    hung = desk.engine.listen(["mail"])
    hung._ear._socket.close()  # as a kill leaves it

    desk.add()

    assert names(path) == []


def test_a_process_that_begins_to_listen_removes_what_dead_ones_left(desk: Desk, path: Path):
    desk.engine.watch([desk.new_id()]).close()
    desk.engine._process.handles().belfry._ear._socket.close()
    left = names(path)
    desk.engine._process.handles().belfry._ear = None

    hung = desk.engine.listen(["mail"])

    assert not set(left) & set(names(path))
    hung.close()


def test_nobody_is_told_of_what_he_does_not_listen_for(desk: Desk):
    mine, other = desk.add(2)
    hung = desk.engine.watch([mine])
    belfry = desk.engine._process.handles().belfry
    sent: list[bytes] = []
    belfry._send = lambda _, message: sent.append(message)

    leases = {lease.job: lease for lease in desk.claim().leases}
    desk.settle(leases[other], SUCCEEDED)
    desk.settle(leases[mine], SUCCEEDED)

    assert sent == [b"\1" + mine]
    hung.close()


def test_more_names_than_a_byte_can_count_are_heard_on(desk: Desk):
    start = desk.new_id()[:12]
    same_end = [start + at.to_bytes(2) + b"ab" for at in range(MOST + 10)]
    hung = desk.engine.watch(same_end)
    hung.discard(same_end[1:])
    desk.append(desk.job(id=same_end[0]))

    desk.settle(desk.lease(), SUCCEEDED)

    assert hung.heard(1)
    hung.close()


def test_rings_that_are_not_heard_stop_no_one(desk: Desk):
    hung = desk.engine.listen(["mail"])

    for _ in range(300):  # more than a socket takes
        desk.add()

    assert hung.heard(1)
    assert not hung.heard(0)
    hung.close()


def test_what_a_full_socket_lost_rings_all_the_same(desk: Desk):
    jobs = desk.add(400)
    bells = {job: desk.engine.watch([job]) for job in jobs}

    for lease in desk.claim(400).leases:
        desk.settle(lease, SUCCEEDED)

    assert all(hung.heard(0) for hung in bells.values())
    for hung in bells.values():
        hung.close()


def test_threads_and_loops_hear_with_one_ear(desk: Desk):
    """Whoever takes a datagram in hands it on to all others."""
    jobs = desk.add(60)
    leases = {lease.job: lease for lease in desk.claim(60).leases}
    bells = {job: desk.engine.watch([job]) for job in jobs}
    rang: dict[bytes, bool] = {}

    def sleep(job: bytes) -> None:
        rang[job] = bells[job].heard(10)

    def loop(mine: list[bytes]) -> None:
        async def wait(job: bytes) -> None:
            rang[job] = await bells[job].aheard(10)

        async def all_of_them() -> None:
            await asyncio.gather(*(wait(job) for job in mine))

        asyncio.run(all_of_them())

    threads = [threading.Thread(target=sleep, args=(job,)) for job in jobs[:20]]
    threads += [threading.Thread(target=loop, args=(jobs[at : at + 20],)) for at in (20, 40)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for job in jobs:
        desk.settle(leases[job], SUCCEEDED)
    for thread in threads:
        thread.join(10)

    assert all(rang[job] for job in jobs)
    assert time.monotonic() - began < 5
    for hung in bells.values():
        hung.close()


def test_a_thread_that_leaves_lets_another_wait_for_the_socket(desk: Desk):
    """One thread waits at the socket for all; when its own bell rings, the next takes over."""
    jobs = desk.add(30)
    leases = {lease.job: lease for lease in desk.claim(30).leases}
    bells = {job: desk.engine.watch([job]) for job in jobs}
    heard: dict[bytes, float] = {}

    def sleep(job: bytes) -> None:
        if bells[job].heard(20):
            heard[job] = time.monotonic()

    threads = [threading.Thread(target=sleep, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
        time.sleep(0.002)  # so that they stand in line as the jobs do
    rung: dict[bytes, float] = {}
    for job in jobs:
        rung[job] = time.monotonic()
        desk.settle(leases[job], SUCCEEDED)
        time.sleep(0.01)
    for thread in threads:
        thread.join(20)

    assert max(heard[job] - rung[job] for job in jobs) < 1
    for hung in bells.values():
        hung.close()


def test_a_forked_child_hears_with_an_ear_of_its_own(desk: Desk, path: Path):
    hung = desk.engine.listen(["mail"])
    parents = set(names(path))
    child = os.fork()
    if not child:
        try:
            mine = desk.engine.listen(["mail"])
            is_own = not parents & (set(names(path)) - parents) and len(names(path)) == 4
            desk.add()
            os._exit(0 if is_own and mine.heard(5) else 1)
        finally:
            os._exit(2)

    _, status = os.waitpid(child, 0)
    has_rung = hung.heard(1)
    hung.close()

    assert (status, has_rung) == (0, True)


def test_a_long_path_is_no_obstacle(tmp_path: Path, clock: FakeClock):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    engine = SqliteEngine(folder / "jobs.db", clock=clock)
    hung = engine.listen(["mail"])

    Desk(engine, clock).add()

    assert hung.heard(1)
    assert hung._ear.is_socket
    hung.close()
    engine.close()


@pytest.fixture
def without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell.Belfry, "_address", lambda *_: "/dev/null/bell")


def test_without_sockets_a_bell_looks_at_the_file(desk: Desk, without_sockets: None):
    hung = desk.engine.listen(["mail"])
    assert not hung.heard(0.01)

    desk.add()

    assert hung.heard(1)
    assert not hung.heard(0.01)
    hung.close()


def test_without_sockets_coroutines_hear_too(desk: Desk, without_sockets: None):
    hung = desk.engine.watch([desk.new_id()])

    async def listen() -> bool:
        hearing = asyncio.create_task(hung.aheard(2))
        await asyncio.sleep(0)
        desk.add()
        return await hearing

    assert asyncio.run(listen())
    hung.close()


def test_a_watch_of_one_job_hears_no_other(desk: Desk):
    mine, other = desk.add(2)
    hung = desk.engine.watch([mine])
    leases = {lease.job: lease for lease in desk.claim().leases}
    while hung.heard(0):
        pass

    desk.settle(leases[other], SUCCEEDED)
    rang_for_other = hung.heard(0.01)
    desk.settle(leases[mine], SUCCEEDED)
    rang_for_mine = hung.heard(1)
    hung.close()

    assert (rang_for_other, rang_for_mine) == (False, True)


def test_a_watch_of_thousands_is_rung_in_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bell, "DATAGRAM_JOBS", 2)
    jobs = desk.add(5)
    hung = desk.engine.watch([jobs[4], desk.new_id()])
    leases = desk.claim().leases
    while hung.heard(0):
        pass

    desk.engine.run(desk.engine.settle([type(s)(*s) for s in ()]))
    for lease in leases:
        desk.settle(lease, SUCCEEDED)

    assert hung.heard(1)
    hung.close()
