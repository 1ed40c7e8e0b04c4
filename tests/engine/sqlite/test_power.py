"""Power losses: whatever was acknowledged is found again, wherever the power fails.

All writes and syncs of a run are recorded. Then, for many points of it, the files are
put together as a disk would show them after losing power there, opened, and compared
with what had been acknowledged by then. `BACKLANE_PROVE=1` tries thousands of points.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest
from tests.engine.contract.desk import SUCCEEDED, Desk, retry, settlement
from tests.engine.sqlite.disk import RecordingDisk, replay

from backlane.engine.protocol import Wanted
from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock
from backlane.model.job import DEFAULT_POLICY, Lease, Policy

CUTS = 5_000 if os.environ.get("BACKLANE_PROVE") else 150


@dataclass
class Run:
    """What was written, and what was acknowledged after how many events."""

    disk: RecordingDisk
    appended: list[tuple[int, bytes]] = field(default_factory=list)
    finished: list[tuple[int, bytes]] = field(default_factory=list)
    begun: list[tuple[int, bytes]] = field(default_factory=list)  # their only execution


def run(folder: Path, durability: str, turns: int) -> Run:
    """Appends, turns and checkpoints on a recorded disk."""
    made = Run(RecordingDisk())
    clock = FakeClock()
    engine = SqliteEngine(
        folder / "jobs.db", clock=clock, durability=durability, vfs=made.disk.name
    )
    desk = Desk(engine, clock)
    leases: list[Lease] = []
    for turn in range(turns):
        policy = Policy(attempts=1) if turn % 3 == 0 else DEFAULT_POLICY
        jobs = desk.add(1 + turn % 7, body=b"x" * (turn * 37 % 900), policy=policy)
        made.appended += [(len(made.disk.events), job) for job in jobs]
        settled = leases[: len(leases) // 2]
        put_off = leases[len(leases) // 2 :]
        engine.run(
            engine.settle(
                [settlement(lease, SUCCEEDED) for lease in settled]
                + [settlement(lease, retry(1)) for lease in put_off]
            )
        )
        made.finished += [(len(made.disk.events), lease.job) for lease in settled]
        clock.advance(seconds=2)
        leases = claim(engine)
        made.begun += [
            (len(made.disk.events), lease.job) for lease in leases if lease.policy.attempts == 1
        ]
        if turn % 10 == 9:
            engine._process.handles().checkpointer.copy()
    # Not closed: closing would empty the log.
    return made


def claim(engine: SqliteEngine) -> list[Lease]:
    """Claim as an idle worker does, whose commit is synced only where it must be."""
    wanted = Wanted(owner="ann", number=5, lease_ms=60_000, queues=("mail",))
    return engine.run(engine.turn((), [wanted])).claimed[0].leases


def cuts(number_of_events: int, number: int) -> list[int]:
    step = max(1, number_of_events // number)
    return list(range(1, number_of_events + 1, step))


def losses(run: Run, folder: Path, points: Sequence[int], chance: random.Random | None) -> int:
    """Return how many acknowledged jobs were missing in all images together."""
    wanted = set(points)
    lost = 0
    for number, platters in replay(run.disk.events):
        if number not in wanted:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, platter in platters.items():
            if not name.endswith("-shm"):
                (folder / name).write_bytes(platter.after_power_loss(chance))
        lost += missing(run, folder / "jobs.db", number)
    return lost


def missing(run: Run, path: Path, number: int) -> int:
    appended = {job for when, job in run.appended if when <= number}
    finished = {job for when, job in run.finished if when <= number}
    begun = {job for when, job in run.begun if when <= number}
    if not appended and not path.exists():
        return 0
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        if not connection.table_exists("main", "backlane_job"):
            return len(appended)
        found = {row[0] for row in connection.execute("select id from backlane_job")}
        done = {
            row[0]
            for row in connection.execute(
                "select id from backlane_job join backlane_finished using (seq)"
            )
        }
        ready = {
            row[0]
            for row in connection.execute(
                "select id from backlane_job join backlane_ready using (seq)"
            )
        }
    finally:
        connection.close()
    return len(appended - found) + len(finished - done) + len(begun & ready)


@pytest.mark.parametrize("unsynced", ["none", "some"])
def test_nothing_acknowledged_is_lost_wherever_the_power_fails(
    quick_folder: Path, unsynced: str, record_property: Callable[[str, object], None]
):
    (quick_folder / "live").mkdir()
    made = run(quick_folder / "live", "full", turns=60 if CUTS < 1_000 else 300)
    points = cuts(len(made.disk.events), CUTS)

    chance = random.Random(7) if unsynced == "some" else None
    lost = losses(made, quick_folder / "image", points, chance)
    told = f"power cuts={len(points)} acknowledged={len(made.appended)} lost={lost}"
    record_property("figure", told)

    assert len(points) >= min(CUTS, 150)
    assert lost == 0


def test_this_proof_would_see_a_loss(quick_folder: Path):
    """With the weaker durability acknowledged jobs do vanish, or nothing was proved."""
    (quick_folder / "live").mkdir()
    made = run(quick_folder / "live", "normal", turns=30)

    lost = losses(made, quick_folder / "image", cuts(len(made.disk.events), 60), None)

    assert lost > 0
