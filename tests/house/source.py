"""The project's own source, read as files and as syntax trees."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REASON = "# long: "  # an exception to a size rule carries its reason behind this


@dataclass(frozen=True)
class Source:
    """One file: where it is, its lines, its tree."""

    path: Path
    lines: tuple[str, ...]
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def excuses(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Say whether a reason stands in the head of the function."""
        return any(REASON in line for line in self.lines[node.lineno - 1 : node.body[0].lineno])


@functools.cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Read every Python file under these folders of the project."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if any(part.startswith(".") for part in path.relative_to(ROOT).parts):
                continue  # an environment that a tool made
            text = path.read_text(encoding="utf-8")
            found.append(Source(path, tuple(text.splitlines()), ast.parse(text)))
    assert found, f"no source under {folders}: this test would check nothing"
    return tuple(found)
