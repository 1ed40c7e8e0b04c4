"""The mover: carries a live system from one store to another, and may be killed anywhere.

The old store is sealed, what runs there ends, then settings and jobs go over slice by
slice: read here, stored there, forgotten here. A job is in both stores between two of
these steps and nobody runs it in the sealed one; whoever takes the move up again hands
over the same slice, and the new store knows which jobs it had (`Moving.restore`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TypeVar

from msgspec.structs import replace

from backlane.engine.moving import Part, Seal
from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine, Wanted
from backlane.engine.selection import Selection
from backlane.errors import (
    EngineUnavailable,
    OutcomeUnknown,
    SchemaMismatch,
    StoreCorrupt,
    StoreFull,
    WrongUse,
)
from backlane.model.backoff import full_jitter
from backlane.model.job import State

SLICE = 1_000  # jobs that are handed over at once
LOOK_SECONDS = 0.2  # between two looks at what still runs
AWAY_SECONDS = 30.0  # that a store may be away, as while its server is started anew
NAMED = 5  # running jobs that are named


T = TypeVar("T")


def stubborn(engine: Engine, plan: Plan[T]) -> T:
    """Carry a step out, again and again while the store is away: each may be done twice.

    Raises:
        EngineUnavailable, OutcomeUnknown: it is away for too long.
        StoreFull, StoreCorrupt, SchemaMismatch: trying again would not help.
    """
    until, tries = time.monotonic() + AWAY_SECONDS, 0
    while True:
        try:
            return engine.run(plan)
        except (StoreFull, StoreCorrupt, SchemaMismatch):
            raise
        except (EngineUnavailable, OutcomeUnknown):
            tries += 1
            pause = full_jitter(tries, random.random(), cap=2.0)  # noqa: S311 - spread, not secrecy
            if time.monotonic() + pause >= until:
                raise
            time.sleep(pause)


class StillRunning(WrongUse):
    """Jobs of the old store run for longer than the move was to wait."""


@dataclass(slots=True)
class Moved:
    """What a move has brought over, in this run of it."""

    jobs: int = 0
    ended: int = 0  # of history: failed ones, or all
    keys: int = 0  # idempotency keys
    left: int = 0  # jobs that could not be read and stay behind


class Mover:
    """One move from `source` to `target`.

    Args:
        final: the states of history that are moved too.
        told: called with what happens next, for people.
        number: how many jobs are handed over at once.
    """

    def __init__(
        self,
        source: Engine,
        target: Engine,
        *,
        final: Sequence[State] = (State.FAILED,),
        told: Callable[[str], None],
        number: int = SLICE,
    ) -> None:
        self.moved = Moved()
        self._source, self._target = source, target
        self._final, self._number = final, number
        self._told = told
        self._seal = Seal(target.url)

    # -- before anything is changed --

    def check(self) -> None:
        """Look whether the move can be made; nothing is changed.

        Raises:
            WrongUse: it cannot; says why and what can be done.
            EngineUnavailable: one of the stores does not answer, or has no tables yet.
        """
        source, target = self._source, self._target
        if source.url == target.url:
            raise WrongUse(f"{source.url} is named twice: a store cannot be moved to itself")
        there = target.run(target.sealed())
        here = source.run(source.sealed())
        if here is not None and here.to != target.url:
            if here.is_done:
                raise WrongUse(f"{source.url} was moved to {here.to}: move that store instead")
            raise WrongUse(
                f"{source.url} is being moved to {here.to}: name that store, or give the move up "
                f"with `{_command(source.url, here.to)} --back`"
            )
        if there is not None and not there.is_done:
            raise WrongUse(f"{target.url} itself is being moved to {there.to}: finish that first")
        if there is not None and here is not None and here.is_done:
            raise WrongUse(f"all of {source.url} was moved, and {target.url} on to {there.to}")
        kinds = {queue.name: queue.kind for queue in target.run(target.list_queues())}
        for queue in source.run(source.list_queues()):
            if kinds.get(queue.name, queue.kind) is not queue.kind:
                raise WrongUse(
                    f"queue {queue.name!r} holds {queue.kind} in {source.url} and "
                    f"{kinds[queue.name]} in {target.url}: use another store, schema or namespace"
                )

    # -- the steps --

    def seal(self) -> None:
        """Close the old store for new jobs and for claims, or take a begun move up again.

        Raises:
            WrongUse: both names are those of one store.
        """
        source, target = self._source, self._target
        before = source.run(source.sealed())
        began = before or Seal(target.url, move=os.urandom(16))
        self._seal = replace(began, mover=os.urandom(8))
        stubborn(source, source.seal(self._seal))
        there = target.run(target.sealed())
        if there is not None and there.mover == self._seal.mover:
            source.run(source.seal(before))
            raise WrongUse(f"{source.url} and {target.url} are the same store")
        if before is None:
            self._told(f"{source.url} takes no new jobs and gives none; what runs goes on")
        elif before.is_done:
            self._told(f"{source.url} was moved to {target.url}; looking once more")
        else:
            self._told(f"the move of {source.url} to {target.url} is taken up again")

    def wait(self, grace: float) -> None:
        """Wait for running jobs to end; the leases of dead workers lapse meanwhile.

        Raises:
            StillRunning: some run for longer than `grace` seconds; the store stays sealed.
        """
        until = time.monotonic() + grace
        was_told = False
        while running := self._running():
            if time.monotonic() >= until:
                raise StillRunning(self._still(running))
            if not was_told:
                was_told = True
                self._told(f"waiting up to {grace:g} s for {running:,} running jobs to end")
            time.sleep(LOOK_SECONDS)

    def hand_over(self, advance: Callable[[int], None]) -> None:
        """Move settings and jobs, mark the old store as moved, and look a second time.

        `advance` is called with the number of waiting jobs that went over.

        Until it is marked, work born inside a job is taken in there; so what came in
        between the first look and the mark is found by the second.
        """
        source, target = self._source, self._target
        if not self._seal.has_settings:
            stubborn(target, target.restore_settings(stubborn(source, source.dump_settings())))
            self._mark(replace(self._seal, has_settings=True))
        self._move_jobs(advance)
        if not self._seal.is_done:
            # Before the mark: a store that is sealed behind it was moved on since.
            if stubborn(target, target.sealed()) is not None:
                stubborn(target, target.seal(None))
            self._mark(replace(self._seal, is_done=True))
            self._move_jobs(advance)
        stubborn(target, target.restore(Part(), self._seal.move))
        self.moved.left = sum(queue.depth.jobs for queue in stubborn(source, source.list_queues()))

    def _move_jobs(self, advance: Callable[[int], None]) -> None:
        source, target, cursor = self._source, self._target, None
        while True:
            part = stubborn(source, source.dump(self._number, cursor, final=self._final))
            if part.jobs or part.repeats:
                self._check_mover()
                stubborn(target, target.restore(part, self._seal.move))
                jobs = [(whole.record.id, whole.record.revision) for whole in part.jobs]
                stubborn(source, source.discard(jobs))
                self._count(part)
                advance(sum(not whole.record.state.is_final for whole in part.jobs))
            cursor = part.cursor
            if cursor is None:
                return

    def _count(self, part: Part) -> None:
        self.moved.jobs += len(part.jobs)
        self.moved.ended += sum(whole.record.state.is_final for whole in part.jobs)
        self.moved.keys += len(part.repeats)

    def _mark(self, seal: Seal) -> None:
        self._check_mover()
        stubborn(self._source, self._source.seal(seal))
        self._seal = seal

    def _check_mover(self) -> None:
        """Stop where somebody else has taken the move up, or given it up.

        Raises:
            WrongUse: so it is.
        """
        seal = stubborn(self._source, self._source.sealed())
        if seal is None or seal.mover != self._seal.mover:
            raise WrongUse(
                f"another `backlane move` has taken over the move of {self._source.url}, or has "
                "given it up: this one stops, and nothing is lost"
            )

    # -- giving up --

    def open_again(self) -> None:
        """Open the old store again, as long as nothing has gone over.

        Raises:
            WrongUse: it is not being moved, or something has gone over.
        """
        source, to = self._source, self._target.url
        seal = source.run(source.sealed())
        if seal is None:
            raise WrongUse(f"{source.url} is not being moved; there is nothing to give up")
        if seal.has_settings:
            raise WrongUse(
                f"jobs of {source.url} are in {seal.to} already: finish with "
                f"`{_command(source.url, to)}`, then move all of it back with "
                f"`{_command(to, source.url)}`"
            )
        source.run(source.seal(None))

    # -- what runs --

    def _running(self) -> int:
        """Return how many jobs run; those of dead workers are brought back."""
        source = self._source
        departed = asyncio.run(source.departed())
        wanted = Wanted("move", 0, 1_000, departed=departed)
        stubborn(source, source.claim(wanted))
        return sum(queue.depth.running for queue in stubborn(source, source.list_queues()))

    def _still(self, running: int) -> str:
        source, to = self._source, self._target.url
        page = source.run(source.find(Selection(states=(State.RUNNING,)), NAMED))
        named = ", ".join(
            f"{uuid.UUID(bytes=it.id)} ({it.task or 'message'})" for it in page.records
        )
        return (
            f"{running:,} jobs still run: {named}; {source.url} stays sealed. Wait for them with "
            f"the same command, stop them with `backlane jobs cancel ID --url "
            f"{quote(source.url)}`, or give up with `{_command(source.url, to)} --back`"
        )


def _command(source: str, target: str) -> str:
    """Return the command of a move, as a shell takes it; who needs a password adds it."""
    return f"backlane move {quote(source)} {quote(target)}"
