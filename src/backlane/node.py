"""Nodes: calls of tasks that are not enqueued yet, and wait for each other's results.

    page = publish.node(resize.node(fetch.node(url).out).out)
    run = page.enqueue()

`node.out` stands for what the node will result in; passed as an argument (also within a
list or dict) it is both: what is waited for, and what is put in. Nothing is stored before
`enqueue`, which stores all nodes that are reached from there, or none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar, cast

from backlane import assembly
from backlane.content import Call, Items, Member, Origin, Out
from backlane.errors import BadOption
from backlane.model.job import When
from backlane.ties import tie
from backlane.workflow_handle import WorkflowHandle

R_co = TypeVar("R_co", covariant=True)


class Node(Generic[R_co]):
    """A call that becomes a job of a workflow; its function returns `R_co`.

    .. versionadded:: 0.1
    """

    def __init__(self, origin: Origin, content: Call | Items) -> None:
        """Be made by `task.node(…)`, `task.map(…)` and their like."""
        _check(origin)
        self.origin, self.content = origin, content
        self.edges: list[tuple[Member, When]] = []
        self.handlers: list[Member] = []
        self.is_waited_for = False

    def __repr__(self) -> str:
        return f"<Node {self.origin.task}>"

    @property
    def out(self) -> R_co:
        """What the node will result in: pass it to another node as an argument."""
        return cast("R_co", self.shape)

    @property
    def out_or_none(self) -> R_co | None:
        """Like `out`, but who uses it runs in any case: None stands for what failed."""
        self.is_waited_for = True
        return cast("R_co | None", Out(self, partial=True))

    def after(self, *nodes: Node[Any], when: When | str = When.SUCCEEDED) -> Self:
        """Let this node wait for others though it uses nothing of them; return it.

        Args:
            when: how they are to end: "succeeded", "failed" or "ended". Where one ends
                otherwise, this node is skipped.

        Raises:
            BadOption: one of them waits for this node, or this one already waits for the
                opposite.
        """
        tie(self, [checked_node(node) for node in nodes], _checked_when(when))
        return self

    def on_error(self, handler: Node[Any]) -> Self:
        """Run another node if this one fails, is cancelled, expires or is skipped; return it.

        The handler's first argument, where one is missing, is the `Failure`. Nodes that
        wait for this one are skipped all the same.

        Raises:
            BadOption: this node waits for the handler, or the handler for its success.
        """
        tie(checked_node(handler), [self], When.FAILED)
        handler.content.receive(Out(self, is_failure=True))
        self.handlers.append(handler)
        return self

    def enqueue(self) -> WorkflowHandle[R_co]:
        """Store this node and all that it waits for, durably, and return the grip on it.

        Raises:
            QueueFull: a queue has no room for all of it; nothing was stored.
            TypeError: a node lacks an argument.
            TooLarge: there are more than 10,000.
            OutcomeUnknown, EngineUnavailable: as `Task.enqueue`.
        """
        return assembly.store(self.shape)

    async def aenqueue(self) -> WorkflowHandle[R_co]:
        """Like `enqueue`."""
        return await assembly.astore(self.shape)

    # -- as a part of something larger --

    @property
    def heads(self) -> list[Node[Any]]:
        """The nodes that begin: those that take what was before."""
        return [self]

    @property
    def ends(self) -> list[Node[Any]]:
        """The nodes that nothing of it waits for."""
        return [self]

    @property
    def shape(self) -> object:
        """What it results in."""
        self.is_waited_for = True
        return Out(self)

    def come_after(self, shape: object, ends: Iterable[Node[Any]], when: When) -> None:
        """Wait for what was before, and take its result if an argument is missing."""
        tie(self, ends, when)
        self.content.receive(shape)


def checked_node(node: Node[Any]) -> Node[Any]:
    """Return a node, or refuse what is none."""
    if not isinstance(node, Node):
        raise BadOption(f"{node!r:.200} is not a node; use task.node(…)")
    return node


def _check(origin: Origin) -> None:
    """Refuse options that name one job, or let another stand for it."""
    draft = origin.draft
    given = {
        "id": draft.id,
        "idempotency_key": draft.idempotency_key,
        "key": draft.template.key,
        "unique": draft.unique,
    }
    for option, value in given.items():
        if value is not None:
            raise BadOption(
                f"{option}= does not go with a node: another job could stand for it, and those "
                "that use its result would wait for one that never comes; leave it out"
                + (": task.using(unique=None).node(…)" if option == "unique" else "")
            )


def _checked_when(when: When | str) -> When:
    try:
        return When(when)
    except ValueError:
        raise BadOption(f"when is {when!r}; use 'succeeded', 'failed' or 'ended'") from None
