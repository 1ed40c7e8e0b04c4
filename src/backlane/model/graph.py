"""Graphs: what the records of a workflow's nodes say of the whole.

Pure: records in, in the order of their append, in which each node comes behind what it
waits for.
"""

from __future__ import annotations

from collections.abc import Iterator

from backlane.model.job import JobRecord, State, When


def state_of(end: bytes, nodes: list[JobRecord], handlers: set[bytes]) -> State:
    """Return where a workflow is: `running` while something of it may still run."""
    mine = [node for node in nodes if node.id not in handlers]
    last = next((node for node in nodes if node.id == end), None)
    if last is not None and last.state is State.SUCCEEDED:
        return State.SUCCEEDED
    if any(not node.state.is_final for node in mine):
        has_begun = any(node.token for node in mine)
        return State.RUNNING if has_begun else State.READY
    states = {node.state for node in mine}
    ends = (State.FAILED, State.EXPIRED, State.CANCELLED)
    return next((state for state in ends if state in states), State.SUCCEEDED)


def is_bad(record: JobRecord) -> bool:
    """Whether a node has ended, and did not succeed."""
    return record.state.is_final and record.state is not State.SUCCEEDED


def handlers_of(nodes: list[JobRecord]) -> set[bytes]:
    """The nodes that only run when another fails, and those behind them."""
    found: set[bytes] = set()
    for node in nodes:
        if any(edge.when is When.FAILED or edge.job in found for edge in node.after):
            found.add(node.id)
    return found


def is_unused(node: JobRecord, handlers: set[bytes]) -> bool:
    """Whether a handler is not needed, as far as is known."""
    return node.id in handlers and (node.state is State.BLOCKED or node.state is State.CANCELLED)


def below(root: bytes, nodes: list[JobRecord]) -> set[bytes]:
    """A node and all that wait for it, directly or not; nodes come after what they wait for."""
    found = {root}
    for node in nodes:
        if any(edge.job in found for edge in node.after):
            found.add(node.id)
    return found


def levels(nodes: list[JobRecord]) -> Iterator[list[bytes]]:
    """Yield nodes so that each comes after all that it waits for."""
    depths: dict[bytes, int] = {}
    found: dict[int, list[bytes]] = {}
    for node in nodes:
        depth = 1 + max((depths.get(edge.job, -1) for edge in node.after), default=-1)
        depths[node.id] = depth
        found.setdefault(depth, []).append(node.id)
    for depth in sorted(found):
        yield found[depth]
