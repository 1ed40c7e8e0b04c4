"""Plans that the driver treats in a way of their own.

A plain `Plan` runs between BEGIN (sent along with its first statement) and COMMIT, so
it costs one round trip more than it has statements. One that only reads needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from backlane.engine.plan import Plan

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
TxT = TypeVar("TxT")


def _as_it_is(plan: Any) -> Any:
    return plan


class StepPlan(Plan[T]):
    """A plan whose statements are each atomic, so that none has to be undone for another.

    Most verbs are one statement: this saves them a round trip.
    """

    __slots__ = ()


class BeatPlan(StepPlan[T]):
    """What keeps leases and workers alive: a connection is kept for it."""

    __slots__ = ()


class QuickPlan(Plan[T]):
    """A plan with a shorter way that is tried before it; None says that it does not do."""

    __slots__ = ("quick",)

    def __init__(
        self,
        within: Callable[[Any], Coroutine[Any, Any, T]],
        quick: StepPlan[T | None] | None = None,
    ) -> None:
        super().__init__(within)
        self.quick = quick


class AppendPlan(QuickPlan[T], Generic[T]):
    """An append, which has a longer way in a caller's transaction.

    There `granting` runs first, in one of our own and given the caller's xid; of its
    answer `granted` makes the plan that runs in the caller's. Of several appends `merged`
    makes one that answers them all; `batch` is what it needs of each, `size` its jobs.
    """

    __slots__ = ("_merge", "batch", "granted", "granting", "size")

    def __init__(
        self,
        within: Callable[[Any], Coroutine[Any, Any, T]],
        *,
        quick: StepPlan[T | None] | None = None,
        granting: Callable[[int], Plan[Any]] | None = None,
        granted: Callable[[Any], Plan[T]] = _as_it_is,
        batch: Any = None,
        size: int = 1,
        merge: Callable[[Sequence[Any]], Plan[list[T]]] | None = None,
    ) -> None:
        super().__init__(within, quick)
        self.granting = granting
        self.granted = granted
        self.batch = batch
        self.size = size
        self._merge = merge

    @property
    def is_merged(self) -> bool:
        """Whether it may go together with others."""
        return self._merge is not None

    def merged(self, appends: Sequence[AppendPlan[T]]) -> Plan[list[T]]:
        """Return the plan that answers all of these, in their order."""
        if self._merge is None:
            raise TypeError("this append goes alone")
        return self._merge([one.batch for one in appends])


def step(
    verb: Callable[Concatenate[S, TxT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Plan[T]]:
    """Like `plan`, for a verb of one statement, or of some that are each atomic."""

    def bind(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Plan[T]:
        return StepPlan(lambda tx: verb(self, tx, *args, **kwargs))

    bind.__doc__, bind.__name__ = verb.__doc__, verb.__name__
    return bind


def beat(
    verb: Callable[Concatenate[S, TxT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Plan[T]]:
    """Like `step`, for a verb that has to come through when all connections are taken."""

    def bind(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Plan[T]:
        return BeatPlan(lambda tx: verb(self, tx, *args, **kwargs))

    bind.__doc__, bind.__name__ = verb.__doc__, verb.__name__
    return bind


def is_stepwise(plan: Plan[Any]) -> bool:
    """Whether a plan's statements need no transaction around them."""
    return plan.reads or isinstance(plan, StepPlan)
