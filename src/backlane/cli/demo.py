"""`backlane demo`: see thousands of real jobs done, a worker killed, and nothing lost."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from backlane.cli.child import command_line
from backlane.cli.interrupt import sigterm_interrupts
from backlane.cli.output import Output, count, is_terminal
from backlane.cli.root import FAILED
from backlane.demo.account import Account
from backlane.demo.application import TARGET
from backlane.demo.files import Found, find, standard_library
from backlane.demo.index import Index
from backlane.demo.play import Moment, Play

LINE_SECONDS = 2.0  # between lines where no terminal can rewrite one
PROBLEMS_SHOWN = 3


class DemoView(msgspec.Struct, frozen=True):
    """The answer of `demo`: the account and the index."""

    account: Account
    index: Index
    skipped: list[str]


@click.command()
@click.argument(
    "directory",
    required=False,
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
)
@click.option(
    "--url",
    metavar="URL",
    help="Play it on this store, in a queue of its own; else in a SQLite file made for it.",
)
@click.option("--top", type=click.IntRange(1, 100), metavar="N", default=8, help="Rows a table.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def demo(directory: Path | None, url: str | None, top: int, as_json: bool) -> None:
    """Index Python files while a worker is killed.

    Every file of DIRECTORY (else of this Python's standard library) becomes one job,
    parsed in a process of its own by one of two workers. Half-way one whole worker is
    killed with SIGKILL and started again. Exit code 0 only if every acknowledged job
    finished exactly once in the store's account.
    """
    found = standard_library() if directory is None else find(directory)
    if not found.paths:
        raise click.ClickException(f"no Python files in {found.root}")
    click.echo(f"Indexing {count(len(found.paths), 'Python file')} of {found.root}", err=as_json)
    with _stage() as stage, sigterm_interrupts():
        line = LiveLine()
        ending = Play(found.paths, stage, _worker(), line.show, url).run(top)
        line.end()
    if as_json:
        view = DemoView(ending.account, ending.index, found.skipped)
        Output(as_json=True).document(view)
    else:
        _report(Output(as_json=False), ending.index, found)
    for fault in ending.account.faults:
        click.echo(f"backlane: {fault}", err=True)
    click.echo(ending.account.line(), err=as_json)
    if not ending.account.holds:
        click.get_current_context().exit(FAILED)


def _worker() -> list[str]:
    """Return the command of one of the two workers: they share the cores."""
    each = max(1, (os.cpu_count() or 1) // 2)
    return command_line(["worker", TARGET, "--exclusive", str(each)])


@contextmanager
def _stage() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="backlane-demo-") as made:
        yield Path(made).resolve()


class LiveLine:
    """One line that says how far it is: rewritten on a terminal, else repeated."""

    def __init__(self) -> None:
        self._is_terminal = is_terminal(sys.stderr)
        self._shown_at = 0.0
        self._killed = 0

    def show(self, moment: Moment) -> None:
        text = (
            f"queued {moment.queued:>6,}  running {moment.running:>3,}  "
            f"done {moment.done:>6,} of {moment.jobs:,}  {moment.rate:>7,.0f} jobs/s"
        )
        if moment.killed > self._killed:
            self._killed = moment.killed
            self._say("one whole worker was killed with SIGKILL, and is started again")
        if self._is_terminal:
            click.echo(f"\r{text}\x1b[K", err=True, nl=False)
        elif time.monotonic() - self._shown_at >= LINE_SECONDS:
            self._shown_at = time.monotonic()
            click.echo(text, err=True)

    def _say(self, text: str) -> None:
        click.echo(f"\r{text}\x1b[K" if self._is_terminal else text, err=True)

    def end(self) -> None:
        if self._is_terminal:
            click.echo(err=True)


# -- the report --


def _report(output: Output, index: Index, found: Found) -> None:
    root = f"{found.root}{os.sep}"
    output.line()
    output.table(("most used names", ">uses"), [(name, f"{uses:,}") for name, uses in index.names])
    output.line()
    output.table(
        ("longest functions", ">lines", "file"),
        [
            (each.name, f"{each.lines:,}", f"{each.path.removeprefix(root)}:{each.line}")
            for each in index.functions
        ],
    )
    output.line()
    output.table(
        ("files by complexity", ">complexity", ">lines"),
        [
            (each.path.removeprefix(root), f"{each.complexity:,}", f"{each.lines:,}")
            for each in index.complex_files
        ],
    )
    output.line()
    output.line(f"{count(index.files, 'file')}, {count(index.lines, 'line')}")
    _problems(output, index, found)


def _problems(output: Output, index: Index, found: Found) -> None:
    told = [
        f"{each.path.removeprefix(f'{found.root}{os.sep}')}: {each.problem}"
        for each in index.problems
    ]
    told += found.skipped
    if told:
        output.line(f"{count(len(told), 'file')} could not be parsed or read, for example:")
    for each in told[:PROBLEMS_SHOWN]:
        output.line(f"  {each}")
