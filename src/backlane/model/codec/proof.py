"""Proof: where a value and its encoding part, for people.

Nothing here runs while all is well. Once a value could not be encoded, or did not come
back equal, these functions walk it to name the path: `$.address.zip`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, get_args, get_origin

import msgspec

from backlane.model.codec.hints import is_abstract_sequence
from backlane.model.codec.json import MAX_DEPTH, encode, is_pydantic, plain

_NOT_PLAIN = (
    "pass plain data, a dataclass, or a msgspec, pydantic or attrs object; "
    "for anything else pass what it can be found by, such as an id or a path"
)
_ODD_OFFSET = (
    "a time with this offset would come back changed; pass one whose offset is whole minutes, "
    "such as UTC"
)
_LISTS = (list, tuple, set, frozenset)


class Found(msgspec.Struct, frozen=True):
    """A value that cannot be stored, and why."""

    path: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.path}: {self.why}"


def unencodable(value: Any, path: str = "$") -> Found:
    """Return the innermost part of `value` that cannot be encoded."""
    return _unencodable(value, path, ()) or Found(path, "cannot be encoded; pass plain data")


def _unencodable(value: Any, path: str, above: tuple[int, ...]) -> Found | None:
    if id(value) in above:
        return Found(path, "refers to itself, which JSON cannot; pass ids instead of references")
    if len(above) > MAX_DEPTH:
        return too_deep(path)
    try:
        encode(value)
        return None
    except Exception as error:  # noqa: BLE001 - the user's own encoder may raise anything
        reason = error
    for part, inner in parts(value, path):
        found = _unencodable(inner, part, (*above, id(value)))
        if found is not None:
            return found
    if issubclass(type(value), dict):
        for key in value:
            found = _unencodable_key(key, path)
            if found is not None:
                return found
    return Found(path, _why(value, reason))


def _unencodable_key(key: Any, path: str) -> Found | None:
    try:
        encode({key: None})
        return None
    except UnicodeEncodeError as error:
        return Found(_at(path, key), _why(key, error))
    except Exception:  # noqa: BLE001 - as above; the kind of the key is what helps
        why = f"a dict key of {type(key).__name__} cannot be stored; use text or numbers as keys"
        return Found(_at(path, key), why)


def _why(value: Any, error: Exception) -> str:
    match error:
        case UnicodeEncodeError():
            return (
                "text with a lone surrogate cannot be stored; pass bytes, or replace what is "
                "not valid Unicode"
            )
        case RecursionError():
            return f"is nested too deeply (at most {MAX_DEPTH} levels); pass flatter data"
        case ValueError() if "digits" in str(error):
            return "a whole number of more than 4300 digits cannot be stored; pass it as text"
        case TypeError() if "has no encoding" in str(error):
            return f"{error}; {_NOT_PLAIN}"
    return f"{type(value).__name__} could not be encoded: {said(error)}; {_NOT_PLAIN}"


def too_deep(path: str = "$") -> Found:
    """Return the finding that data is nested beyond `MAX_DEPTH`."""
    return Found(path, f"is nested too deeply (at most {MAX_DEPTH} levels); pass flatter data")


def not_finite(value: Any, path: str = "$") -> Found | None:
    """Return the first NaN or infinity in `value`: JSON has no such numbers."""
    kind = type(value)
    finite = (
        math.isfinite(value)
        if issubclass(kind, float)
        else not issubclass(kind, Decimal) or value.is_finite()
    )
    if not finite:
        return Found(path, f"{value} cannot be stored: JSON has no such number; pass None or text")
    for part, inner in parts(value, path):
        found = not_finite(inner, part)
        if found is not None:
            return found
    return None


def difference(value: Any, back: Any, hint: Any, path: str) -> Found | None:
    """Return where `back`, decoded as `hint`, is not what `value` was; None if it is.

    Stricter than nothing and wider than `==`: objects without an `__eq__` of their own
    are compared by their fields, times as instants (two zones in a repeated hour never
    compare equal), and any sequence passes as `Sequence`, which comes back as a list.
    """
    if _equals(value, back):
        return None
    if isinstance(value, datetime) and isinstance(back, datetime):
        same = value.tzinfo and back.tzinfo and value.timestamp() == back.timestamp()
        return None if same else Found(path, _ODD_OFFSET)
    hint, alternatives = _alternatives(hint)
    if alternatives:
        found = [difference(value, back, each, path) for each in alternatives]
        return None if None in found else max(found, key=_depth)
    if is_abstract_sequence(hint) and isinstance(value, _LISTS) and isinstance(back, list):
        return _in_order(list(value), back, hint, path)
    if type(value) is not type(back):
        return Found(path, f"expected {type(back).__name__}, got {_kind(value)}{_advice(hint)}")
    if isinstance(value, list | tuple):
        return _in_order(value, back, hint, path)
    if not _has_parts(value):
        return Found(path, f"would come back changed{_advice(hint)}")
    inner, inner_back = dict(parts(value, path)), dict(parts(back, path))
    for part in [part for part in inner if part not in inner_back]:
        return Found(part, f"would be lost or come back under another key{_advice(hint)}")
    hints = _field_hints(value, hint, path)
    for part, each in inner.items():
        found_inside = difference(each, inner_back[part], hints.get(part, Any), part)
        if found_inside is not None:
            return found_inside
    return None


def _equals(value: Any, back: Any) -> bool:
    try:
        return bool(value == back)
    except Exception:  # noqa: BLE001 - the user's own __eq__; whatever it raises, not equal
        return False


def _in_order(value: Any, back: Any, hint: Any, path: str) -> Found | None:
    if len(value) != len(back):
        return Found(path, "would come back with another length; pass a list")
    for i, (one, other) in enumerate(zip(value, back, strict=True)):
        found = difference(one, other, _item_hint(hint, i), f"{path}[{i}]")
        if found is not None:
            return found
    return None


def _item_hint(hint: Any, i: int) -> Any:
    inside = get_args(hint)
    if not inside:
        return Any
    if get_origin(hint) is tuple and inside[-1] is not Ellipsis:
        return inside[i] if i < len(inside) else Any
    return inside[0]


def _field_hints(value: Any, hint: Any, path: str) -> dict[str, Any]:
    """Return the hints of a value's parts, by their paths."""
    if isinstance(value, dict):
        if typing.is_typeddict(hint):
            fields = typing.get_type_hints(hint)
            return {_at(path, key): fields.get(key, Any) for key in value}
        inside = get_args(hint)
        each = inside[1] if len(inside) == 2 else Any
        return {_at(path, key): each for key in value}
    kind = type(value)
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # noqa: BLE001 - hints only help here: without them, compare as Any
        return {}
    if isinstance(value, msgspec.Struct):
        names = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
        return {f"{path}.{name}": hints.get(field, Any) for field, name in names}
    return {f"{path}.{name}": each for name, each in hints.items()}


