"""Errands: plans of the ledger's that a transport has to do with, before or after.

What is taken from the stock, or told to the relay, belongs to one carrying out of a
plan, and a plan may be carried out more than once: so an errand begins a new `Step`
each time. Within somebody else's transaction it is the ledger's plan and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from backlane.engine.plan import Plan
from backlane.engine.protocol import Wanted

T = TypeVar("T")


@dataclass(slots=True)
class Step(Generic[T]):
    """One carrying out: the plan for the ledger, and what comes after it."""

    plan: Plan[T]
    end: Callable[[T], T]  # it was done: the value to return
    undo: Callable[[], None]  # it was not, or nobody knows


class Errand(Plan[T]):
    """A plan of the ledger's with something around it."""

    __slots__ = ("begin", "plain", "wanted")

    def __init__(
        self, plain: Plan[T], begin: Callable[[], Step[T]], wanted: Wanted | None = None
    ) -> None:
        super().__init__(plain.within, reads=plain.reads)
        self.plain = plain
        self.begin = begin
        self.wanted = wanted  # what is to have arrived before, if it is on its way


def plain(plan: Plan[T]) -> Plan[T]:
    """Return the ledger's own plan of one."""
    return cast("Plan[T]", plan.plain) if isinstance(plan, Errand) else plan
