"""Decorators: what `@app.task(…)` and `@app.schedule(…)` are to a type checker."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import CodeType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from backlane.context import Context
from backlane.task import Task

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Declare(Protocol):
    """What `@app.task(…)` is: a decorator that makes a task of a function."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> Task[P, R, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


# A task can be called as a function can; what tells them apart is that it has no code of its own.


class Plain(Protocol[P, R_co]):
    """A function."""

    __code__: CodeType

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class WithContext(Protocol[P, R_co]):
    """A function that wants a `Context` first."""

    __code__: CodeType

    def __call__(self, context: Context, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class DeclareScheduled(Protocol):
    """What `@app.schedule(…)` is: it takes a task, or makes one of a function."""

    @overload
    def __call__(self, function: Task[P, C, R], /) -> Task[P, C, R]: ...
    @overload
    def __call__(
        self, function: WithContext[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(
        self, function: Plain[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: WithContext[P, R], /) -> Task[P, R, R]: ...
    @overload
    def __call__(self, function: Plain[P, R], /) -> Task[P, R, R]: ...
