"""Plans: a verb written once, run over a sync or an async transaction.

A verb is an `async def` over an open transaction `tx` and awaits nothing else. On a
sync connection the methods of `tx` never suspend, so one `send(None)` runs the verb
to its end (`finish`); on an async one it is plain `await`. A plan can be started
again after a rollback, so it sets nothing outside: what it learns, it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Generic, LiteralString, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
TxT = TypeVar("TxT")


class Sql(Generic[R]):
    """A statement, typed by the rows it yields: `Sql[tuple[bytes, int]]("select …")`."""

    __slots__ = ("text",)

    def __init__(self, text: LiteralString) -> None:
        self.text: LiteralString = text


class Tx(Protocol):
    """An open transaction of a SQL engine. Its errors pass through a plan untouched."""

    async def rows(self, statement: Sql[R], *params: Any) -> list[R]:
        """Run a statement once and return all its rows."""

    async def each(self, statement: Sql[R], rows: Sequence[Sequence[Any]]) -> list[R]:
        """Run a statement for each row of parameters; return all rows of all runs."""


class Plan(Generic[T]):
    """A verb bound to its arguments. One plan is one transaction.

    `within(tx)` starts it, and may be called again after a rollback. A plan that
    `reads` writes nothing, so an engine may run it beside its writer.
    """

    __slots__ = ("reads", "within")

    def __init__(
        self, within: Callable[[Any], Coroutine[Any, Any, T]], *, reads: bool = False
    ) -> None:
        self.within = within
        self.reads = reads


def plan(
    verb: Callable[Concatenate[S, TxT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Plan[T]]:
    """Turn `async def verb(self, tx, …)` into `def verb(self, …) -> Plan`."""

    def bind(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Plan[T]:
        return Plan(lambda tx: verb(self, tx, *args, **kwargs))

    bind.__doc__, bind.__name__ = verb.__doc__, verb.__name__
    return bind


def reading(
    verb: Callable[Concatenate[S, TxT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Plan[T]]:
    """Like `plan`, for a verb that only reads."""

    def bind(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Plan[T]:
        return Plan(lambda tx: verb(self, tx, *args, **kwargs), reads=True)

    bind.__doc__, bind.__name__ = verb.__doc__, verb.__name__
    return bind


def finish(running: Coroutine[Any, Any, T]) -> T:
    """Run a verb over a sync transaction: one `send` brings it to its end.

    Raises:
        RuntimeError: it suspended, so it awaited something other than its transaction.
    """
    try:
        running.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    running.close()
    raise RuntimeError("a verb awaited something other than its transaction")
