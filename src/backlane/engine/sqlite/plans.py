"""Plans that the writer treats in a way of their own: appends merge, settlements come first."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from backlane.engine.plan import Plan
from backlane.engine.protocol import Settled, Turn
from backlane.engine.sqlite.append import Answer, Batch
from backlane.model.outcome import Settlement

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
