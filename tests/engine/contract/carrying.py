"""Carrying: the steps of a move in few words, for tests that read as sentences."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from tests.engine.contract.desk import Desk

from backlane.engine.moving import Part, Seal, Whole
from backlane.model.job import FINAL, State

SEAL = Seal("sqlite:///new.db", move=b"m", mover=b"1")
DONE = Seal("sqlite:///new.db", move=b"m", mover=b"1", is_done=True)
ENDED = tuple(FINAL)


def seal(desk: Desk, given: Seal | None = SEAL) -> Seal | None:
    return desk.run(desk.engine.seal(given))


def parts(desk: Desk, limit: int = 1_000, final: Sequence[State] = ()) -> list[Part]:
    """All parts of a dump."""
    found, cursor = [], None
    while True:
        part = desk.run(desk.engine.dump(limit, cursor, final=final))
        found.append(part)
        cursor = part.cursor
        if cursor is None:
            return found


def dumped(desk: Desk, final: Sequence[State] = ()) -> list[Whole]:
    return [whole for part in parts(desk, final=final) for whole in part.jobs]


def restore(desk: Desk, jobs: Sequence[Whole], move: bytes = b"m") -> list[bytes]:
    return desk.run(desk.engine.restore(Part(list(jobs)), move))


def discard(desk: Desk, jobs: Sequence[Whole]) -> list[bytes]:
    return desk.run(desk.engine.discard([(it.record.id, it.record.revision) for it in jobs]))


def move(pair: tuple[Desk, Desk], final: Sequence[State] = ()) -> None:
    """Move all that may be moved."""
    source, target = pair
    seal(source)
    target.run(target.engine.restore_settings(source.run(source.engine.dump_settings())))
    for part in parts(source, final=final):
        target.run(target.engine.restore(part, b"m"))
        assert discard(source, part.jobs) == []


def wire(whole: Whole) -> Whole:
    """A whole job as it comes out of an encoding."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Whole)
