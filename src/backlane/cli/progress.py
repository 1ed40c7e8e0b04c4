"""Progress bars: on stderr, and only where that is a terminal.

`rich` draws them where it is installed; a line rewritten in place does otherwise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

import click

from backlane.cli.output import is_terminal

REDRAW_SECONDS = 0.1  # a bar that moves more often is not read better


class Bar(Protocol):
    """Shows how far a long command is."""

    def advance(self, number: int) -> None:
        """`number` more are done."""


class _Silent:
    def advance(self, number: int) -> None:
        pass


class _Line:
    """A line that is rewritten in place: for terminals without rich."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total = label, total
        self._done, self._drawn_at = 0, 0.0

    def advance(self, number: int) -> None:
        self._done += number
        if time.monotonic() - self._drawn_at >= REDRAW_SECONDS:
            self._drawn_at = time.monotonic()
            self.draw()

    def draw(self) -> None:
        of = f" of {self._total:,}" if self._total is not None else ""
        click.echo(f"\r{self._label}: {self._done:,}{of}\x1b[K", err=True, nl=False)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs, if somebody can see it."""
    if not is_terminal(sys.stderr):
        yield _Silent()
    elif find_spec("rich"):
        with _rich_progress(label, total) as bar:
            yield bar
    else:
        line = _Line(label, total)
        try:
            yield line
        finally:
            line.draw()
            click.echo(err=True)


@contextmanager
def _rich_progress(label: str, total: int | None) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=total)

        class RichBar:
            def advance(self, number: int) -> None:
                shown.advance(task, number)

        yield RichBar()
