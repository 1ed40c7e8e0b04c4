"""Ties: which node waits for which, and how that one has to end.

Ties that could never hold are refused where they are written: a node that waits for itself,
by way of others, and one that waits for both the success and the failure of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from backlane.content import Member, Out
from backlane.errors import BadOption
from backlane.model.codec.envelope import Hole
from backlane.model.job import Edge, When

NEVER = {When.SUCCEEDED, When.FAILED}


def fillers(found: Iterable[Hole]) -> list[Out]:
    """The outs that fill these holes."""
    outs: list[Out] = []
    for hole in found:
        outs += (
            [hole.filler] if isinstance(hole.filler, Out) else cast("tuple[Out, ...]", hole.filler)
        )
    return outs


def ties(member: Member) -> Iterator[tuple[Member, When]]:
    """Yield whom a node waits for, and how: what it uses first."""
    for out in fillers(member.content.holes):
        yield out.node, out.when
    yield from member.edges


def tie(member: Member, others: Iterable[Member], when: When) -> None:
    """Let a node wait for others.

    Raises:
        BadOption: it would never run.
    """
    given = list(others)
    before: dict[int, set[When]] = {}
    for other, one in ties(member):
        before.setdefault(id(other), {when}).add(one)
    for other in given:
        if before.get(id(other), set()) >= NEVER:
            raise BadOption(
                f"{member!r} waits for {other!r} to succeed, and for it to fail, so it would never "
                "run; use when='ended' and out_or_none if it is to run in any case"
            )
    if member in given or (member.is_waited_for and _is_reached(member, given)):
        raise BadOption(
            f"{member!r} would wait for itself, by way of {given!r:.200}, which waits for it; "
            "leave this edge out"
        )
    for other in given:
        other.is_waited_for = True
        member.edges.append((other, when))


def _is_reached(member: Member, roots: list[Member]) -> bool:
    """Whether a node is among these, or what they wait for."""
    known, left = {id(root) for root in roots}, list(roots)
    while left:
        one = left.pop()
        if one is member:
            return True
        for other, _ in ties(one):
            if id(other) not in known:
                known.add(id(other))
                left.append(other)
    return False


def folded(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Edges, one to each job: to wait for its end goes along with any other."""
    kept: dict[bytes, Edge] = {}
    for edge in edges:
        before = kept.setdefault(edge.job, edge)
        if before.when is When.ENDED:
            kept[edge.job] = edge
    return tuple(kept.values())


def in_order(ends: list[Member]) -> list[Member]:
    """All that is reached from the ends, each behind what it waits for; handlers too."""
    done: list[Member] = []
    known: set[int] = set()
    roots = list(ends)
    for root in roots:
        stack = [(root, ties(root))] if id(root) not in known else []
        known.add(id(root))
        while stack:
            member, others = stack[-1]
            other, _ = next(others, (None, None))
            if other is None:
                stack.pop()
                done.append(member)
                roots += member.handlers
            elif id(other) not in known:
                stack.append((other, ties(other)))
                known.add(id(other))
    return done
