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


NAMES_KEPT = 20_000  # of one part: more than this many, and a result could grow too large


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What some of the files come to."""

    files: int
    lines: int
    names: dict[str, int]
    functions: list[Place]
    complex_files: list[Complexity]
    problems: list[Problem]


def gather(facts: Iterable[Facts | None], top: int) -> Part:
    """Return what files come to, `top` entries in each list; None is a file without facts.

    Reads `facts` once and keeps none of them, for there may be very many.
    """
    names: Counter[str] = Counter()
    functions: list[Place] = []
    complex_files: list[Complexity] = []
    problems: list[Problem] = []
    files = lines = 0
    for file in facts:
        if file is None:
            continue
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
    return Part(
        files=files,
        lines=lines,
        names=dict(names.most_common(NAMES_KEPT)),
        functions=functions,
        complex_files=complex_files,
        problems=problems,
    )


def joined(parts: Iterable[Part], top: int) -> Index:
    """Return the index of all files, `top` entries in each of its lists."""
    names: Counter[str] = Counter()
    functions: list[Place] = []
    complex_files: list[Complexity] = []
    problems: list[Problem] = []
    files = lines = 0
    for part in parts:
        files += part.files
        lines += part.lines
        names.update(part.names)
        functions += part.functions
        complex_files += part.complex_files
        problems += part.problems
    return Index(
        files=files,
        lines=lines,
        names=names.most_common(top),
        functions=heapq.nlargest(top, functions, key=lambda each: each.lines),
        complex_files=heapq.nlargest(top, complex_files, key=lambda each: each.complexity),
        problems=problems,
    )
