"""`backlane run`: a worker and a gateway for development, started again when code changes."""

from __future__ import annotations

from pathlib import Path

import click

from backlane.cli.child import command_line
from backlane.cli.reload import Reloader
from backlane.cli.web import missing_web
from backlane.cli.worker import WorkerOptions, worker_options

GRACE = 5.0  # seconds: who waits for a restart is a person


@click.command()
@worker_options(grace=GRACE)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    default=8000,
    help="Of the gateway, for this machine alone; 0: any free one.",
)
@click.option("--no-http", is_flag=True, help="Run no gateway.")
@click.option(
    "--watch",
    "directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Restart on changes below this directory; may be repeated.  [default: .]",
)
def run(options: WorkerOptions, port: int, no_http: bool, directories: tuple[Path, ...]) -> None:
    """Run a worker and a gateway for development, restarted on change.

    Watches Python files below the current directory. An application that cannot be
    imported is reported, and tried again once its files change. Without the libraries of
    the gateway it is the worker alone.
    """
    commands = {"worker": command_line(options.arguments())}
    if not no_http and not missing_web():
        words = ["serve", options.target, "--port", str(port), "--grace", str(options.grace)]
        commands["gateway"] = command_line([*words, "--log-level", options.log_level])
    Reloader(commands, directories or (Path.cwd(),), options.grace).run()
