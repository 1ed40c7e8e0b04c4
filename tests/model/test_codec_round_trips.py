"""The codec: what goes in comes out equal, for every type that it takes."""

# ruff: noqa: DTZ001, DTZ901, UP007, UP045 - naive times and old spellings are data here

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from backlane.errors import Unencodable
from backlane.model.codec import Codec


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Address:
    street: str
    zip: int


@dataclasses.dataclass
class Person:
    name: str
    address: Address
    friends: list[Person] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Employee(Person):
    salary: int = 0


@dataclasses.dataclass(eq=False)
class Unequal:
    name: str
    tags: Sequence[str]


class Point(msgspec.Struct):
    x: float
    y: float


class Pair(NamedTuple):
    left: int
    right: str


class Settings(TypedDict):
    size: int
    name: NotRequired[str]


class Model(pydantic.BaseModel):
    id: uuid.UUID
    at: datetime
    inner: list[Model] = []


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    first: date = pydantic.Field(alias="firstDay")


@attrs.define
class Box:
    size: int
    label: str | None = None


T = TypeVar("T")
UserId = NewType("UserId", int)


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]


class Text(str):
    __slots__ = ()


class Frozen(datetime):
    pass


def taking(hint: Any) -> Codec:
    """Return the codec of a function of one parameter `x`."""

    def task(x): ...

    task.__annotations__ = {"x": hint}
    return Codec(task, name="task")


def there_and_back(hint: Any, value: Any) -> Any:
    codec = taking(hint)
    (back,), kwargs = codec.decode_arguments(codec.encode_arguments((value,), {}))
    assert kwargs == {}
    return back


PARIS = ZoneInfo("Europe/Paris")
ID = uuid.UUID("0190a3b8-7b1f-7000-8000-000000000000")
ANN = Person("Ann", Address("Main", 7), [Person("Bo", Address("Side", 8))])


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 2**70),
        (int, -(10**4000)),
        (float, 3),
        (float, -0.0),
        (bool, True),
        (str, "é\x00😀"),
        (str, Text("plain in the end")),
        (bytes, b"\xff\x00"),
        (bytearray, bytearray(b"x")),
        (None, None),
        (type(None), None),
        (datetime, datetime(2030, 1, 1, 12, 30, 15, 123456)),
        (datetime, datetime(2030, 1, 1, tzinfo=UTC)),
        (datetime, datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))),
        (datetime, datetime(2030, 7, 1, tzinfo=PARIS)),
        (datetime, Frozen(2030, 1, 1)),
        (date, date(2030, 1, 1)),
        (time, time(1, 2, 3, 4)),
        (timedelta, timedelta(days=-3, microseconds=1)),
        (timedelta, timedelta.max),
        (Decimal, Decimal("1.10")),
        (Decimal, Decimal("-1E+500")),
        (uuid.UUID, ID),
        (Path, Path("a/b")),
        (PurePosixPath, PurePosixPath("/a")),
        (Optional[Path], None),
        (Colour, Colour.RED),
        (Level, Level.HIGH),
        (Flags, Flags.READ | Flags.WRITE),
        (Literal["a", 1], "a"),
        (list[int], [1, 2]),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 3)),
        (tuple[()], ()),
        (set[uuid.UUID], {ID}),
        (frozenset[str], frozenset({"a"})),
        (set[tuple[int, str]], {(1, "a")}),
        (dict[str, list[date]], {"a": [date(2030, 1, 1)]}),
        (dict[int, str], {1: "a"}),
        (dict[float, str], {1.5: "a"}),
        (dict[uuid.UUID, int], {ID: 1}),
        (dict[date, int], {date(2030, 1, 1): 1}),
        (dict[Colour, int], {Colour.RED: 1}),
        (dict[bytes, int], {b"\xff": 1}),
        (Mapping[str, int], {"a": 1}),
        (int | str | None, "a"),
        (Union[Address, None], Address("Main", 1)),
        (list[int | None], [None, 1]),
        (Address, Address("Main", 1)),
        (Person, ANN),
        (Page[date], Page([date(2030, 1, 1)])),
        (Point, Point(1.0, 2.0)),
        (list[Point], [Point(1.0, 2.0)]),
        (Pair, Pair(1, "a")),
        (Settings, {"size": 1}),
        (Model, Model(id=ID, at=datetime(2030, 1, 1, tzinfo=UTC), inner=[])),
        (list[Model], [Model(id=ID, at=datetime(2030, 1, 1)), Model(id=ID, at=datetime.min)]),
        (Aliased, Aliased(firstDay=date(2030, 1, 1))),
        (Box, Box(1, "a")),
        (dict[str, Box], {"a": Box(1)}),
        (UserId, 7),
        (Annotated[int, msgspec.Meta(ge=0)], 7),
        (Any, None),
        (Any, {"a": [1, 2.5, "x", True, None, {"b": []}]}),
        (object, {"a": 1}),
        (dict[str, object], {"a": [1]}),
        (T, "free"),
    ],
)
def test_what_goes_in_comes_out_equal(hint, value):
    back = there_and_back(hint, value)

    assert back == value
    assert type(back) in (type(value), type(value).__base__, float)


