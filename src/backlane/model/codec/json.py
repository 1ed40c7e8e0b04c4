"""JSON as backlane writes and reads it: msgspec, and what msgspec does not know.

Added to msgspec's own types: pathlib's paths, pydantic models, `object` (as Any), and
instances of subclasses of plain types (a `str` of one's own, a `datetime` of a library
that fakes time), which are written as their plain type.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec

# Deep enough for data that people make; far from Python's recursion limit (1,000 by
# default), so that what was encoded near the bottom of the stack decodes near its top.
MAX_DEPTH = 100


def encode_foreign(value: Any) -> Any:
    """Return what msgspec can write for a value that it does not know itself.

    Raises:
        TypeError: the value has no encoding.
    """
    # By type() and not isinstance(): a proxy may answer for its __class__ what it likes.
    kind = type(value)
    if is_path(kind):
        return str(value)
    for plain_kind, plainly in _PLAINLY.items():
        if issubclass(kind, plain_kind):
            return plainly(value)
    if is_pydantic(kind):
        return msgspec.Raw(_pydantic_json(value))
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} has no encoding")


def decode_foreign(kind: Any, plain_value: Any) -> Any:
    """Return an instance of `kind`, which msgspec does not know, from plain JSON values."""
    if kind is object:
        return plain_value
    if isinstance(kind, type):
        if is_path(kind):
            if not isinstance(plain_value, str):
                raise TypeError(f"Expected `str`, got `{type(plain_value).__name__}`")
            return kind(plain_value)
        if is_pydantic(kind):
            # By way of JSON: a strict model takes text for a UUID or a date only there.
            return cast(Any, kind).model_validate_json(encode(plain_value))
    raise TypeError(f"{kind!r} cannot be decoded")


def knows(kind: object) -> bool:
    """Say whether `decode_foreign` can make this class."""
    return isinstance(kind, type) and (kind is object or is_path(kind) or is_pydantic(kind))


def is_path(kind: type) -> bool:
    """Say whether `kind` is one of pathlib's paths, without importing pathlib."""
    # Whoever has a path has imported it; for everyone else it would be 5 ms of their start.
    pathlib = sys.modules.get("pathlib")
    return pathlib is not None and issubclass(kind, pathlib.PurePath)


def is_pydantic(kind: type) -> bool:
    """Say whether `kind` is a pydantic model, without importing pydantic."""
    # The same: one dict lookup for everyone who has no model.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _pydantic_json(model: Any) -> bytes:
    config = model.model_config
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    text: str = model.model_dump_json(by_alias=not by_name, round_trip=True)
    return text.encode()


def _plain_datetime(value: datetime) -> datetime:
    return datetime.combine(_plain_date(value), _plain_time(value.timetz()))


def _plain_date(value: date) -> date:
    return date(value.year, value.month, value.day)


def _plain_time(value: time) -> time:
    return time(
        value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold
    )


# How an instance of a subclass becomes one of the type itself. A datetime is a date, so
# it comes first.
_PLAINLY: Mapping[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    datetime: _plain_datetime,
    date: _plain_date,
    time: _plain_time,
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
    Decimal: Decimal,
    UUID: lambda value: UUID(int=value.int),
}


encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=encode_foreign).encode


def decoder(hint: Any) -> Callable[[bytes], Any]:
    """Return a function that decodes JSON to `hint`.

    Raises:
        TypeError, NameError: `hint` is nothing that msgspec can decode to.
    """
    return msgspec.json.Decoder(hint, dec_hook=decode_foreign).decode


_decode_any: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def plain(data: bytes) -> object:
    """Return stored bytes as people can read them: JSON values, or text where it is no JSON.

    Never raises: what cannot be decoded is what one most wants to look at.
    """
    try:
        return cast(object, _decode_any(data))
    except (ValueError, RecursionError):
        return data.decode("utf-8", "backslashreplace")


_ONLY_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))


def is_too_deep(body: bytes) -> bool:
    """Say whether a valid JSON document is nested deeper than `MAX_DEPTH`.

    Works on whole documents in C, for it runs on every large body: 1 MiB takes about
    1 ms, where a loop over its values would take ten times the encoding.
    """
    if len(body) <= 2 * MAX_DEPTH or body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    # Escaped quotes must go before the unescaped ones can delimit strings.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(bare.translate(_ONLY_BRACKETS, _ALL_BUT_BRACKETS).split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # one level off all innermost ends
        if not brackets:
            return False
    return True
