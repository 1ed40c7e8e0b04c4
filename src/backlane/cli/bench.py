"""`backlane bench`: what this machine does, in its own figures and in a bounded time."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path

import apsw
import click
import msgspec

from backlane.cli.interrupt import sigterm_interrupts
from backlane.cli.measure import Bench, Figure
from backlane.cli.output import Output
from backlane.cli.progress import progress


class BenchView(msgspec.Struct, frozen=True):
    """The answer of `bench`."""

    directory: str
    durability: str
    figures: list[Figure]


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(1, 600), metavar="S", default=15.0, help="In all, about."
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where the store is made and removed again: its disk is what counts.",
)
@click.option(
    "--durability",
    type=click.Choice(["full", "normal"]),
    default="full",
    help="normal: what was acknowledged may be lost with the machine's power.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(seconds: float, directory: Path | None, durability: str, as_json: bool) -> None:
    """Measure what this machine does, in a minute.

    Everything is measured in a new SQLite store, the last three through a worker
    process as `backlane worker` starts it. The first figure is SQLite alone: what the
    disk allows for one durable insert a commit. Machines drift: compare the figures of
    one run with each other, and runs only with several of them.
    """
    figures: list[Figure] = []
    with (
        sigterm_interrupts(),
        tempfile.TemporaryDirectory(prefix="backlane-bench-", dir=directory) as made,
        closing(Bench(Path(made).resolve(), durability, seconds)) as run,
        progress("measuring", len(run.parts)) as bar,
    ):
        for part in run.parts:
            figures += part()
            bar.advance(1)
    output = Output(as_json)
    if as_json:
        output.document(BenchView(str(directory or tempfile.gettempdir()), durability, figures))
        return
    where = f"SQLite {apsw.sqlite_lib_version()} in {directory or tempfile.gettempdir()}"
    output.line(f"{where}, durability {durability}, {os.cpu_count()} cores")
    rows = [(figure.name, _spelt(figure), figure.unit, figure.note) for figure in figures]
    output.table(("measured", ">value", "unit", "of"), rows)


def _spelt(figure: Figure) -> str:
    return f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:,.2f}"
