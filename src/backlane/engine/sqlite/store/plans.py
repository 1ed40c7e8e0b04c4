"""Plans that the writer treats in a way of their own.

Appends merge, settlements come first, and some commits need no sync of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from backlane.engine.admission import Answer, Batch
from backlane.engine.plan import Plan
from backlane.engine.protocol import Settled, Turn
from backlane.model.job import Lease, Note
from backlane.model.outcome import Settlement
from backlane.model.workflow import BEGAN_STEP

T = TypeVar("T")


class AppendPlan(Plan[Answer]):
    """An append, which may be carried out together with others."""

    __slots__ = ("batch",)

    def __init__(self, within: Callable[[Any], Coroutine[Any, Any, Answer]], batch: Batch) -> None:
        super().__init__(within)
        self.batch = batch


class SettlePlan(Plan[T]):
    """A settle, or the turn that begins with one.

    `alone` settles some of `settlements` again when they cannot be stored together;
    `claims` is then what is left of the turn.
    """

    __slots__ = ("alone", "claims", "settlements")

    def __init__(
        self,
        within: Callable[[Any], Coroutine[Any, Any, T]],
        settlements: Sequence[Settlement],
        alone: Callable[[Sequence[Settlement]], Plan[Settled]],
        claims: Plan[Turn] | None = None,
    ) -> None:
        super().__init__(within)
        self.settlements = settlements
        self.alone = alone
        self.claims = claims


class UnsyncedPlan(Plan[T]):
    """A plan whose commit need not be on the disk before it is answered."""

    __slots__ = ()

    def must_be_synced(self, _: T) -> bool:
        """Whether, given what it answers, it has to be all the same."""
        return False


class ReservePlan(UnsyncedPlan[int]):
    """A virtual clock that moves on; a power cut that takes it back ends who was told."""

    __slots__ = ()


class OfferPlan(UnsyncedPlan[T]):
    """Offers made or withdrawn: after a power cut jobs are named twice, and claimed once."""

    __slots__ = ()


class BeganPlan(UnsyncedPlan[list[bytes]]):
    """The note of when a slice began to append its leaves.

    It is only of use once one of them is stored, which takes a commit behind it: what
    makes that one safe makes the note safe too.
    """

    __slots__ = ()


class ClaimPlan(UnsyncedPlan[Turn]):
    """A turn of a worker that settles nothing.

    A power cut that takes it back ends every process
    that heard of it, and leaves the jobs ready as they were: the next claim repeats the
    same tokens, and nobody is left who holds the old ones. Only where a lease is the
    last execution its job may have must it be known after a power cut that it began.
    """

    __slots__ = ()

    def must_be_synced(self, turn: Turn) -> bool:
        return any(_is_last(lease) for each in turn.claimed for lease in each.leases)


def needs_no_sync(plan: Plan[Any]) -> bool:
    """Whether a plan's commit may be answered before it is on the disk.

    Leaves of a slice are remade: until the slice has settled that it waits for them, a power
    cut that takes them back lets it run again, and make them again. The settle that ends this
    syncs the log that they are in, and so does the settle of each leaf.
    """
    if isinstance(plan, AppendPlan):
        return plan.batch[1].remade
    return isinstance(plan, UnsyncedPlan)


def note_plan(
    notes: Sequence[Note], within: Callable[[Any], Coroutine[Any, Any, list[bytes]]]
) -> Plan[list[bytes]]:
    """Return a note as the plan that keeps it as safe as it has to be."""
    names = {step.name for note in notes for step in note.steps}
    return BeganPlan(within) if names == {BEGAN_STEP} else Plan(within)


def _is_last(lease: Lease) -> bool:
    return lease.attempt + 1 >= lease.policy.attempts
