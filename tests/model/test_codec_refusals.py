"""What the codec refuses at enqueue: named by path and reason, with what to do."""

# ruff: noqa: DTZ001 - naive times are data here

from __future__ import annotations

import collections
import dataclasses
import enum
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from backlane.errors import TooLarge, Undecodable, Unencodable
from backlane.model.codec import MAX_DEPTH, Codec, decode_headers, encode_headers
from backlane.model.codec import plain as readable


@dataclasses.dataclass
class Address:
    street: str
    zip: int


@dataclasses.dataclass
class Person:
    name: str
    address: Address
    tags: tuple[str, ...] = ()
    extra: Any = None


@dataclasses.dataclass
class Employee(Person):
    salary: int = 0


class Shape(msgspec.Struct):
    name: str


class Circle(Shape):
    radius: float


class Model(pydantic.BaseModel):
    name: str
    inner: Any = None


class Submodel(Model):
    more: int = 0


class Size(TypedDict):
    width: int


class Pair(NamedTuple):
    left: int
    right: Any


class Colour(enum.Enum):
    RED = "red"


class Angry:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


@dataclasses.dataclass
class Quarrelsome:
    name: str

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


def taking(hint: Any, **options: Any) -> Codec:
    def task(x): ...

    task.__annotations__ = {"x": hint}
    return Codec(task, name="task", **options)


