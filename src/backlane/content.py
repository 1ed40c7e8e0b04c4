"""Contents: what a node calls its task with, of which some is what other nodes result in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast

import msgspec
from msgspec.structs import replace

from backlane.draft import Draft
from backlane.errors import BadOption, WrongUse
from backlane.intake import Intake
from backlane.model.codec import Codec
from backlane.model.codec.envelope import Envelope, Hole, enveloped
from backlane.model.job import Job, When
from backlane.model.workflow import Way, calls_of, sliced
from backlane.options import checked_items


class Origin(msgspec.Struct, frozen=True):
    """What the nodes of one task share: how its jobs are made and encoded, and where they go."""

    draft: Draft
    codec: Codec
    intake: Intake

    @property
    def task(self) -> str:
        return self.draft.template.task or ""

    def template(self) -> Job:
        """Return a job without id and arguments."""
        made = self.draft.job(b"{}", self.intake.place.clock)
        return replace(made, id=b"", body=b"")


class Member(Protocol):
    """A node, as far as others have to know it."""

    origin: Origin
    content: Call | Items
    edges: list[tuple[Member, When]]  # beside those of what it uses
    handlers: list[Member]
    is_waited_for: bool  # else it closes no circle, whatever it comes to wait for


class Out:
    """Stands for what a node will result in, among the arguments of another.

    With `partial` None stands for it, if the node does not succeed.
    """

    __slots__ = ("is_failure", "node", "partial")

    def __init__(self, node: Member, *, partial: bool = False, is_failure: bool = False) -> None:
        self.node, self.partial, self.is_failure = node, partial, is_failure

    def __repr__(self) -> str:
        return f"<what {self.node!r} results in>"

    def __iter__(self) -> Any:
        raise WrongUse(
            f"{self!r} is not known yet, so it cannot be gone through here; pass it to a node as "
            "it is, or map a task over it: task.map(node.out)"
        )

    def __bool__(self) -> bool:
        raise WrongUse(
            f"{self!r} is not known yet, so nothing can be decided by it here; decide in the job "
            "that gets it"
        )

    @property
    def when(self) -> When:
        """How the node has to end for who uses this."""
        if self.is_failure:
            return When.FAILED
        return When.ENDED if self.partial else When.SUCCEEDED


def is_out(value: object) -> bool:
    """Whether a value stands for what a node will result in."""
    return type(value) is Out


class Call:
    """The arguments of one call."""

    def __init__(self, codec: Codec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._codec, self.args, self.kwargs = codec, args, kwargs
        self.holes: list[Hole] = []
        self.body = b""
        self._is_whole = not codec.lacks(args, kwargs)
        if self._is_whole:
            self._encode()

    def receive(self, shape: object) -> None:
        """Take this as the first argument, if one is missing."""
        if not self._is_whole:
            self.args = (shape, *self.args)
            self._encode()
            self._is_whole = True

    def check(self) -> None:
        """Refuse to be stored while an argument is missing."""
        if not self._is_whole:
            self._encode()  # raises: says what is missing

    def changed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Return the same call with other arguments."""
        return Call(self._codec, args, kwargs)

    def _encode(self) -> None:
        self.body, self.holes = self._codec.encode_parts(self.args, self.kwargs, is_out)


class Items:
    """The items that a task is mapped over: known ones, or a list that a node results in."""

    def __init__(
        self, codec: Codec, items: Iterable[Any] | None, way: Way, size: int, *, partial: bool
    ) -> None:
        self._codec, self.way, self.size, self.partial = codec, way, size, partial
        self.items: object = items
        if items is not None and not is_out(items):
            checked_items(items, f"{way}(…) of task {codec.name!r}", "items")
        if type(size) is not int or size < 1:
            raise BadOption(f"size is {size!r}; use a whole number from 1")

    @property
    def is_known(self) -> bool:
        return not is_out(self.items)

    @property
    def holes(self) -> list[Hole]:
        return [] if self.is_known else [Hole(("items",), self.items)]

    def receive(self, shape: object) -> None:
        """Go through this, if no items were given."""
        if self.items is None:
            if not is_out(shape):
                raise BadOption(
                    f"task {self._codec.name!r} is mapped over the results of a group; put a node "
                    "between, which takes them as a list and returns the items"
                )
            self.items = shape

    def check(self) -> None:
        """Refuse to be stored without items."""
        if self.items is None:
            raise BadOption(
                f"task {self._codec.name!r} is mapped over no items: give some, or put it behind "
                "a node in a chain"
            )

    def parts(self, *, keeps: bool) -> Iterable[list[msgspec.Raw]]:
        """Yield the bodies of the leaves, slice by slice."""
        calls = calls_of(cast("Iterable[Any]", self.items), self.way, self.size)
        return sliced(
            msgspec.Raw(leaf_body(self._codec, args, number, keeps=keeps))
            for number, args in enumerate(calls)
        )


def leaf_body(codec: Codec, args: tuple[Any, ...], number: int, *, keeps: bool) -> bytes:
    """Return the arguments of the leaf of that number."""
    try:
        body = codec.encode_arguments(args, {})
    except (TypeError, ValueError) as error:
        error.add_note(f"It is item {number} that task {codec.name!r} is mapped over.")
        raise
    return enveloped(Envelope(keeps=keeps), body)
