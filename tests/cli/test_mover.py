"""The mover dies before and after each of its steps, and another one takes the move up.

In between the new store runs what it has, and forgets it as its history is pruned: then
nothing but the memory of the move keeps those jobs from coming a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.engine.contract import engines
from tests.engine.contract.desk import FAILED, SUCCEEDED, Desk

from backlane.cli.mover import Mover
from backlane.engine.memory import MemoryEngine
from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock
from backlane.model.job import Idempotency, Key


class Killed(BaseException):
    """The mover is no more."""


class Fuse:
    """Burns down with each step of a mover, before it or behind it."""

    def __init__(self, steps: int, *, is_before: bool) -> None:
        self.left, self.is_before = steps, is_before

    def burn(self, *, is_before: bool) -> None:
        if is_before is self.is_before:
            self.left -= 1
            if self.left < 0:
                raise Killed


class Mortal:
    """An engine as a mover has it that dies when the fuse has burnt down."""

    def __init__(self, engine: Engine, fuse: Fuse) -> None:
        self._engine, self._fuse = engine, fuse

    def run(self, plan: Plan[Any]) -> Any:
        self._fuse.burn(is_before=True)
        value = self._engine.run(plan)
        self._fuse.burn(is_before=False)
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


WAYS = [
    ("sqlite", "memory"),
    ("sqlite", "postgresql"),
    ("sqlite", "redis"),
    ("postgresql", "redis"),
    ("redis", "postgresql"),
    ("postgresql", "sqlite"),
]


@pytest.fixture(params=WAYS, ids="-".join)
def way(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Iterator[tuple[Desk, Desk]]:
    """An empty store, and an empty one to move its jobs to."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    makers = {maker.name: maker for maker in engines.MAKERS}
    source, target = request.param
    with (
        makers[source].opened(tmp_path / "old", clock) as old,
        makers[target].opened(tmp_path / "new", clock) as new,
    ):
        yield Desk(old, clock), Desk(new, clock, first=1_000)


def move(source: Desk, target: Desk, fuse: Fuse) -> None:
    engines: Any = [Mortal(it.engine, fuse) for it in (source, target)]
    mover = Mover(*engines, told=lambda _: None, number=2)
    mover.check()
    mover.seal()
    mover.wait(5)
    mover.hand_over(lambda _: None)


def worked(desk: Desk) -> list[bytes]:
    """Run what there is, and forget that it ran."""
    ran = []
    while leases := desk.claim(100, lane=None).leases:
        for lease in leases:
            desk.settle(lease, SUCCEEDED)
            ran.append(lease.job)
    desk.clock.advance(minutes=2)
    desk.sweep(done_ms=60_000)
    return ran


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "behind"])
def test_a_mover_may_die_at_each_of_its_steps(way, is_before) -> None:
    source, target = way
    source.add(7)
    source.add_one(key=Key("send", "7"))
    source.add_one(delay_ms=60_000)
    source.add_one(idempotency=Idempotency("me", "1", b"p", 90 * 86_400_000))
    dead = source.finished(FAILED)
    jobs = [it for it in source.found_ids() if it != dead]
    ran: list[bytes] = []
    for steps in range(1_000):
        fuse = Fuse(steps, is_before=is_before)
        try:
            move(source, target, fuse)
        except Killed:
            ran += worked(target)
            continue
        break
    ran += worked(target)

    assert steps > 15
    assert sorted(ran) == sorted(jobs)
    assert source.found_ids() == []
    assert target.found_ids() == [dead]


def test_each_step_alone_may_be_the_last(tmp_path: Path, clock: FakeClock) -> None:
    """One death a move, at each place in turn, where the one above dies at all in one move."""
    for is_before in (True, False):
        for steps in range(1_000):
            path = tmp_path / f"{is_before}-{steps}.db"
            with closing(SqliteEngine(path, clock=clock)) as engine:
                source, target = Desk(engine, clock), Desk(MemoryEngine(clock), clock, 1_000)
                jobs = source.add(5)
                try:
                    move(source, target, Fuse(steps, is_before=is_before))
                except Killed:
                    ran = worked(target)
                else:
                    break
                move(source, target, Fuse(1_000, is_before=True))
                ran += worked(target)
                assert sorted(ran) == sorted(jobs), (is_before, steps)
        assert steps > 20
