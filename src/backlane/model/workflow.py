"""Workflows in the store: the tasks of our own that make large maps of small jobs.

A map over many items is cut into slices. A slice is a job that appends its leaves, waits
until all of them have ended, and results in the list of their results. Only some slices run
at a time, each after one a few before it: so there are never more leaves than a queue can
take, no counter that all of them write, and nothing in memory that grows with their number.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import replace

from backlane.errors import BadOption
from backlane.model.ids import derived_ids
from backlane.model.job import DEFAULT_POLICY, DEFAULT_RULE, Edge, Job, When

SLICE_TASK = "backlane.slice"  # appends leaves and gathers their results
SPREAD_TASK = "backlane.spread"  # cuts a list that another job results in
GATHER_TASK = "backlane.gather"  # the end of what has several; does nothing but end
OWN_TASKS = frozenset({SLICE_TASK, SPREAD_TASK, GATHER_TASK})

LEAVES = 500  # of a slice: what one append and one settle take well
SLICE_BYTES = 1024 * 1024  # of arguments: large ones make short slices
WINDOW = 8  # slices that run at a time: four thousand leaves keep many workers busy
OWN_TAGS = "backlane:"  # what the tags begin with that only we set
LEAVES_TAG = f"{OWN_TAGS}leaves="  # how many a slice has, to be read without its body


BEGAN_STEP = "backlane:began"  # when a slice first appended, and how many: ids derive from it
REDRIVE_STEP = "backlane:redrive"  # it failed by leaves, which a redrive of it redrives first


class Way(StrEnum):
    """How an item becomes the arguments of a call."""

    MAP = "map"  # it is the one argument
    STARMAP = "starmap"  # it is a list of them
    CHUNKS = "chunks"  # several items are the one argument


class Slice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a slice: what its leaves have in common, and their arguments."""

    template: Job
    bodies: list[msgspec.Raw]
    partial: bool = False  # null stands for a leaf that did not succeed
    gathers: bool = True  # it results in the list of their results


class Spread(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of what cuts a list that is not known before; `items` are put in."""

    template: Job
    items: msgspec.Raw
    workflow: uuid.UUID
    way: Way = Way.MAP
    size: int = 1
    partial: bool = False
    gathers: bool = True
    keeps: bool = False  # leaves keep results though their task does not


class _Like(msgspec.Struct, frozen=True):
    task: str | None


class _Templated(msgspec.Struct, frozen=True):
    template: _Like


def decode_slice(body: bytes) -> Slice:
    """Return the body of a slice."""
    found: Slice = _decoder(Slice).decode(body)
    return replace(found, template=_plain(found.template))


def decode_spread(body: bytes) -> Spread:
    """Return the body of what makes slices."""
    found: Spread = _decoder(Spread).decode(body)
    return replace(found, template=_plain(found.template))


def _plain(template: Job) -> Job:
    """Return it with the defaults themselves, by which a store tells at a glance what is plain."""
    policy, rule = template.policy, template.rule
    return replace(
        template,
        policy=DEFAULT_POLICY if policy == DEFAULT_POLICY else policy,
        rule=DEFAULT_RULE if rule == DEFAULT_RULE else rule,
    )


@cache
def _decoder(kind: Any) -> Any:
    """Return a decoder, made when it is needed first: few processes read slices."""
    return msgspec.json.Decoder(kind)


encode: Any = msgspec.json.Encoder().encode


def own_job(job: bytes, task: str, body: bytes, like: Job) -> Job:
    """Return a job of one of our own tasks, which waits where jobs like that one wait."""
    return Job(
        id=job,
        queue=like.queue,
        task=task,
        body=body,
        priority=like.priority,
        lane=like.lane,
        parent=like.parent,
        workflow=like.workflow,
        policy=DEFAULT_POLICY,
    )


def leaf(template: Job, parent: bytes, made: bytes, body: bytes) -> Job:
    """Return the leaf with that id (see `leaf_ids`)."""
    return replace(template, id=made, body=body, parent=parent, workflow=None)


def leaf_task(body: bytes) -> str | None:
    """Return which task the leaves of a slice (or of what makes slices) are of."""
    return msgspec.json.decode(body, type=_Templated).template.task


decode_began = msgspec.json.Decoder(tuple[int, int]).decode  # wall clock, how many


def leaf_ids(parent: bytes, began_ms: int, number: int) -> list[bytes]:
    """Return the ids of the leaves of a slice: the same, however often they are made."""
    return derived_ids(began_ms, parent, number)


def leaves_tag(number: int) -> str:
    return f"{LEAVES_TAG}{number}"


def leaves_of(tags: Iterable[str]) -> int | None:
    """Return how many leaves the job with these tags has, if it is a slice."""
    for tag in tags:
        if tag.startswith(LEAVES_TAG):
            return int(tag.removeprefix(LEAVES_TAG))
    return None


def windowed(slices: list[bytes], at: int) -> tuple[Edge, ...]:
    """Return what the slice at that place waits for, so that only some run at a time."""
    return (Edge(slices[at - WINDOW], When.ENDED),) if at >= WINDOW else ()


def calls_of(items: Iterable[Any], way: Way, size: int) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of each call, reading no further than needed.

    Raises:
        BadOption: an item is no list of arguments, and `way` is a starmap.
    """
    source = iter(items)
    if way is Way.CHUNKS:
        while part := list(islice(source, size)):
            yield (part,)
        return
    for number, item in enumerate(source):
        if way is Way.MAP:
            yield (item,)
            continue
        if not isinstance(item, list | tuple):
            raise BadOption(
                f"item {number} of a starmap is {item!r:.100}; give the arguments of each call "
                "as a list or tuple"
            )
        yield tuple(item)


def sliced(bodies: Iterable[msgspec.Raw]) -> Iterator[list[msgspec.Raw]]:
    """Yield the arguments of leaves, slice by slice."""
    part: list[msgspec.Raw] = []
    held = 0
    for body in bodies:
        part.append(body)
        held += len(bytes(body))
        if len(part) >= LEAVES or held >= SLICE_BYTES:
            yield part
            part, held = [], 0
    if part:
        yield part
