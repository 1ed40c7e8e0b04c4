"""Workflows: nodes one behind the other, side by side, and gathered.

    chain(fetch.node(url), resize.node(), publish.node()).enqueue()
    chord([index.node(file) for file in files], total.node()).enqueue()

They only tie nodes together; each may be a part of the next. What has no place in these
shapes is written as it is: `publish.node(fetch.node(url).out)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Generic, TypeVar, cast

from backlane import assembly
from backlane.content import Out
from backlane.errors import BadOption, WrongUse
from backlane.model.job import When
from backlane.node import Node, checked_node
from backlane.options import checked_items
from backlane.workflow_handle import WorkflowHandle

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Workflow(Generic[R_co]):
    """Nodes that belong together, and result in `R_co`. Made by `chain`, `group`, `chord`.

    .. versionadded:: 0.1
    """

    def __init__(self, heads: list[Node[Any]], ends: list[Node[Any]], shape: object) -> None:
        self.heads, self.ends, self.shape = heads, ends, shape

    def __repr__(self) -> str:
        return f"<Workflow of {', '.join(dict.fromkeys(it.origin.task for it in self.ends))}>"

    @property
    def out(self) -> R_co:
        """What it will result in: pass it to a node as an argument."""
        return cast("R_co", self.shape)

    def on_error(self, handler: Node[Any]) -> Workflow[R_co]:
        """Run a node if anything of this fails; return this. See `Node.on_error`."""
        if len(self.ends) != 1:
            raise WrongUse(
                "a group has several ends, and each may fail: give each its own on_error, or "
                "let a chord gather them and handle its error"
            )
        self.ends[0].on_error(handler)
        return self

    def enqueue(self) -> WorkflowHandle[R_co]:
        """Store all of it, durably, or nothing, and return the grip on it; see `Node.enqueue`."""
        return assembly.store(self.shape)

    async def aenqueue(self) -> WorkflowHandle[R_co]:
        """Like `enqueue`."""
        return await assembly.astore(self.shape)

    def come_after(self, shape: object, ends: Iterable[Node[Any]], when: When) -> None:
        """Wait for what was before, and take its result where an argument is missing."""
        waited = list(ends)
        for head in self.heads:
            head.come_after(shape, waited, when)


Part = Node[Any] | Workflow[Any]


def chain(*parts: Part) -> Workflow[Any]:
    """Run parts one behind the other; it results in what the last one does.

    Each part takes the result of the one before as its first argument, if one is missing;
    otherwise it only waits for it. Where one fails, those behind it are skipped.

    .. versionadded:: 0.1
    """
    if not parts:
        raise BadOption("a chain of nothing has nothing to run; give it nodes")
    checked = [_checked(part) for part in parts]
    for before, part in pairwise(checked):
        part.come_after(before.shape, before.ends, When.SUCCEEDED)
    return Workflow(checked[0].heads, checked[-1].ends, checked[-1].shape)


def group(parts: Iterable[Node[R] | Workflow[R]]) -> Workflow[list[R]]:
    """Run parts side by side; it results in the list of what each results in.

    .. versionadded:: 0.1
    """
    checked = [_checked(part) for part in checked_items(parts, "group(…)", "nodes")]
    return Workflow(
        [head for part in checked for head in part.heads],
        [end for part in checked for end in part.ends],
        [part.shape for part in checked],
    )


def chord(
    parts: Iterable[Node[Any] | Workflow[Any]], last: Node[R], *, partial: bool = False
) -> Workflow[R]:
    """Run parts side by side, then a node with the list of what they result in.

    Args:
        last: takes the list as its first argument, if one is missing.
        partial: run it in any case; None stands for the result of a part that failed.

    .. versionadded:: 0.1
    """
    parted = group(parts)
    checked_node(last)
    when = When.ENDED if partial else When.SUCCEEDED
    shape = _partial(parted.shape) if partial else parted.shape
    last.come_after(shape, parted.ends, when)
    return Workflow(parted.heads or [last], [last], last.shape)


def _checked(part: Part) -> Part:
    if not isinstance(part, Node | Workflow):
        raise BadOption(f"{part!r:.200} is no part of a workflow; use task.node(…)")
    return part


def _partial(shape: object) -> object:
    if isinstance(shape, Out):
        return Out(shape.node, partial=True)
    return [_partial(one) for one in cast("list[object]", shape)]
