"""Bad arguments and bad calls, at enqueue."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any

from tests.bad_input.book import Bad, World

from backlane import BadOption, TooLarge, Unencodable


class Colour(Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    zip: int


VALUES: Mapping[Any, Any] = {
    bool: True,
    int: 7,
    float: 1.5,
    str: "text",
    bytes: b"\x00",
    datetime: datetime(2030, 1, 1, tzinfo=UTC),
    date: date(2030, 1, 1),
    time: time(12),
    timedelta: timedelta(1),
    Decimal: Decimal("1.5"),
    uuid.UUID: uuid.UUID(int=7),
    Path: Path("a"),
    Colour: Colour.RED,
    Address: Address("Main", 7),
    list[int]: [1],
    tuple[int, int]: (1, 2),
    set[int]: {1},
    dict[str, int]: {"a": 1},
}

# Python itself says that these are equal: an int is a float, 7 == Decimal(7).
PASSES = {(float, int), (Decimal, int), (Decimal, float)}


def task_of(world: World, hint: Any, name: str = "task") -> Any:
    """Return a task whose one parameter is annotated `hint`."""

    def function(x): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"x": hint}
    return world.app.task(name=name)(function)


def enqueues(hint: Any, value: Any) -> Callable[[World], object]:
    return lambda world: task_of(world, hint).enqueue(value)


def wrong_types() -> Iterator[Bad]:
    """Yield every value under every annotation but its own."""
    for hint, (kind, value) in product(VALUES, VALUES.items()):
        if hint != kind and (hint, kind) not in PASSES:
            yield Bad(f"{spelled(kind)} under {spelled(hint)}", enqueues(hint, value), Unencodable)


def spelled(hint: Any) -> str:
    return str(getattr(hint, "__qualname__", hint)) if isinstance(hint, type) else str(hint)


class Hostile:
    """An object whose every question raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __hash__(self) -> int:
        raise RuntimeError("no")


def deep(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = {"a": value}
    return value


def unstorable() -> Iterator[Bad]:
    """Yield values that no annotation could carry."""
    cycle: list[Any] = []
    cycle.append(cycle)
    values: dict[str, Any] = {
        "an object": object(),
        "a function": print,
        "a class": int,
        "a module": uuid,
        "a generator": (i for i in ()),
        "an exception": ValueError("x"),
        "a hostile object": Hostile(),
        "a hostile object within": {"a": [Hostile()]},
        "NaN": float("nan"),
        "infinity": float("inf"),
        "NaN within": {"a": [1.0, float("nan")]},
        "a lone surrogate": "\ud800",
        "a lone surrogate as key": {"\ud800": 1},
        "a tuple": (1,),
        "a tuple within": {"a": (1,)},
        "number keys": {1: 2},
        "a key of None": {None: 1},
        "a cycle": cycle,
        "beyond the depth": deep(101),
        "far beyond the depth": deep(100_000),
        "too many digits": 10**5000,
        "a complex number": 1j,
        "a range": range(3),
        "bytes without annotation": b"a",
        "a set without annotation": {1},
    }
    for what, value in values.items():
        yield Bad(f"{what} as an argument", enqueues(Any, value), Unencodable)


def too_large() -> Iterator[Bad]:
    big = "x" * (1024 * 1024)
    yield Bad("arguments of 1 MiB", enqueues(str, big), TooLarge)
    yield Bad("headers of 1 MiB", lambda world: world.good.using(headers={"a": big}), TooLarge)
    yield Bad("a message of 1 MiB", lambda world: _raw(world).send(big.encode() + b"x"), TooLarge)
    yield Bad(
        "messages of 1 MiB", lambda world: _raw(world).send_many([big.encode() * 2]), TooLarge
    )


def _raw(world: World) -> Any:
    return world.app.messages("raw")


def wrong_calls() -> Iterator[Bad]:
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "no argument": ((), {}),
        "too many arguments": ((1, 2), {}),
        "an unknown argument": ((1,), {"y": 2}),
        "an argument twice": ((1,), {"x": 2}),
        "a name that is no text": ((1,), {3: 4}),  # type: ignore[dict-item]
    }
    for what, (args, kwargs) in calls.items():
        if all(isinstance(name, str) for name in kwargs):  # or Python itself refuses the call
            yield Bad(what, _enqueuing(args, kwargs), TypeError)
        yield Bad(f"{what} in a bulk", _enqueuing_many(args, kwargs), TypeError)


def _enqueuing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[World], object]:
    return lambda world: world.good.enqueue(*args, **kwargs)


def _enqueuing_many(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[World], object]:
    return lambda world: world.good.enqueue_many([((1,), {}), (args, kwargs)])


def declarations() -> Iterator[Bad]:
    """Yield annotations and defaults that no job could carry."""
    hints: dict[str, Any] = {
        "Callable": Callable[[], int],
        "Iterator": Iterator[int],
        "object with methods": World,
        "two dataclasses": Address | BadPair,
        "text or date": str | date,
        "keys of tuples": dict[tuple[int, int], int],
        "a class": type[int],
        "an exception": ValueError,
        "a name that is missing": "Missing",
        "no type": "1 +",
        "a number": 3,
    }
    for what, hint in hints.items():
        yield Bad(f"annotated {what}", lambda world, it=hint: task_of(world, it), BadOption)
        yield Bad(f"returns {what}", lambda world, it=hint: _returning(world, it), BadOption)
    for default in (object(), print, (1,), {1}, float("inf")):
        yield Bad(
            f"a default of {default!r:.30}",
            lambda world, it=default: _defaulting(world, it),
            BadOption,
        )


@dataclass
class BadPair:
    left: int


def _returning(world: World, hint: Any) -> object:
    def function() -> None: ...

    function.__annotations__ = {"return": hint}
    return world.app.task(name="task")(function)


def _defaulting(world: World, default: Any) -> object:
    def function(x=default): ...  # type: ignore[no-untyped-def]

    return world.app.task(name="task")(function)


def cases() -> Iterator[Bad]:
    """Yield every case of this file."""
    yield from wrong_types()
    yield from unstorable()
    yield from too_large()
    yield from wrong_calls()
    yield from declarations()
