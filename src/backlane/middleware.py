"""Middleware: what wraps an enqueue or an attempt, in one signature.

    async def timed(call: Call, next: Next) -> object:
        started = time.perf_counter()
        try:
            return await next(call)
        finally:
            print(call.task, time.perf_counter() - started)

    app = Backlane(url, middleware=[Middleware(attempt=timed)])

The same function serves plain and async tasks. Where nothing can wait (around a plain
function, in `enqueue`, in both bulk forms) it may await `next` and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from backlane.context import Context
from backlane.errors import BadOption, WrongUse


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a middleware wraps: one call on its way into a queue, or out of it.

    `context` is None at an enqueue. At an attempt `args` are without the context.
    """

    task: str
    queue: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    headers: Mapping[str, str] = {}
    context: Context | None = None

    def with_headers(self, more: Mapping[str, str]) -> Call:
        """Return this call with further headers; at an enqueue they travel with the job."""
        return msgspec.structs.replace(self, headers={**self.headers, **more})


Next = Callable[[Call], Awaitable[Any]]
Wrap = Callable[[Call, Next], Coroutine[Any, Any, Any]]


class Middleware(msgspec.Struct, frozen=True):
    """What to wrap: enqueues, attempts, or both. The first one given is the outermost.

    `next(call)` returns the `JobHandle` at an enqueue, the function's value at an
    attempt. Not calling `next` skips the enqueue or the function; raising fails it.

    .. versionadded:: 0.1
    """

    enqueue: Wrap | None = None
    attempt: Wrap | None = None

    def __post_init__(self) -> None:
        for wrap in (self.enqueue, self.attempt):
            if wrap is not None and not callable(wrap):
                raise BadOption(
                    f"{wrap!r} is not a function; pass an `async def` that takes (call, next)"
                )


def compose(wraps: Sequence[Wrap], last: Next) -> Next:
    """Return one callable that passes through all `wraps` to `last`; with none, `last`."""
    for wrap in reversed(wraps):
        last = _bound(wrap, last)
    return last


def _bound(wrap: Wrap, following: Next) -> Next:
    def step(call: Call) -> Coroutine[Any, Any, Any]:
        return wrap(call, following)

    return step


Steps = Generator[Any, Any, Any]


def drive(running: Awaitable[Any]) -> Any:
    """Run a composed call to its end where nothing can wait, and return its value.

    Raises:
        WrongUse: a middleware awaited something other than `next`.
    """
    return _resume(running.__await__(), None)


class Stored:
    """Where a call of a bulk waits, inside its middleware, until all are stored."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Stored, Any, Any]:
        return (yield self)


class Bulk:
    """Many calls inside their middleware at once, so that one append stores them all.

    Each call runs up to its `Stored`; after the append each goes on with its answer.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Steps] = []

    def enter(self, running: Awaitable[Any]) -> Any:
        """Run one call to where it is to be stored, and return what its `Stored` holds.

        Raises:
            WrongUse: a middleware did not come to `next`, or awaited something else.
        """
        steps = running.__await__()
        try:
            reached = next(steps)
        except StopIteration:
            raise WrongUse(
                "a middleware around an enqueue ended without calling next; in a bulk every "
                "call must reach it, or raise"
            ) from None
        if not isinstance(reached, Stored):
            _refuse(steps)
        self._waiting.append(steps)
        return reached.value

    def leave(self, answers: Sequence[Any]) -> list[Any]:
        """Let each call go on with its answer, in order, and return what came of each.

        All go on, also behind one that raises, because all are stored; then the first
        error is raised.
        """
        waiting, self._waiting = self._waiting, []
        came: list[Any] = []
        first: BaseException | None = None
        for steps, answer in zip(waiting, answers, strict=True):
            try:
                came.append(_resume(steps, answer))
            except BaseException as error:  # noqa: BLE001 - raised below, once all went on
                first = first or error
        if first is not None:
            raise first
        return came

    def fail(self, error: BaseException) -> None:
        """Raise `error` in every call that waits; what they make of it is dropped."""
        waiting, self._waiting = self._waiting, []
        for steps in waiting:
            try:
                steps.throw(error)
            except BaseException:  # noqa: BLE001, S112 - the caller raises the cause
                continue
            steps.close()


def _resume(steps: Steps, answer: Any) -> Any:
    try:
        steps.send(answer)
    except StopIteration as done:
        return done.value
    return _refuse(steps)


def _refuse(steps: Steps) -> NoReturn:
    steps.close()
    raise WrongUse(
        "a middleware awaited something other than `next` where nothing can wait: around a "
        "plain function, in `enqueue` or in a bulk. Do that part without awaiting, or declare "
        "the task `async def` and use `aenqueue`"
    )
