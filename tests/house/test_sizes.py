"""A file is one noun of at most 400 lines; a function has at most 50 lines, 8 parameters.

Where a longer one reads better, its reason stands in it: `# long: why`, for a function
in its head, for a file on a line of its own.
"""

from __future__ import annotations

import ast

from tests.house.source import REASON, Source, sources

FILE_LINES = 400
SUITE_LINES = 650  # a suite is one noun too, and reads as a list of sentences
FUNCTION_LINES = 50
PARAMETERS = 8


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    own = taken[:1] and taken[0].arg in ("self", "cls")
    return len(taken) - bool(own)


def has_reason(source: Source) -> bool:
    return any(line.startswith(REASON) for line in source.lines)


def too_long(most: int, *folders: str) -> list[str]:
    return [
        f"{source.name}: {len(source.lines)} lines"
        for source in sources(*folders)
        if len(source.lines) > most and not has_reason(source)
    ]


def test_a_file_has_at_most_400_lines_or_says_why():
    long = too_long(FILE_LINES, "src", "bench")

    assert not long, "\n".join(long)


def test_a_suite_has_at_most_650_lines_or_says_why():
    long = too_long(SUITE_LINES, "tests")

    assert not long, "\n".join(long)


def test_a_function_has_at_most_50_lines_or_says_why():
    long = [
        f"{source.name}:{node.lineno} {node.name}: {length} lines"
        for source in sources("src", "bench")
        for node in source.functions()
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
        and not source.excuses(node)
    ]

    assert not long, "\n".join(long)


def test_a_function_takes_at_most_8_parameters_or_says_why():
    wide = [
        f"{source.name}:{node.lineno} {node.name}: {count} parameters"
        for source in sources("src", "bench")
        for node in source.functions()
        if (count := parameters(node)) > PARAMETERS and not source.excuses(node)
    ]

    assert not wide, "\n".join(wide)
