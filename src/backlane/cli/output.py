"""What commands print: aligned tables for people, one JSON document for programs.

Results go to stdout; what is said beside them (progress, questions, errors) goes to stderr, so
that a pipe gets the answer and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TextIO

import click
import msgspec


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's answer goes, and in which form."""

    as_json: bool

    def document(self, answer: object) -> None:
        """Print one JSON document."""
        encoded = msgspec.json.format(msgspec.json.encode(answer), indent=2)
        click.echo(encoded.decode())

    def line(self, text: str = "") -> None:
        click.echo(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under their columns; a column named `>name` is aligned to the right."""
        if not rows:
            return
        if is_terminal(sys.stdout) and find_spec("rich"):
            _rich_table(columns, rows)
        else:
            for line in plain_table(columns, rows):
                click.echo(line)


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether somebody looks; a stream that was closed (`>&-`) is None."""
    return stream is not None and stream.isatty()


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table aligned by spaces."""
    names = [column.lstrip(">") for column in columns]
    cells = [names, *(_one_line(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        padded = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _one_line(row: Sequence[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in row]


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            # An id that is cut cannot be copied; everything else may give way to it.
            no_wrap=column == "id",
            overflow="fold" if column == "id" else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in _one_line(row)))
    Console().print(table)


def age(milliseconds: int | None) -> str:
    """Return a duration in its largest unit that tells something: `12 s`, `3.5 h`."""
    if milliseconds is None:
        return "-"
    seconds = max(0, milliseconds) / 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def size(number: int) -> str:
    """Return bytes in their largest unit: `512 B`, `1.5 MiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(number)


def count(number: int, noun: str) -> str:
    """Return `1 job` or `2 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