def _alternatives(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    while get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    if isinstance(hint, typing.NewType):
        return _alternatives(hint.__supertype__)
    if get_origin(hint) is typing.Union or type(hint) is type(int | str):
        return hint, get_args(hint)
    return hint, ()


def _depth(found: Found | None) -> int:
    return len(found.path) if found else 0


def _kind(value: Any) -> str:
    return type(value).__qualname__


def _advice(hint: Any) -> str:
    if hint is Any:
        return (
            "; under Any (or without an annotation) only JSON values pass unchanged: annotate it "
            "with its type, or pass None, text, numbers, lists and dicts with text keys"
        )
    return "; pass what the annotation says, or change the annotation"


def parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what is inside a value, with the path of each."""
    kind = type(value)  # not isinstance(), which asks the value itself
    if issubclass(kind, dict):
        for key, inner in value.items():
            yield _at(path, key), inner
    elif issubclass(kind, _LISTS):
        for i, inner in enumerate(value):
            yield f"{path}[{i}]", inner
    elif issubclass(kind, msgspec.Struct):
        names = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
        for field, name in names:
            yield f"{path}.{name}", getattr(value, field, None)
    else:
        for field in _fields(kind):
            yield f"{path}.{field}", getattr(value, field, None)


def _has_parts(value: Any) -> bool:
    kind = type(value)
    return (
        isinstance(value, dict | msgspec.Struct)  # sets have no order to compare in
        or dataclasses.is_dataclass(kind)
        or is_pydantic(kind)
        or hasattr(kind, "__attrs_attrs__")
    )


def _fields(kind: type) -> list[str]:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if is_pydantic(kind):
        return list(typing.cast(Any, kind).model_fields)
    return [attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())]


def _at(path: str, key: Any) -> str:
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key:.60}"
    try:
        return f"{path}[{key!r:.60}]"
    except Exception:  # noqa: BLE001 - a __repr__ of the user's, and this reports a failure
        return f"{path}[{type(key).__name__}]"


def said(error: BaseException) -> str:
    """Return an error's text in one short line, whatever its `__str__` does."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a __str__ of the user's, and this reports a failure
        text = ""
    return text[:300] or type(error).__name__


def narrowed(error: msgspec.ValidationError, body: bytes, decode: Callable[[bytes], Any]) -> Found:
    """Return where a typed decoder stopped, with the keys of dicts, which it leaves out."""
    path, why = _split(str(error))
    document = plain(body) if "[...]" in path else None
    while "[...]" in path:
        before, _, after = path.partition("[...]")
        holder = _resolve(document, before)
        if not isinstance(holder, dict) or not holder:
            break
        key = _culprit(document, holder, str(error), decode)
        if key is None:
            break
        path = _at(before, key) + after
    return Found(path, why)


def _culprit(
    document: Any, holder: dict[str, Any], message: str, decode: Callable[[bytes], Any]
) -> str | None:
    """Return the key whose value the decoder refuses: halve the dict until one is left."""
    entries = dict(holder)
    while len(entries) > 1:
        some = dict(list(entries.items())[: len(entries) // 2])
        holder.clear()
        holder.update(some)
        if not _fails_so(document, message, decode):
            some = {key: entries[key] for key in entries if key not in some}
        entries = some
    holder.clear()
    holder.update(entries)
    return next(iter(entries)) if _fails_so(document, message, decode) else None


def _fails_so(document: Any, message: str, decode: Callable[[bytes], Any]) -> bool:
    try:
        decode(encode(document))
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _resolve(document: Any, path: str) -> Any:
    """Return the part of a plain document at a path that msgspec wrote."""
    for step in _steps(path):
        try:
            document = document[step]
        except (LookupError, TypeError):
            return None
    return document


def _steps(path: str) -> Iterator[str | int]:
    for part in path.removeprefix("$").replace("[", ".[").split("."):
        if part.startswith("["):
            inside = part[1:-1]
            yield int(inside) if inside.isdigit() else inside.strip("'")
        elif part:
            yield part


def _split(message: str) -> tuple[str, str]:
    why, _, where = message.rpartition(" - at ")
    if not why:
        why, where = message, "`$`"
    in_key = where.startswith("`key")
    path = where.split("`")[-2] if in_key else where.strip("`")
    why = why.replace("`", "")
    why = why[:1].lower() + why[1:]
    return path, f"a key: {why}" if in_key else why
