"""`backlane worker`: a supervisor and its executors, until told to stop."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from backlane.cli.application import check
from backlane.cli.reload import hang_up_on_change
from backlane.worker.recycling import Recycling
from backlane.worker.supervisor import Supervisor

Command = Callable[..., None]

GRACE = 25.0  # seconds: below the 30 that service managers usually give
LEVELS = ("debug", "info", "warning", "error")
# That of the executors, whose lines stand between those of the supervisor.
LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: object, *_: object) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            # A variable that is empty by mistake must not come to mean every queue.
            self.fail(f"{value!r} has an empty name; use names as in mail,video")
        return names


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `worker` and `run` are told of the worker to start."""

    target: str
    queues: tuple[str, ...]
    processes: int
    exclusive: int | None
    concurrency: int
    grace: float
    lease: float
    log_level: str

    def arguments(self) -> list[str]:
        """Return the words behind `backlane` that start such a worker."""
        words = ["worker", self.target]
        for name in self.__struct_fields__[1:]:
            value = getattr(self, name)
            if value not in (None, ()):
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words += [f"--{name.replace('_', '-')}", text]
        return words


_WORKER_OPTIONS = (
    click.argument("target", metavar="MODULE:ATTR", envvar="BACKLANE_APP"),
    click.option("--queues", type=Names(), default=(), metavar="A,B", help="Serve only these."),
    click.option(
        "--processes", type=click.IntRange(1), metavar="N", default=1, help="Shared executors."
    ),
    click.option(
        "--exclusive",
        type=click.IntRange(1),
        metavar="N",
        help="Jobs in own processes.  [one a core]",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1),
        metavar="N",
        default=50,
        help="Jobs of one executor.",
    ),
    click.option(
        "--lease",
        type=click.FloatRange(1),
        metavar="SECONDS",
        default=30.0,
        help="After which jobs of a lost machine run again.",
    ),
    click.option(
        "--log-level", type=click.Choice(LEVELS), default="info", help="What is logged on stderr."
    ),
)


def worker_options(*, grace: float) -> Callable[[Command], Command]:
    """Give a command the application and the options of a worker, as `WorkerOptions`."""
    text = "For running jobs once it is told to stop."

    def decorate(command: Command) -> Command:
        @click.option(
            "--grace", type=click.FloatRange(0), metavar="SECONDS", default=grace, help=text
        )
        @functools.wraps(command)
        def with_options(**given: object) -> None:
            fields = {name: given.pop(name) for name in WorkerOptions.__struct_fields__}
            options = msgspec.convert(fields, WorkerOptions)
            check(options.target)  # a misspelt target is told here, before processes start
            command(options=options, **given)

        decorated: Command = with_options
        for option in reversed(_WORKER_OPTIONS):
            decorated = option(decorated)
        return decorated

    return decorate


@click.command()
@worker_options(grace=GRACE)
@click.option(
    "--reload",
    multiple=True,
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Replace executors when code below it changes; may be repeated.",
)
@click.option(
    "--max-jobs", type=click.IntRange(1), metavar="N", help="Jobs, then a fresh executor."
)
@click.option("--max-rss", type=click.IntRange(1), metavar="MIB", help="Memory, then a fresh one.")
@click.option(
    "--max-age", type=click.FloatRange(1), metavar="SECONDS", help="Age, then a fresh one."
)
def worker(
    options: WorkerOptions,
    reload: tuple[Path, ...],
    max_jobs: int | None,
    max_rss: int | None,
    max_age: float | None,
) -> None:
    """Run the jobs of an application.

    The first SIGTERM or Ctrl-C lets running jobs finish, the second ends at once.
    SIGHUP replaces the executors one by one, with the code as it is then.
    """
    logging.basicConfig(level=options.log_level.upper(), format=LOG_FORMAT)
    supervisor = Supervisor(
        options.target,
        queues=options.queues,
        processes=options.processes,
        exclusive=options.exclusive,
        concurrency=options.concurrency,
        grace=options.grace,
        lease=options.lease,
        recycling=Recycling(jobs=max_jobs, rss_mib=max_rss, age=max_age),
    )
    if reload:
        hang_up_on_change(reload)
    click.get_current_context().exit(supervisor.run())