CYCLE: list[Any] = []
CYCLE.append({"again": CYCLE})
HOME = Address("Main", 7)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSALS: list[tuple[Any, Any, str, str]] = [
    # a wrong type
    (int, "7", "$.x", "expected int, got str"),
    (int, True, "$.x", "expected int, got bool"),
    (int, 1.0, "$.x", "expected int, got float"),
    (int, None, "$.x", "expected int, got null"),
    (str, 7, "$.x", "expected str, got int"),
    (str, b"abc", "$.x", "expected str, got bytes"),
    (str, uuid.UUID(int=1), "$.x", "expected str, got UUID"),
    (str, Path("a"), "$.x", "expected str, got PosixPath"),
    (bytes, "abcd", "$.x", "expected bytes, got str"),
    (date, datetime(2030, 1, 1), "$.x", "invalid RFC3339 encoded date"),
    (datetime, "2030-01-01T00:00:00", "$.x", "expected datetime, got str"),
    (list[int], (1, 2), "$.x", "expected list, got tuple"),
    (list[int], {1}, "$.x", "expected list, got set"),
    (tuple[int, int], [1, 2], "$.x", "expected tuple, got list"),
    (tuple[int, int], (1, 2, 3), "$.x", "expected array of length 2"),
    (Colour, "red", "$.x", "expected Colour, got str"),
    (Colour, "blue", "$.x", "invalid enum value 'blue'"),
    (float, 2**53 + 1, "$.x", "expected float, got int"),
    (float, 10**400, "$.x", "number out of range"),
    (Person, {"name": "a"}, "$.x", "object missing required field address"),
    (Person, Person("a", Address("b", "c")), "$.x.address.zip", "expected int, got str"),
    (list[Person], [Person("a", HOME, ["t"])], "$.x[0].tags", "expected tuple, got list"),
    (dict[str, int], {"a": 1, "b c": "2"}, "$.x['b c']", "expected int, got str"),
    (dict[str, Address], {"a": HOME, "b": Address("c", "d")}, "$.x.b.zip", "expected int"),
    (dict[int, int], {"a": 1}, "$.x", "a key: expected int, got str"),
    (Size, {"width": 1, "height": 2}, "$.x.height", "would be lost"),
    (Sequence[Any], [(1, 2)], "$.x[0]", "expected list, got tuple"),
    (Sequence[int] | None, "ab", "$.x", "expected array | null, got str"),
    # a class or fields would be lost
    (Person, Employee("a", HOME, salary=3), "$.x", "expected Person, got Employee"),
    (Shape, Circle("c", 1.0), "$.x", "expected Shape, got Circle"),
    (Model, Submodel(name="a"), "$.x", "expected Model, got Submodel"),
    (Person, Person("a", HOME, extra=(1,)), "$.x.extra", "expected list, got tuple"),
    (Model, Model(name="a", inner={1, 2}), "$.x.inner", "expected list, got set"),
    # under Any, what JSON does not have
    (Any, (1, 2), "$.x", "expected list, got tuple"),
    (Any, {"a": [{1, 2}]}, "$.x.a[0]", "expected list, got set"),
    (Any, {1: "a"}, "$.x[1]", "would be lost or come back under another key"),
    (Any, HOME, "$.x", "expected dict, got Address"),
    (Any, datetime(2030, 1, 1), "$.x", "expected str, got datetime"),
    (Any, Decimal(1), "$.x", "expected str, got Decimal"),
    (Any, b"a", "$.x", "expected str, got bytes"),
    (object, [Path("a")], "$.x[0]", "expected str, got PosixPath"),
    # what has no encoding
    (Any, object(), "$.x", "builtins.object has no encoding"),
    (Any, {"a": [1, print]}, "$.x.a[1]", "has no encoding"),
    (Any, (i for i in range(3)), "$.x", "builtins.generator has no encoding"),
    (Any, 1j, "$.x", "builtins.complex has no encoding"),
    (Any, Angry(), "$.x", "Angry has no encoding"),
    (Any, collections.deque([1]), "$.x", "collections.deque has no encoding"),
    (Any, {(1, 2): 3}, "$.x[(1, 2)]", "a dict key of tuple cannot be stored"),
    (Any, {Mute(): 3}, "$.x[Mute]", "a dict key of Mute cannot be stored"),
    (Any, [Hostile()], "$.x[0]", "Hostile has no encoding"),
    (Any, {None: 3}, "$.x[None]", "a dict key of NoneType cannot be stored"),
    (Any, Exception("x"), "$.x", "builtins.Exception has no encoding"),
    (Person, Person("a", HOME, extra=lambda: 1), "$.x.extra", "has no encoding"),
    (Pair, Pair(1, print), "$.x[1]", "has no encoding"),
    # numbers and text that JSON has not
    (float, float("nan"), "$.x", "nan cannot be stored"),
    (float | None, float("-inf"), "$.x", "-inf cannot be stored"),
    (Any, {"a": [0.5, float("inf")]}, "$.x.a[1]", "inf cannot be stored"),
    (list[float], [1.0, float("nan")], "$.x[1]", "nan cannot be stored"),
    (Decimal, Decimal("NaN"), "$.x", "NaN cannot be stored"),
    (Decimal, Decimal("sNaN"), "$.x", "sNaN cannot be stored"),
    (Model, Model(name="a", inner=float("nan")), "$.x.inner", "nan cannot be stored"),
    (str, "\ud800", "$.x", "text with a lone surrogate"),
    (Any, {"a": "\ud800"}, "$.x.a", "text with a lone surrogate"),
    (Any, {"\ud800": 1}, r"$.x['\ud800']", "text with a lone surrogate"),
    (Person, Person("\udfff", HOME), "$.x.name", "text with a lone surrogate"),
    (Path, Path("\udcff"), "$.x", "text with a lone surrogate"),
    (int, 10**4300, "$.x", "more than 4300 digits"),
    (
        datetime,
        datetime(2030, 1, 1, tzinfo=timezone(timedelta(seconds=61))),
        "$.x",
        "a time with this offset would come back changed",
    ),
    # shape
    (Any, CYCLE, "$.x[0].again", "refers to itself"),
    (Any, deep(MAX_DEPTH), "$", "nested too deeply"),
    (Any, deep(20_000), "$.x" + "[0]" * MAX_DEPTH, "nested too deeply"),
    (Quarrelsome, Quarrelsome("a"), "$", "does not survive storing: not comparable"),
]


