"""Power losses while a map is made: its leaves are stored without a sync of their own."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk
from tests.engine.sqlite.disk import RecordingDisk, replay

from backlane.engine.protocol import Admission
from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock
from backlane.model.outcome import Awaiting

LEAVES = 40
REMADE = Admission(remade=True)


def made(folder: Path) -> tuple[RecordingDisk, int, int]:
    """Make leaves and wait for them; return also after how many events this and a leaf ended."""
    disk, clock = RecordingDisk(), FakeClock()
    desk = Desk(SqliteEngine(folder / "jobs.db", clock=clock, vfs=disk.name), clock)
    desk.add_one(body=b"slice")
    lease = desk.lease()

    before = len(disk.events)
    leaves = [desk.job(body=b"leaf", parent=lease.job) for _ in range(LEAVES)]
    desk.run(desk.engine.append(leaves, REMADE))
    assert "sync" not in {event.kind for event in disk.events[before:]}

    desk.settle(lease, Awaiting(tuple(leaf.id for leaf in leaves)))
    waiting = len(disk.events)
    desk.settle(desk.lease(), SUCCEEDED)
    return disk, waiting, len(disk.events)


def found(path: Path) -> tuple[int, int, int]:
    """Return how many leaves, waiting slices and ended jobs a file has."""
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        if not connection.table_exists("main", "backlane_blocked"):
            return 0, 0, 0
        return next(
            iter(
                connection.execute(
                    "select (select count(*) from backlane_job where parent is not null),"
                    " (select count(*) from backlane_blocked),"
                    " (select count(*) from backlane_finished)"
                )
            )
        )
    finally:
        connection.close()


@pytest.mark.parametrize("unsynced", ["none", "some"])
def test_a_slice_waits_for_leaves_only_if_all_of_them_are_there(
    quick_folder: Path, unsynced: str
) -> None:
    """All or none of them, and all once it waits, wherever the power fails."""
    (quick_folder / "live").mkdir()
    disk, waiting, ended = made(quick_folder / "live")
    image = quick_folder / "image"
    chance = random.Random(7) if unsynced == "some" else None

    seen = set()
    for number, platters in replay(disk.events):
        if not platters.get("jobs.db"):
            continue
        shutil.rmtree(image, ignore_errors=True)
        image.mkdir()
        for name, platter in platters.items():
            if not name.endswith("-shm"):
                (image / name).write_bytes(platter.after_power_loss(chance))
        leaves, blocked, finished = found(image / "jobs.db")
        seen.add((leaves, blocked, finished))
        assert leaves in (0, LEAVES)
        assert leaves == LEAVES or not blocked
        assert blocked or number < waiting
        assert finished or number < ended

    assert seen >= {(0, 0, 0), (LEAVES, 1, 0), (LEAVES, 1, 1)}
