"""Declarations: a function and its options, judged once, where they are written.

What cannot run in another process, or cannot work as asked, is refused here with the
reason, so that nothing of it is first met by a worker at night.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import FunctionType
from typing import Any

import msgspec
from msgspec.structs import replace

from backlane.context import Context
from backlane.errors import BadOption
from backlane.model.job import Policy
from backlane.model.limiting import Limit, checked_limit, known_limit
from backlane.model.queue import Queue, RunsIn, checked_name
from backlane.model.retry import Duration, Retry, milliseconds
from backlane.model.workflow import OWN_TASKS
from backlane.options import TaskOptions, checked_items, checked_priority, checked_tags
from backlane.retention import keep_ms
from backlane.unique import Unique, checked_unique

_FIRST = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)

KILL_AFTER_MS = 5_000  # from the soft end of a timeout to the hard one, unless both are given


Limits = tuple[tuple[str, Limit], ...]  # that the jobs of a task are under, by name


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """A function that may become a task, and what its options come to."""

    function: Callable[..., Any]
    name: str
    queue: str
    is_async: bool
    takes_context: bool
    runs_in: RunsIn
    priority: int
    retry: Retry
    policy: Policy
    expires_ms: int | None
    keeps_result: bool
    resource: str | None = None
    limits: Limits = ()
    unique: Unique | None = None
    tags: tuple[str, ...] = ()


def declare(
    function: object,
    options: TaskOptions,
    queue: Queue,
    retry: Retry,
    limits: Mapping[str, Limit],
) -> Declaration:
    """Judge a function and its options; `queue` and `retry` are what applies to it.

    `limits` are those that it may name.

    Raises:
        BadOption: the function cannot be a task, or an option cannot work.
        UnknownLimit: it names a limit that is not declared.
    """
    plain = _checked_function(function)
    name = options.get("name")
    name = _default_name(plain) if name is None else checked_name(name, "task")
    if name in OWN_TASKS:
        raise BadOption(f"a task {name!r} is our own: workflows are made of it; use another name")
    is_async = inspect.iscoroutinefunction(plain)
    retry = options.get("retry", retry)
    if not isinstance(retry, Retry):
        raise BadOption(f"task {name!r}: retry is {retry!r}; use Retry(attempts=…)")
    keeps_result = options.get("keep_result", True)
    if not isinstance(keeps_result, bool):
        raise BadOption(f"task {name!r}: keep_result is {keeps_result!r}; use True or False")
    expires, resource = options.get("expires"), options.get("resource")
    return Declaration(
        function=plain,
        name=name,
        queue=queue.name,
        is_async=is_async,
        takes_context=_takes_context(plain, name),
        runs_in=_place(name, options.get("runs_in"), queue, is_async=is_async),
        priority=checked_priority(options.get("priority", 5)),
        retry=retry,
        policy=_kept(name, _policy(name, retry, options.get("timeout")), options, keeps_result),
        expires_ms=None if expires is None else _expires_ms(name, expires),
        keeps_result=keeps_result,
        resource=None if resource is None else checked_name(resource, "resource"),
        limits=_limits(name, options, limits),
        unique=checked_unique(options.get("unique"), f"task {name!r}: "),
        tags=checked_tags(options.get("tags", ()), f"task {name!r}: "),
    )


# -- the function --


def _checked_function(function: object) -> FunctionType:
    if inspect.ismethod(function):
        raise BadOption(
            f"{function!r} is a bound method: a worker has no such object to call it on; "
            "use a function at the top of a module"
        )
    if not isinstance(function, FunctionType):
        raise BadOption(f"{function!r} is not a function; make a task of a `def` or an `async def`")
    if function.__name__ == "<lambda>":
        raise BadOption("a lambda has no name that a worker could find it by; use a `def`")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BadOption(
            f"{function.__qualname__} is a generator, and a job has one result; return a list, "
            "or enqueue one job for each item"
        )
    home = function.__qualname__.rpartition(".")[0]
    if home and not home.endswith("<locals>"):
        raise BadOption(
            f"{function.__qualname__} is a method: a worker has no object to call it on; "
            "move it to the top of its module"
        )
    inner = inspect.unwrap(function)
    if inspect.iscoroutinefunction(inner) and not inspect.iscoroutinefunction(function):
        raise BadOption(
            f"{function.__qualname__} is async inside a plain wrapper, so nobody would await "
            "it; make the decorator under @app.task return an `async def`"
        )
    return function


def _default_name(function: FunctionType) -> str:
    if "<locals>" in function.__qualname__:
        raise BadOption(
            f"{function.__qualname__} is nested in another function, so that its name is not "
            "one to keep; move it to the top of its module, or give it a name: "
            f"@app.task(name={function.__name__!r})"
        )
    return checked_name(f"{_module_name(function)}.{function.__qualname__}", "task")


def _module_name(function: FunctionType) -> str:
    """Return the name under which a worker will import the function's module.

    A file that is run is called `__main__` there, and by its own name in the worker.
    """
    module = function.__module__
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else module  # noqa: PTH119, PTH122 - pathlib takes 5 ms to import


def _takes_context(function: FunctionType, name: str) -> bool:
    parameters = list(inspect.signature(function).parameters.values())
    wanting = [
        place
        for place, parameter in enumerate(parameters)
        if _is_context(parameter.annotation, function.__globals__)
    ]
    if wanting and (wanting != [0] or parameters[0].kind not in _FIRST):
        raise BadOption(
            f"task {name!r} wants its Context as parameter "
            f"{parameters[wanting[-1]].name!r}; it is the first, and only there"
        )
    return bool(wanting)


def _is_context(annotation: object, names: Mapping[str, object]) -> bool:
    """Say whether an annotation means our Context, also where it is still a string."""
    if isinstance(annotation, str):
        first, *others = annotation.strip("'\"").split(".")
        annotation = names.get(first)
        for name in others:
            annotation = getattr(annotation, name, None)
    return annotation is Context


# -- the options --


def _expires_ms(name: str, expires: Duration) -> int:
    expires_ms = milliseconds(expires, "expires")
    if expires_ms == 0:
        raise BadOption(f"task {name!r}: expires is {expires!r}, so its jobs would never run")
    return expires_ms


def _limits(name: str, options: TaskOptions, known: Mapping[str, Limit]) -> Limits:
    """Return what its jobs are under: its own limit, then those that it names."""
    own = options.get("limit")
    mine = [] if own is None else [(f"task:{name}", checked_limit(own, f"task {name!r}: "))]
    given = checked_items(options.get("limits", ()), f"task {name!r}: limits", "names of limits")
    names = dict.fromkeys(known_limit(each, known) for each in given)
    return (*mine, *((each, known[each]) for each in names))


def _place(name: str, asked: str | None, queue: Queue, *, is_async: bool) -> RunsIn:
    match asked:
        case None if is_async:
            return "loop"
        case None:
            return queue.runs_in or "thread"
        case "thread" if is_async:
            raise BadOption(
                f"task {name!r} is async and runs in the loop; make it a plain `def` for a thread"
            )
        case "loop" | "thread" | "process":
            return asked
        case _:
            raise BadOption(
                f"task {name!r}: runs_in is {asked!r}; use 'loop', 'thread' or 'process'"
            )


def _policy(
    name: str, retry: Retry, timeout: Duration | tuple[Duration, Duration] | None
) -> Policy:
    soft_ms, hard_ms = _timeout(name, timeout)
    return Policy(
        attempts=retry.attempts,
        base_ms=retry.base_ms,
        cap_ms=retry.cap_ms,
        soft_ms=soft_ms,
        hard_ms=hard_ms,
        retries_timeout=retry.covers(TimeoutError),
    )


def _kept(name: str, policy: Policy, options: TaskOptions, keeps_result: bool) -> Policy:
    """Add to a policy how long its jobs are kept, and whether their newest result is."""
    keep, keep_latest = options.get("keep"), options.get("keep_latest", False)
    if not isinstance(keep_latest, bool):
        raise BadOption(f"task {name!r}: keep_latest is {keep_latest!r}; use True or False")
    if keep_latest and not keeps_result:
        raise BadOption(
            f"task {name!r}: keep_latest=True and keep_result=False do not go together: there "
            "would be no result to keep; leave one of them out"
        )
    kept_ms = None if keep is None else keep_ms(keep, f"task {name!r}: keep")
    return replace(policy, keep_ms=kept_ms, keeps_latest=keep_latest)


def _timeout(
    name: str, timeout: Duration | tuple[Duration, Duration] | None
) -> tuple[int | None, int | None]:
    if timeout is None:
        return None, None
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise BadOption(f"task {name!r}: timeout is {timeout!r}; use seconds or (soft, hard)")
        soft_ms, hard_ms = (milliseconds(end, "timeout") for end in timeout)
    else:
        soft_ms = milliseconds(timeout, "timeout")
        hard_ms = soft_ms + KILL_AFTER_MS
    if not 0 < soft_ms <= hard_ms:
        raise BadOption(
            f"task {name!r}: timeout is {timeout!r}; use more than 0 seconds, and a hard end "
            "that is not before the soft one"
        )
    return soft_ms, hard_ms