@pytest.mark.parametrize(
    ("hint", "value", "path", "why"), REFUSALS, ids=[f"{case[2]}: {case[3]}" for case in REFUSALS]
)
def test_what_cannot_be_stored_is_refused_with_path_and_reason(hint, value, path, why):
    codec = taking(hint)

    with pytest.raises(Unencodable) as refusal:
        codec.encode_arguments((value,), {})

    said = str(refusal.value)
    assert said.startswith(f"task 'task': arguments: {path}: ")
    assert why in said
    assert "; pass " in said or "; under Any" in said or "; use text or numbers" in said


def test_data_at_the_bound_of_depth_passes():
    codec = taking(Any)
    value = deep(MAX_DEPTH - 1)  # the object of the arguments is a level too

    assert codec.decode_arguments(codec.encode_arguments((value,), {})) == ((value,), {})


def test_wide_data_full_of_brackets_in_text_is_not_deep():
    codec = taking(Any)
    value = [{'a[{"\\': "[" * 300}, '"[' * 50, "\\"] * 80

    assert codec.decode_arguments(codec.encode_arguments((value,), {})) == ((value,), {})


def test_depth_hidden_among_text_is_found():
    codec = taking(Any)

    with pytest.raises(Unencodable, match="nested too deeply"):
        codec.encode_arguments((['"]]]]"', deep(MAX_DEPTH), "\\"],), {})


def test_arguments_beyond_the_limit_are_refused_with_both_sizes():
    codec = taking(str, max_bytes=100)

    codec.encode_arguments(("a" * 92,), {})
    with pytest.raises(TooLarge, match=r"arguments take 101 bytes, the limit is 100; .*its id"):
        codec.encode_arguments(("a" * 93,), {})


def test_results_are_refused_like_arguments():
    def task() -> dict[str, int]: ...

    codec = Codec(task, name="task", max_bytes=100)

    with pytest.raises(Unencodable, match=r"task 'task': result: \$\.a: expected int, got str"):
        codec.encode_result({"a": "1"})
    with pytest.raises(Unencodable, match=r"result: \$\[0\]: builtins.object has no encoding"):
        codec.encode_result([object()])
    with pytest.raises(TooLarge, match="result takes 108 bytes, the limit is 100"):
        codec.encode_result({"a" * 102: 1})


def test_a_refusal_never_shows_the_value():
    """Arguments may hold secrets, and messages end in logs."""
    with pytest.raises(Unencodable) as refusal:
        taking(dict[str, int]).encode_arguments(({"password": "s3cret"},), {})

    assert "s3cret" not in str(refusal.value)


def test_headers_come_back_as_they_were():
    assert encode_headers({}) is None
    assert decode_headers(None) == {}
    assert decode_headers(encode_headers({"traceparent": "00-é"})) == {"traceparent": "00-é"}


@pytest.mark.parametrize(
    ("headers", "error", "why"),
    [
        ({"a": 1}, Unencodable, "'a' holds int; use non-empty text names"),
        ({1: "a"}, Unencodable, "use non-empty text names"),
        ({"": "a"}, Unencodable, "use non-empty text names"),
        ({"a": None}, Unencodable, "'a' holds NoneType"),
        ({"a": "\ud800"}, Unencodable, "lone surrogate"),
        ({"a": "b" * 20_000}, TooLarge, "headers take 20008 bytes, their limit is 16384"),
    ],
)
def test_bad_headers_are_refused(headers, error, why):
    with pytest.raises(error, match=why):
        encode_headers(headers)


@pytest.mark.parametrize("stored", [b"", b"[]", b'{"a":1}', b"\xff", b"[" * 100_000])
def test_bad_stored_headers_are_undecodable(stored):
    with pytest.raises(Undecodable, match="headers are not a JSON object of text"):
        decode_headers(stored)


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"text", "text"),
        (b"\xff\x00", "\\xff\x00"),
        (b"", ""),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_people_can_read_whatever_is_stored(stored, seen):
    assert readable(stored) == seen


def test_aware_times_keep_the_offset():
    assert taking(datetime).decode_arguments(b'{"x":"2030-01-01T00:00:00Z"}') == (
        (datetime(2030, 1, 1, tzinfo=UTC),),
        {},
    )
