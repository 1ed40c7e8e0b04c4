"""Memos: the steps that a job has done, kept so that its next attempt skips them.

A step is durable before it returns. What an attempt before this one kept is read when the
first step is asked for, and only where there may have been such an attempt.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.engine.selection import Selection
from backlane.errors import BadOption, LeaseLost, TooLarge, Unencodable, WrongUse
from backlane.model.codec.json import decoder, encode
from backlane.model.job import Lease, Note, Step

T = TypeVar("T")

JOINED_AT_ONCE = 1_000  # jobs that one reading looks at
NAME_LIMIT = 200  # characters


class Packing(Protocol):
    """How what is no data, but may be a step's result, is stored: handles."""

    def pack(self, value: object) -> bytes | None:
        """Return it as JSON; None: it is data, or unknown."""

    def unpack(self, data: bytes) -> object | None:
        """Return what `pack` stored; None: this is data."""


class Memo:
    """The steps of one attempt's job.

    Args:
        is_fresh: there was no attempt before, so there are no steps yet.
    """

    def __init__(
        self, engine: Engine, lease: Lease, packing: Packing, max_bytes: int, *, is_fresh: bool
    ) -> None:
        self._engine, self._lease, self._packing = engine, lease, packing
        self._max_bytes = max_bytes
        self._kept: dict[str, bytes] | None = {} if is_fresh else None
        self._uses: Counter[str] = Counter()

    # -- plain functions --

    def step(self, name: str, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        """Return what the step results in, now or in an attempt before."""
        if asyncio._get_running_loop() is not None:
            raise WrongUse(
                f"step {name!r} would block the running event loop while it is kept; use "
                "`await context.astep(…)`"
            )
        key = self._key(name)
        if self._kept is None:
            self._kept = _by_name(self._engine.run(self._engine.recall(self._lease.job)))
        if key not in self._kept:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    value.close()
                raise WrongUse(f"step {name!r} is async; use `await context.astep(…)`")
            data = self._encoded(key, value)
            self._check(self._engine.run(self._noting(key, data)))
            self._kept[key] = data
        return cast("T", self._decoded(key, function))

    # -- async functions --

    async def astep(
        self, name: str, function: Callable[..., Awaitable[T] | T], args: Any, kwargs: Any
    ) -> T:
        """Like `step`."""
        key = self._key(name)
        if self._kept is None:
            self._kept = _by_name(await self._engine.arun(self._engine.recall(self._lease.job)))
        if key not in self._kept:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            data = self._encoded(key, value)
            self._check(await self._engine.arun(self._noting(key, data)))
            self._kept[key] = data
        return cast("T", self._decoded(key, function))

    # -- what is joined --

    def are_open(self, jobs: Sequence[bytes]) -> bool:
        """Whether some of these jobs are stored and have not ended."""
        for part in _parts(jobs):
            page = self._engine.run(self._engine.find(part, JOINED_AT_ONCE, brief=True))
            if not all(record.state.is_final for record in page.records):
                return True
        return False

    async def aare_open(self, jobs: Sequence[bytes]) -> bool:
        """Like `are_open`."""
        for part in _parts(jobs):
            page = await self._engine.arun(self._engine.find(part, JOINED_AT_ONCE, brief=True))
            if not all(record.state.is_final for record in page.records):
                return True
        return False

    # -- both --

    def _key(self, name: str) -> str:
        """Return the name under which a step is kept: the second of a name is `name#2`."""
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT:
            raise BadOption(
                f"a step's name is {name!r:.100}; use a text of 1 to {NAME_LIMIT} characters"
            )
        self._uses[name] += 1
        return name if self._uses[name] == 1 else f"{name}#{self._uses[name]}"

    def _encoded(self, key: str, value: object) -> bytes:
        packed = self._packing.pack(value)
        try:
            data = encode(value) if packed is None else packed
        except Exception as error:  # an encoder of the user's own class may raise anything
            raise Unencodable(
                f"step {key!r} returned {type(value).__qualname__}, which cannot be stored: "
                f"{error}; return plain data"
            ) from error
        if len(data) > self._max_bytes:
            raise TooLarge(
                f"step {key!r} returned {len(data)} bytes, the limit is {self._max_bytes}; store "
                "large data elsewhere and return its id"
            )
        return data

    def _decoded(self, key: str, function: Callable[..., Any]) -> object:
        data = (self._kept or {})[key]
        handle = self._packing.unpack(data)
        return _decoder(function)(data) if handle is None else handle

    def _noting(self, key: str, data: bytes) -> Plan[list[bytes]]:
        note = Note(self._lease.job, self._lease.token, steps=(Step(key, data),))
        return self._engine.note([note])

    def _check(self, lost: list[bytes]) -> None:
        if lost:
            raise LeaseLost(
                f"job {uuid.UUID(bytes=self._lease.job)}: its lease has ended or went to another, "
                "so this step was not kept; whoever has the job now does it"
            )


def _parts(jobs: Sequence[bytes]) -> Iterator[Selection]:
    for at in range(0, len(jobs), JOINED_AT_ONCE):
        yield Selection(ids=tuple(jobs[at : at + JOINED_AT_ONCE]))


def _by_name(steps: list[Step]) -> dict[str, bytes]:
    return {step.name: step.result for step in steps}


def _decoder(function: Callable[..., Any]) -> Callable[[bytes], Any]:
    """Return what reads a step's result, by the annotation of the function if it has one."""
    inner = getattr(function, "function", function)  # a task's
    try:
        return _decoder_of(inner)
    except TypeError:  # what has no hash
        return decoder(Any)


@functools.lru_cache(maxsize=512)
def _decoder_of(function: Callable[..., Any]) -> Callable[[bytes], Any]:
    try:
        hint = typing.get_type_hints(function).get("return", Any)
        return decoder(hint)
    except (TypeError, NameError, AttributeError):  # no annotations, or none that can be read
        return decoder(Any)