@pytest.mark.parametrize("value", [[1, 2], (1, 2)])
def test_any_sequence_passes_as_a_sequence_and_arrives_as_a_list(value):
    assert there_and_back(Sequence[int], value) == [1, 2]
    assert there_and_back(Collection[int], {3}) == [3]
    assert there_and_back(dict[str, Sequence[int]], {"a": value}) == {"a": [1, 2]}
    assert there_and_back(list[Sequence[int]] | None, [value]) == [[1, 2]]


def test_objects_without_an_equality_of_their_own_are_compared_by_their_fields():
    back = there_and_back(Unequal, Unequal("a", ("b",)))

    assert (back.name, back.tags) == ("a", ["b"])


def test_a_time_in_the_hour_that_a_zone_repeats_keeps_its_instant():
    """Such times compare equal to no time of another zone, and were refused for that."""
    second = datetime(2030, 10, 27, 2, 30, tzinfo=PARIS, fold=1)

    back = there_and_back(datetime, second)

    assert back.timestamp() == second.timestamp()


@pytest.mark.parametrize("hint", [list[Any], Any])
def test_an_equal_value_of_a_plain_subclass_arrives_plain(hint):
    assert there_and_back(hint, [Text("a"), Level.LOW]) == ["a", 1]


def test_a_result_is_typed_by_the_return_annotation():
    def task() -> dict[uuid.UUID, Address]: ...

    codec = Codec(task, name="task")

    assert codec.decode_result(codec.encode_result({ID: Address("Main", 1)})) == {
        ID: Address("Main", 1)
    }


def test_a_result_without_annotation_takes_json_values():
    codec = Codec(lambda: None, name="task")

    assert codec.decode_result(codec.encode_result(None)) is None
    assert codec.decode_result(codec.encode_result({"a": [1]})) == {"a": [1]}
    with pytest.raises(Unencodable, match=r"result: \$: expected list, got tuple"):
        codec.encode_result((1,))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
AWARE = st.datetimes(
    timezones=st.timezones(), allow_imaginary=False, min_value=datetime(1975, 1, 1)
)
ADDRESSES = st.builds(Address, st.text(), st.integers())
PEOPLE = st.recursive(
    st.builds(Person, st.text(), ADDRESSES),
    lambda inner: st.builds(Person, st.text(), ADDRESSES, st.lists(inner)),
)
TYPED = {
    "json": (Any, JSON),
    "int": (int, st.integers()),
    "float": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "str": (str, st.text()),
    "bytes": (bytes, st.binary()),
    "naive": (datetime, st.datetimes()),
    "aware": (datetime, AWARE),
    "date": (date, st.dates()),
    "time": (time, st.times()),
    "timedelta": (timedelta, st.timedeltas()),
    "decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    "uuid": (uuid.UUID, st.uuids()),
    "enum": (Colour, st.sampled_from(Colour)),
    "flags": (Flags, st.sampled_from([Flags.READ, Flags.WRITE, Flags.READ | Flags.WRITE])),
    "tuple": (tuple[int, str, bytes], st.tuples(st.integers(), st.text(), st.binary())),
    "variadic": (tuple[date, ...], st.lists(st.dates()).map(tuple)),
    "set": (set[uuid.UUID], st.sets(st.uuids())),
    "frozenset": (frozenset[int], st.frozensets(st.integers())),
    "keys": (dict[int, Decimal], st.dictionaries(st.integers(), st.decimals("-1", "1"))),
    "dates": (dict[date, set[str]], st.dictionaries(st.dates(), st.sets(st.text()))),
    "union": (int | str | None, st.integers() | st.text() | st.none()),
    "person": (Person, PEOPLE),
    "points": (list[Point], st.lists(st.builds(Point, st.floats(-1, 1), st.floats(-1, 1)))),
    "pair": (Pair, st.builds(Pair, st.integers(), st.text())),
    "model": (Model, st.builds(Model, id=st.uuids(), at=st.datetimes(), inner=st.just([]))),
    "box": (Box, st.builds(Box, st.integers(), st.none() | st.text())),
}
CODECS = {name: taking(hint) for name, (hint, _) in TYPED.items()}


@given(st.data(), st.sampled_from(sorted(TYPED)))
def test_whatever_is_generated_for_a_type_comes_out_equal(data, name):
    value = data.draw(TYPED[name][1])

    codec = CODECS[name]
    (back,), _ = codec.decode_arguments(codec.encode_arguments((value,), {}))

    assert back == value or back.timestamp() == value.timestamp()  # a zone's repeated hour
    assert type(back) is type(value) or (type(back), type(value)) == (float, int)


@given(JSON | st.tuples(JSON) | st.sets(st.integers()) | st.dictionaries(st.integers(), JSON))
def test_what_has_no_annotation_comes_out_equal_or_is_refused(value):
    codec = CODECS["json"]

    try:
        body = codec.encode_arguments((value,), {})
    except Unencodable as refusal:
        event("refused" if "$.x" in str(refusal) else "refused without a path")
    else:
        assert codec.decode_arguments(body) == ((value,), {})
