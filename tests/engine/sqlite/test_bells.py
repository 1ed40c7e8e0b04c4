"""Bells of a file: sockets beside it, and what happens where they cannot be."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk

from backlane.engine.sqlite import SqliteEngine, bell
from backlane.model.clock import FakeClock


def names(path: Path) -> list[str]:
    return os.listdir(f"{path}-side/bells")


def test_a_closed_bell_leaves_no_file(engine: SqliteEngine, path: Path):
    hung = engine.listen(["mail"])
    assert len(names(path)) == 1

    hung.close()

    assert names(path) == []


def test_a_bell_that_nobody_hears_any_more_is_removed(desk: Desk, path: Path):
    hung = desk.engine.listen(["mail"])
    hung._socket.close()  # as a kill leaves it

    desk.add()

    assert names(path) == []


def test_rings_that_are_not_heard_stop_no_one(desk: Desk):
    hung = desk.engine.listen(["mail"])

    for _ in range(300):  # more than a socket takes
        desk.add()

    assert hung.heard(1)
    assert not hung.heard(0)
    hung.close()


def test_a_long_path_is_no_obstacle(tmp_path: Path, clock: FakeClock):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    engine = SqliteEngine(folder / "jobs.db", clock=clock)
    hung = engine.listen(["mail"])

    Desk(engine, clock).add()

    assert hung.heard(1)
    assert hung._socket is not None
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
