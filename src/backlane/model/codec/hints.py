"""Hints: what a function's annotations allow, judged when the task is declared.

What cannot be stored and brought back is refused there, with the name of the
parameter, not on the first job at night.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

from msgspec import inspect as types

from backlane.errors import BadOption
from backlane.model.codec.json import decoder, knows

# Known to be fine: spares the common task the price of an inspection (20 µs a hint).
_PLAIN = frozenset({Any, str, int, float, bool, bytes, None, type(None), dict, list})

_SAME_AS_ANY = frozenset({object, typing.Never, typing.NoReturn})

_KEYS = (
    types.AnyType,
    types.StrType,
    types.IntType,
    types.FloatType,
    types.BytesType,
    types.DateTimeType,
    types.DateType,
    types.TimeType,
    types.TimeDeltaType,
    types.UUIDType,
    types.DecimalType,
    types.EnumType,
    types.LiteralType,
)

_PLAIN_DATA = (
    "annotate it with plain data: text, numbers, datetime, Decimal, UUID, bytes, Path, enums, "
    "list, tuple, set, dict, dataclasses, msgspec, pydantic or attrs classes"
)


def hints_of(function: Callable[..., Any], owner: str) -> dict[str, Any]:
    """Return a callable's annotations by parameter, and the result's as `return`.

    Raises:
        BadOption: an annotation is text that names nothing at run time.
    """
    annotated: Any = function
    while isinstance(annotated, functools.partial):
        annotated = annotated.func
    if isinstance(annotated, type):
        annotated = annotated.__init__  # type: ignore[misc]
    elif not hasattr(annotated, "__annotations__") or not hasattr(annotated, "__name__"):
        annotated = type(annotated).__call__
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except (NameError, AttributeError) as error:
        raise BadOption(
            f"{owner}: an annotation cannot be resolved: {error}; define or import the name at "
            "the top of the module, before the task and not only under TYPE_CHECKING"
        ) from error
    except (TypeError, SyntaxError) as error:
        raise BadOption(f"{owner}: an annotation is not a type: {error}; correct it") from error


def checked_hint(hint: Any, owner: str, what: str) -> Any:
    """Return the hint that decodes what `hint` says, or refuse it.

    Args:
        hint: an annotation, or `inspect.Parameter.empty`.
        owner: who is being declared, for the message.
        what: which annotation it is, for the message.

    Raises:
        BadOption: no value of it could be stored and brought back.
    """
    if hint in _SAME_AS_ANY:
        return Any
    if hint is typing.LiteralString:
        return str
    try:
        if hint in _PLAIN:
            return hint
    except TypeError:  # an unhashable hint, such as Annotated with a list
        pass
    try:
        decoder(hint)
        tree = types.type_info(hint)
    except (TypeError, ValueError, NameError, AttributeError, RecursionError) as error:
        raise BadOption(
            f"{owner}: {what} is annotated {spelled(hint)}, which cannot be decoded: "
            f"{error}; {_remedy(str(error))}"
        ) from error
    for culprit in _culprits(tree):
        raise BadOption(
            f"{owner}: {what} is annotated {spelled(hint)}, and {culprit} cannot be stored; "
            f"{_PLAIN_DATA}"
        )
    return hint


def spelled(hint: Any) -> str:
    """Return a hint as one would write it."""
    if isinstance(hint, type) and not get_args(hint):
        return hint.__qualname__
    return str(hint).replace("typing.", "")


def is_abstract_sequence(hint: Any) -> bool:
    """Say whether a hint promises a sequence of any kind, which is stored as a list."""
    return get_origin(hint) in _ABSTRACT or hint in _ABSTRACT


_ABSTRACT = frozenset(
    {
        typing.get_origin(typing.Sequence[Any]),
        typing.get_origin(typing.MutableSequence[Any]),
        typing.get_origin(typing.Collection[Any]),
    }
)


def _remedy(reason: str) -> str:
    if "unions may not contain more than one str-like" in reason:
        return "annotate one of them, or a dataclass with a field for each"
    if "unions" in reason:
        return (
            "JSON does not tell them apart: annotate one of them, or use msgspec.Struct "
            "classes with tag=True"
        )
    if "Enums" in reason:
        return "give all members text values, or all whole numbers"
    if "not defined" in reason:
        return "define or import the name at the top of the module, before the task"
    return _PLAIN_DATA


def _culprits(tree: types.Type) -> Iterator[str]:
    """Yield what in a type nobody can decode, in the order it is met."""
    met: set[int] = set()  # a recursive type meets itself
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, types.CustomType) and not knows(node.cls):
            yield spelled(node.cls)
        if isinstance(node, types.DictType):
            for key in _alternatives(node.key_type):
                if not isinstance(key, _KEYS):
                    yield f"a dict key of {_kind(key)}"
        waiting.extend(reversed(_parts(node)))


def _parts(node: Any) -> list[Any]:
    """Return the types inside a type: its fields, items and alternatives."""
    parts: list[Any] = []
    for name in getattr(node, "__struct_fields__", ()):
        part = getattr(node, name)
        for each in part if isinstance(part, tuple) else (part,):
            if isinstance(each, types.Field):
                parts.append(each.type)
            elif isinstance(each, types.Type):
                parts.append(each)
    return parts


def _alternatives(node: types.Type) -> tuple[types.Type, ...]:
    return node.types if isinstance(node, types.UnionType) else (node,)


def _kind(node: types.Type) -> str:
    cls = getattr(node, "cls", None)
    return cls.__qualname__ if cls is not None else type(node).__name__.removesuffix("Type").lower()
