"""`backlane worker`: a supervisor and its executors, until told to stop."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import click
import msgspec

from backlane.cli.application import split
from backlane.worker.supervisor import Supervisor

Command = Callable[..., None]

GRACE = 25.0  # seconds: below the 30 that service managers usually give


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: object, *_: object) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `worker` and `run` are told of the worker to start."""

    target: str
    queues: tuple[str, ...]
    processes: int
    concurrency: int
    grace: float

    def command_line(self) -> list[str]:
        """Return the command that starts a worker with these options."""
        command = [sys.executable, "-m", "backlane", "worker", self.target]
        if self.queues:
            command += ["--queues", ",".join(self.queues)]
        command += ["--processes", str(self.processes), "--concurrency", str(self.concurrency)]
        return [*command, "--grace", str(self.grace)]


def worker_options(*, grace: float) -> Callable[[Command], Command]:
    """Give a command the application and the options of a worker, as `WorkerOptions`."""

    def decorate(command: Command) -> Command:
        @click.argument("target", metavar="MODULE:ATTR", envvar="BACKLANE_APP")
        @click.option("--queues", type=Names(), default=(), metavar="A,B", help="Only these.")
        @click.option("--processes", type=click.IntRange(1), default=1, help="Shared executors.")
        @click.option("--concurrency", type=click.IntRange(1), default=50, help="Jobs at a time.")
        @click.option("--grace", type=click.FloatRange(0), default=grace, help=GRACE_HELP)
        @functools.wraps(command)
        def with_options(**given: object) -> None:
            fields = {name: given.pop(name) for name in WorkerOptions.__struct_fields__}
            options = msgspec.convert(fields, WorkerOptions)
            split(options.target)  # a misspelt target is told here, before processes start
            command(options=options, **given)

        return with_options

    return decorate


GRACE_HELP = "Seconds that running jobs have to finish when it is told to stop."


@click.command()
@worker_options(grace=GRACE)
def worker(options: WorkerOptions) -> None:
    """Run the jobs of an application.

    The first SIGTERM or Ctrl-C lets running jobs finish, the second ends at once.
    SIGHUP starts the executors again one by one, with the code as it is then.
    """
    supervisor = Supervisor(
        options.target,
        queues=options.queues,
        processes=options.processes,
        concurrency=options.concurrency,
        grace=options.grace,
    )
    click.get_current_context().exit(supervisor.run())
