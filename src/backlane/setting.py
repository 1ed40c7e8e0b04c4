"""Settings of an application, judged where they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from backlane.errors import BadOption, UnknownQueue, WrongUse, nearest
from backlane.middleware import Middleware
from backlane.model.clock import Clock
from backlane.model.queue import Bounds, Queue, checked_name
from backlane.model.retry import Retry
from backlane.needs import check_queue
from backlane.options import checked_items
from backlane.place import Place


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


class Queues:
    """The queues of an application: those it declares, or names where it declares none."""

    def __init__(self, declared: Iterable[Queue], place: Place, default: str) -> None:
        self.named = by_name(declared)
        self.messages: set[str] = set()  # those of messages, of which workers know nothing
        self.is_closed = bool(self.named)
        for queue in self.named.values():
            check_queue(place, queue)
        self.named.setdefault(default, Queue(default))

    @property
    def of_tasks(self) -> dict[str, Queue]:
        named = list(self.named.items())
        return {name: queue for name, queue in named if name not in self.messages}

    def for_tasks(self, name: str) -> Queue:
        """Return a queue for tasks by its name.

        Raises:
            WrongUse: it holds messages.
            UnknownQueue: queues were declared, and it is not among them.
        """
        checked_name(name, "queue")
        if name in self.messages:
            raise WrongUse(
                f"queue {name!r} holds messages, and a queue holds tasks or messages; "
                "name another one"
            )
        return self.known(name)

    def known(self, name: str) -> Queue:
        """Return a queue by its name; see `for_tasks`."""
        queue = self.named.get(name)
        if queue is not None:
            return queue
        if self.is_closed:
            raise UnknownQueue(
                f"no queue {name!r} is declared{nearest(str(name), self.named)}; declared are "
                f"{', '.join(self.named)}: add Queue({name!r}) to `queues`"
            )
        return self.named.setdefault(name, Queue(name))


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
