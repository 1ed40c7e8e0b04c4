"""Envelopes: arguments of which some are the results of other jobs, by reference.

    {"$node": {"references": [{"at": ["pages"], "what": "list", "jobs": [...]}]}, "pages": null}

The results themselves are put in when the job starts. No parameter can be named `$node`,
so a body that begins with it is an envelope, and any other one is none: telling them
apart costs one comparison.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from backlane.model.codec.json import encode

MARK = b'{"$node":'

Path = tuple[str | int, ...]


class What(StrEnum):
    """What of the jobs a reference stands for."""

    VALUE = "value"  # the result of the one job
    LIST = "list"  # a list of the result of each
    JOINED = "joined"  # the lists that are their results, one behind the other
    FAILURE = "failure"  # how the one job failed


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where among the arguments something of other jobs goes."""

    at: Path
    jobs: tuple[uuid.UUID, ...]
    what: What = What.VALUE
    partial: bool = False  # null stands for a job that did not succeed

    @property
    def ids(self) -> tuple[bytes, ...]:
        return tuple(job.bytes for job in self.jobs)


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of a body beside the arguments. `keeps`: its result is needed by others."""

    references: tuple[Reference, ...] = ()
    keeps: bool = False


class Hole(NamedTuple):
    """A place among arguments that something not known yet is to fill."""

    at: Path
    filler: object


_decode = msgspec.json.Decoder(Envelope).decode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_enveloped(body: bytes) -> bool:
    return body.startswith(MARK)


def is_needed(body: bytes) -> bool:
    """Whether others need the result of the job with this body, whatever its task keeps."""
    return is_enveloped(body) and opened(body)[0].keeps


def enveloped(envelope: Envelope, arguments: bytes) -> bytes:
    """Return a body that holds both; `arguments` is a JSON object."""
    if envelope == Envelope():
        return arguments
    rest = arguments[1:] if len(arguments) == 2 else b"," + arguments[1:]
    return MARK + encode(envelope) + rest


def opened(body: bytes) -> tuple[Envelope, dict[str, msgspec.Raw]]:
    """Return what a body holds; a plain one has an empty envelope."""
    arguments = _split(body)
    if not is_enveloped(body):
        return Envelope(), arguments
    return _decode(arguments.pop("$node")), arguments


def filled(
    arguments: dict[str, msgspec.Raw],
    references: Sequence[Reference],
    value: Callable[[Reference], bytes],
) -> bytes:
    """Return the arguments with what each reference stands for put in, as JSON."""
    return encode(filled_with(arguments, references, lambda it: msgspec.Raw(value(it))))


def filled_with(
    arguments: dict[str, msgspec.Raw],
    references: Sequence[Reference],
    value: Callable[[Reference], Any],
) -> dict[str, Any]:
    """Return the arguments with any values in place of the references."""
    whole: dict[str, Any] = dict(arguments)
    for reference in references:
        first, *others = reference.at
        if not others:
            whole[str(first)] = value(reference)
            continue
        if isinstance(whole[str(first)], msgspec.Raw):
            whole[str(first)] = msgspec.json.decode(whole[str(first)])
        place = whole[str(first)]
        for step in others[:-1]:
            place = place[step]
        place[others[-1]] = value(reference)
    return whole


def as_list(values: Iterable[bytes]) -> bytes:
    """Return a JSON list of JSON values."""
    return b"[" + b",".join(values) + b"]"


def joined(lists: Iterable[bytes]) -> bytes:
    """Return JSON lists as one, one behind the other."""
    return as_list(inside for one in lists if (inside := one.strip()[1:-1].strip()))


# -- holes --


def holes(value: object, at: Path, is_filler: Callable[[object], bool]) -> list[Hole]:
    """Return the places in a value that are to be filled; lists and dicts are gone through.

    A list of nothing but fillers is one place, with a tuple of them.
    """
    if is_filler(value):
        return [Hole(at, value)]
    found: list[Hole] = []
    if isinstance(value, list | tuple):
        if value and all(map(is_filler, value)):
            return [Hole(at, tuple(value))]
        for number, item in enumerate(value):
            found += holes(item, (*at, number), is_filler)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            found += holes(item, (*at, name), is_filler)
    return found


def emptied(value: object, is_filler: Callable[[object], bool]) -> object:
    """Return a value with null in place of its holes."""
    if is_filler(value):
        return None
    if isinstance(value, list | tuple):
        return [emptied(item, is_filler) for item in value]
    if isinstance(value, Mapping):
        return {name: emptied(item, is_filler) for name, item in value.items()}
    return value
