"""Strict JSON: bytes of which two readers can never make two different things.

UTF-8 without a mark at its front, no name twice in an object, no NaN or infinity, nothing
nested deeper than `MAX_DEPTH`. What we write ourselves is told by writing it again: a
call of three plain arguments takes about 1 µs. Only what another wrote is walked through.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Never

import msgspec

from backlane.model.codec.json import MAX_DEPTH, is_too_deep

_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def laxity(body: bytes) -> str | None:
    """Say in what these bytes are not strict JSON; None: they are."""
    try:
        value = _decode(body)
    except RecursionError:
        return _TOO_DEEP
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except ValueError as error:
        return f"it is not JSON: {error}"
    if is_too_deep(body):
        return _TOO_DEEP
    try:
        if _encode(value) == body:
            return None  # what is written again as it came has no name twice
    except UnicodeEncodeError:
        return "it is not JSON: it has half a surrogate pair"
    return _walked(body)


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


def _walked(body: bytes) -> str | None:
    try:
        json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        return _TOO_DEEP
    except _Twice as error:
        return f"it has the name {error.name!r} twice in one object"
    except ValueError as error:
        return f"it is not JSON: {error}"
    return None


class _Twice(Exception):
    """A name stands twice in one object."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name, value in pairs:
        if name in made:
            raise _Twice(name)
        made[name] = value
    return made


def _constant(spelled: str) -> Never:
    raise ValueError(f"{spelled} is no number of JSON")
