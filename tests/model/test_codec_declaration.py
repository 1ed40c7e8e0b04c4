"""What can never be stored is refused where the task is declared."""

from __future__ import annotations

import collections
import dataclasses
import enum
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol, Self, TypeVar

import msgspec
import pytest

from backlane.errors import BadOption
from backlane.model.codec import Codec


@dataclasses.dataclass
class Left:
    x: int


@dataclasses.dataclass
class Right:
    x: int


@dataclasses.dataclass
class Holder:
    handler: Callable[[], None]


@dataclasses.dataclass
class Tree:
    children: list[Tree]
    branch: Tree | None = None


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


class Mixed(enum.Enum):
    A = "a"
    B = 1


class Ordinary:
    pass


class Protocolled(Protocol):
    def act(self) -> None: ...


def taking(hint: Any) -> Callable[..., None]:
    def task(x): ...

    task.__annotations__ = {"x": hint}
    return task


TELL_APART = "JSON does not tell them apart"
PLAIN_DATA = "annotate it with plain data"


@pytest.mark.parametrize(
    ("hint", "said", "remedy"),
    [
        (Left | Right, "x' is annotated ", "msgspec.Struct classes with tag=True"),
        (list[Left | Right], "more than one dataclass", TELL_APART),
        (list[int] | tuple[int, ...], "more than one array-like", TELL_APART),
        (str | date, "more than one str-like", "a dataclass with a field for each"),
        (str | Path, "containing a custom type", TELL_APART),
        (Callable[[int], int], "Callable cannot be stored", PLAIN_DATA),
        (dict[str, list[Callable[[], int]]], "Callable cannot be stored", PLAIN_DATA),
        (Holder, "annotated Holder, and Callable cannot be stored", PLAIN_DATA),
        (IO[str], "IO", PLAIN_DATA),
        (Iterable[int], "Iterable cannot be stored", PLAIN_DATA),
        (Iterator[int], "Iterator cannot be stored", PLAIN_DATA),
        (AsyncIterator[int], "AsyncIterator cannot be stored", PLAIN_DATA),
        (Awaitable[int], "Awaitable cannot be stored", PLAIN_DATA),
        (Hashable, "Hashable cannot be stored", PLAIN_DATA),
        (type[int], "type cannot be stored", PLAIN_DATA),
        (Ordinary, "Ordinary cannot be stored", PLAIN_DATA),
        (Ordinary | None, "Ordinary cannot be stored", PLAIN_DATA),
        (Protocolled, "Protocolled cannot be stored", PLAIN_DATA),
        (collections.deque[int], "deque cannot be stored", PLAIN_DATA),
        (logging.Logger, "Logger cannot be stored", PLAIN_DATA),
        (complex, "complex cannot be stored", PLAIN_DATA),
        (Exception, "Exception cannot be stored", PLAIN_DATA),
        (dict[Left, int], "a dict key of Left cannot be stored", PLAIN_DATA),
        (dict[tuple[int, int], int], "a dict key of tuple cannot be stored", PLAIN_DATA),
        (dict[bool, int], "a dict key of bool cannot be stored", PLAIN_DATA),
        (dict[Path, int], "a dict key of Path cannot be stored", PLAIN_DATA),
        (Mixed, "Enums must contain", "give all members text values, or all whole numbers"),
        (Self, "Self", PLAIN_DATA),
        (3, "annotated 3", "annotate it with plain data"),
    ],
)
def test_an_annotation_that_cannot_be_stored_fails_the_declaration(hint, said, remedy):
    with pytest.raises(BadOption) as refusal:
        Codec(taking(hint), name="mail.send")

    assert str(refusal.value).startswith("task 'mail.send': parameter 'x' ")
    assert said in str(refusal.value)
    assert remedy in str(refusal.value)


def test_text_that_names_nothing_fails_the_declaration():
    def task(x: Missing): ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(BadOption, match=r"name 'Missing' is not defined; define or import"):
        Codec(task, name="task")


def test_text_that_is_no_type_fails_the_declaration():
    def task(x): ...

    task.__annotations__ = {"x": "1 +"}

    with pytest.raises(BadOption, match=r"an annotation is not a type: .*; correct it"):
        Codec(task, name="task")


def test_a_result_that_cannot_be_stored_fails_the_declaration_unless_results_are_not_kept():
    def task() -> Iterator[int]: ...

    with pytest.raises(BadOption, match=r"task 'task': the result is annotated .*Iterator"):
        Codec(task, name="task")

    assert Codec(task, name="task", keeps_result=False).encode_arguments((), {}) == b"{}"


@pytest.mark.parametrize(
    ("default", "said"),
    [
        (object(), "builtins.object has no encoding"),
        (print, "has no encoding"),
        (("a",), r"\$: expected list, got tuple"),
        (float("nan"), r"\$: nan cannot be stored"),
    ],
)
def test_a_default_that_cannot_be_stored_fails_the_declaration(default, said):
    def task(x=default): ...

    with pytest.raises(BadOption, match=f"the default of parameter 'x' .*{said}.*; use None"):
        Codec(task, name="task")


def test_a_default_against_its_annotation_fails_the_declaration():
    def task(x: int = "7"): ...  # type: ignore[assignment]

    with pytest.raises(BadOption, match=r"the default of parameter 'x' .* as int"):
        Codec(task, name="task")


def test_what_has_no_signature_fails_the_declaration():
    with pytest.raises(BadOption, match="no signature that Python can read; wrap it"):
        Codec(dict, name="task")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Tree, Tree([Tree([])], Tree([]))),
        (Cat | Dog, Dog("Rex")),
        (list[Cat | Dog], [Cat("Tom"), Dog("Rex")]),
        (Cat | None, None),
    ],
)
def test_what_looks_hard_but_can_be_told_apart_passes(hint, value):
    codec = Codec(taking(hint), name="task")

    assert codec.decode_arguments(codec.encode_arguments((value,), {})) == ((value,), {})


def test_a_function_that_never_returns_can_be_a_task():
    def task() -> NoReturn:
        raise SystemExit

    assert Codec(task, name="task").encode_arguments((), {}) == b"{}"


def test_a_free_type_variable_is_any():
    T = TypeVar("T")

    codec = Codec(taking(list[T]), name="task")

    assert codec.encode_arguments(([1],), {}) == b'{"x":[1]}'


def test_pydantic_and_attrs_are_not_imported_for_those_who_do_not_use_them():
    program = (
        "import sys\n"
        "from backlane.model.codec import Codec\n"
        "codec = Codec(lambda x: x, name='task')\n"
        "codec.decode_arguments(codec.encode_arguments(({'a': 1},), {}))\n"
        "try: codec.encode_arguments((object(),), {})\n"
        "except TypeError: pass\n"
        "print([name for name in ('pydantic', 'attr', 'attrs') if name in sys.modules])\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (ran.stdout, ran.stderr) == ("[]\n", "")
