"""The index: the facts of all files, gathered into what is worth printing."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import msgspec

from backlane.demo.facts import Facts


class Place(msgspec.Struct, frozen=True):
    """A function, where it stands, and how long it is."""

    name: str
    path: str
    line: int
    lines: int


class Complexity(msgspec.Struct, frozen=True):
    """A file and the number of paths through it."""

    path: str
    complexity: int
    lines: int


class Problem(msgspec.Struct, frozen=True):
    """A file that could not be read or parsed, and why."""

    path: str
    problem: str


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Totals, and the first few of each list."""

    files: int
    lines: int
    names: list[tuple[str, int]]
    functions: list[Place]
    complex_files: list[Complexity]
    problems: list[Problem]


def gather(facts: Sequence[Facts], top: int) -> Index:
    """Return the index of all files, `top` entries in each of its lists."""
    names: Counter[str] = Counter()
    functions = []
    for file in facts:
        names.update(file.names)
        functions += [Place(each.name, file.path, each.line, each.lines) for each in file.functions]
    parsed = [file for file in facts if file.problem is None]
    complexity = [Complexity(file.path, file.complexity, file.lines) for file in parsed]
    return Index(
        files=len(facts),
        lines=sum(file.lines for file in facts),
        names=names.most_common(top),
        functions=heapq.nlargest(top, functions, key=lambda each: each.lines),
        complex_files=heapq.nlargest(top, complexity, key=lambda each: each.complexity),
        problems=[Problem(each.path, each.problem) for each in facts if each.problem is not None],
    )
