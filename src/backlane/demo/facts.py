"""Facts: what the demonstration learns of one Python file. Pure, but for reading it."""

from __future__ import annotations

import ast
import gc
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

NAMES_KEPT = 500  # of one file: all of them, in all but a few generated files
FUNCTIONS_KEPT = 5
LONGEST_NAME = 80  # generated code has names of kilobytes, and a result has a size limit

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = frozenset(
    {
        ast.If,
        ast.IfExp,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.ExceptHandler,
        ast.Assert,
        ast.comprehension,
        ast.match_case,
    }
)


class Function(msgspec.Struct, frozen=True):
    """A function and how many lines it spans."""

    name: str
    line: int
    lines: int


class Facts(msgspec.Struct, frozen=True):
    """One file: its size, the names it uses, its longest functions, its branches.

    `complexity` is McCabe's number summed over the file: one for each function, and
    one for each place where a path divides. A file that cannot be read or parsed has
    a `problem` and no figures.
    """

    path: str
    lines: int = 0
    complexity: int = 0
    names: dict[str, int] = {}
    functions: list[Function] = []
    problem: str | None = None


def read(path: str) -> Facts:
    """Parse the file; what is wrong with it is a fact about it, never an error."""
    try:
        source = Path(path).read_bytes()
        with warnings.catch_warnings(), _no_collection():
            warnings.simplefilter("ignore")  # a file's old escapes are not ours to report
            tree = ast.parse(source, Path(path).name)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Facts(path, problem=f"{type(error).__name__}: {error}"[:200])
    return _seen(path, source.count(b"\n"), tree)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector from walking a growing tree again and again.

    A tree has no cycles; this saves a fifth to a third of the time of a file.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _seen(path: str, lines: int, tree: ast.Module) -> Facts:
    names: Counter[str] = Counter()
    functions: list[Function] = []
    branches = 0
    for node in ast.walk(tree):
        kind = type(node)
        if isinstance(node, ast.Name):
            names[node.id] += 1
        elif kind in _BRANCHES:
            branches += 1
        elif isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
        elif isinstance(node, _FUNCTIONS):
            functions.append(_function(node))
    longest = sorted(functions, key=lambda function: -function.lines)[:FUNCTIONS_KEPT]
    return Facts(
        path=path,
        lines=lines,
        complexity=len(functions) + branches,
        names={name: times for name, times in names.most_common(NAMES_KEPT) if _fits(name)},
        functions=[function for function in longest if _fits(function.name)],
    )


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    end = node.end_lineno or node.lineno
    return Function(node.name, node.lineno, end - node.lineno + 1)


def _fits(name: str) -> bool:
    return len(name) <= LONGEST_NAME
