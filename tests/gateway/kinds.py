"""An application whose tasks take arguments of all kinds, and the server that shows it."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic

from backlane import Backlane, Context, Queue


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.5
    marks: list[str] = field(default_factory=list)


@attrs.define
class Parcel:
    weight: float
    content: list[Point] = attrs.field(factory=list)


class Tree(msgspec.Struct, tag=True):
    name: str
    children: list[Tree] = []


class Leaf(msgspec.Struct, tag=True):
    size: int


class Item(pydantic.BaseModel):
    sku: str
    count: int = pydantic.Field(ge=1, le=100)


class Order(pydantic.BaseModel):
    items: list[Item]
    parent: Order | None = None
    colour: Colour = Colour.RED


class Named(NamedTuple):
    first: int
    second: str


class Typed(TypedDict):
    a: int
    b: list[int]


def nothing() -> None:
    """Take nothing."""


def numbers(whole: int, broken: float, truth: bool = False) -> float:
    """Take numbers."""
    return whole * broken if truth else 0.0


def texts(text: str, raw: bytes, path: Path = Path("here")) -> str:
    return text


def moments(
    at: datetime, day: date, hour: time, span: timedelta = timedelta(seconds=1)
) -> None: ...


def amounts(price: Decimal, key: uuid.UUID, colour: Colour = Colour.BLUE) -> Decimal:
    return price


def collections(
    some: list[int],
    pair: tuple[int, str],
    unique: set[str],
    table: dict[str, list[float]],
    any_of: Sequence[int] = (),
    mapped: Mapping[str, int] | None = None,
) -> int:
    return len(some)


def records(
    point: Point, parcel: Parcel, node: Tree | Leaf, named: Named, typed: Typed | None = None
) -> Point:
    return point


def models(order: Order) -> Order:
    return order


def choices(
    which: Literal["a", "b"],
    number: Annotated[int, msgspec.Meta(ge=1, le=5)],
    either: int | str | None = None,
    anything: Any = None,
) -> Any:
    return anything


def variadic(context: Context, first: int, /, *rest: int, named: str = "x", **more: float) -> int:
    """Take a context, and as many arguments as there are.

    The context is the worker's to give.
    """
    return first


def untyped(one, two=2):  # type: ignore[no-untyped-def]
    return one


TASKS = [
    nothing, numbers, texts, moments, amounts, collections, records, models, choices, variadic,
    untyped,
]  # fmt: skip


def make(url: str) -> Backlane:
    """Return the application: one queue for tasks, small enough to fill, and one for messages."""
    app = Backlane(url, queues=[Queue("default", max_jobs=200), Queue("letters", max_jobs=50)])
    for function in TASKS:
        app.task(name=function.__name__)(function)
    app.messages("letters")
    return app


printed = make("memory://")
