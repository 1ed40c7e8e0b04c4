"""The index: the facts of all files, gathered into what is worth printing."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

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


def gather(facts: Iterable[Facts], top: int) -> Index:
    """Return the index of all files, `top` entries in each of its lists.

    Reads `facts` once and keeps none of them, for there may be very many.
    """
    names: Counter[str] = Counter()
    functions: list[Place] = []
    complex_files: list[Complexity] = []
    problems: list[Problem] = []
    files = lines = 0
    for file in facts:
        files += 1
        lines += file.lines
        names.update(file.names)
        functions += [Place(each.name, file.path, each.line, each.lines) for each in file.functions]
        functions = heapq.nlargest(top, functions, key=lambda each: each.lines)
        if file.problem is not None:
            problems.append(Problem(file.path, file.problem))
            continue
        complex_files.append(Complexity(file.path, file.complexity, file.lines))
        complex_files = heapq.nlargest(top, complex_files, key=lambda each: each.complexity)
    return Index(
        files=files,
        lines=lines,
        names=names.most_common(top),
        functions=functions,
        complex_files=complex_files,
        problems=problems,
    )
