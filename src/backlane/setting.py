"""Settings of an application, judged where they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from backlane.errors import BadOption
from backlane.middleware import Middleware
from backlane.model.clock import Clock
from backlane.model.queue import Bounds, Queue
from backlane.model.retry import Retry
from backlane.options import checked_items


def by_name(queues: Iterable[Queue]) -> dict[str, Queue]:
    """Return the queues of an application, or refuse what is none."""
    named: dict[str, Queue] = {}
    for queue in checked_items(queues, "queues", "Queue(…)"):
        if not isinstance(queue, Queue):
            raise BadOption(f"{queue!r} is not a queue; use Queue({str(queue)!r})")
        if queue.name in named:
            raise BadOption(f"queue {queue.name!r} is declared twice; declare it once")
        named[queue.name] = queue
    return named


def bounds_of(queues: Mapping[str, Queue]) -> dict[str, Bounds]:
    """Return what the code says of bounds; of others the engine knows its own default."""
    return {name: queue.bounds for name, queue in queues.items() if queue.is_bounded}


def checked_middleware(middleware: Iterable[Middleware]) -> list[Middleware]:
    """Return the middleware of an application, or refuse what is none."""
    given = list(checked_items(middleware, "middleware", "Middleware(…)"))
    for each in given:
        if not isinstance(each, Middleware):
            raise BadOption(
                f"{each!r} is not a middleware; say what it wraps: Middleware(attempt=…), "
                "Middleware(enqueue=…), or both"
            )
    return given


def check_settings(clock: Clock | None, retry: Retry, max_bytes: int) -> None:
    """Refuse settings that cannot work."""
    if clock is not None and not hasattr(clock, "wall_ms"):
        raise BadOption(f"clock is {clock!r}; use a clock, or leave it out for the machine's")
    if not isinstance(retry, Retry):
        raise BadOption(f"retry is {retry!r}; use Retry(attempts=…)")
    if type(max_bytes) is not int or max_bytes < 1:
        raise BadOption(f"max_bytes is {max_bytes!r}; use a whole number from 1")


def where(function: Callable[..., Any]) -> str:
    """Return where a function was written."""
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
