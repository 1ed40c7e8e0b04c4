"""`backlane run`: a worker for development, started again whenever the code changes."""

from __future__ import annotations

from pathlib import Path

import click

from backlane.cli.child import command_line
from backlane.cli.reload import Reloader
from backlane.cli.worker import WorkerOptions, worker_options

GRACE = 5.0  # seconds: who waits for a restart is a person


@click.command()
@worker_options(grace=GRACE)
@click.option(
    "--watch",
    "directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Restart on changes below this directory; may be repeated.  [default: .]",
)
def run(options: WorkerOptions, directories: tuple[Path, ...]) -> None:
    """Run a worker for development, restarted on change.

    Watches Python files below the current directory. An application that cannot be
    imported is reported, and tried again once its files change.
    """
    command = command_line(options.arguments())
    Reloader(command, directories or (Path.cwd(),), options.grace).run()
