"""The `backlane` command: which commands there are, and how each of them ends.

Command modules are imported when they are named, so that `--help` and completion
stay quick. Whatever goes wrong for a reason that is the user's to mend ends as one
line on stderr and an exit code; a traceback means a fault of ours.

Exit codes: 0 done; 1 what was asked for failed or was not found; 2 wrong use of the
command line; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from backlane.errors import BacklaneError, BadOption, UnknownOption, nearest

# What `--help` says of each. A test holds the texts to what the commands say themselves;
# a command is the attribute of its own name in the module of that name.
COMMANDS = {
    "worker": "Run the jobs of an application.",
    "run": "Run a worker and a gateway for development, restarted on change.",
    "serve": "Serve an application over HTTP.",
    "token": "Add, list and remove tokens of the gateway.",
    "enqueue": "Enqueue one call of a task.",
    "jobs": "List, show, retry, cancel and delete jobs.",
    "workflows": "Show, cancel and retry workflows.",
    "queues": "List, show, pause, resume, purge and tune queues.",
    "schedules": "List, put, pause, resume, remove and run schedules.",
    "limits": "List limits, and tune them at run time.",
    "resources": "List resources, pause and resume the jobs that depend on them.",
    "dead": "List dead letters and run them again.",
    "migrate": "Bring a store's schema up to date.",
    "move": "Move a live system from one store to another.",
    "doctor": "Look for settings and states that lose jobs or time.",
    "capacity": "Tell how long jobs wait and how many slots would do.",
    "bench": "Measure what this machine does, in a minute.",
    "demo": "Index Python files while a worker is killed.",
}

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
EXPECTED = (click.ClickException, click.Abort, BacklaneError, KeyboardInterrupt, OSError)


class Root(click.Group):
    """The group of all commands: imports them when named, and ends them cleanly."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"backlane.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *_: object,
        **extra: Any,  # click's own: handed on as it is
    ) -> NoReturn:
        """Run the command and exit; every expected error is one line on stderr.

        Click's own way of ending, which `standalone_mode` asks for, is replaced.
        """
        extra.pop("standalone_mode", None)
        try:
            code = super().main(args, prog_name or "backlane", standalone_mode=False, **extra)
            if sys.stdout is not None:  # closed by `>&-`
                sys.stdout.flush()
        except EXPECTED as error:
            code = _explained(error)
        sys.exit(code if isinstance(code, int) else 0)


def _explained(error: BaseException) -> int:
    """Say in one line what went wrong and return the exit code."""
    match error:
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else "backlane"
            return _told(f"{error.format_message()} (see `{where} --help`)", WRONG_USE)
        case click.Abort() | KeyboardInterrupt():
            return _told("interrupted", INTERRUPTED)
        case click.ClickException():
            return _told(error.format_message(), error.exit_code)
        case BadOption() | UnknownOption():
            return _told(str(error), WRONG_USE)
        case BacklaneError():
            return _told(str(error), FAILED)
        case BrokenPipeError():
            # The reader (`| head`) has left. Python would complain again when it
            # flushes stdout at exit, so give it another place to write to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        case OSError():
            return _told(str(error), FAILED)
    raise error


def _told(message: str, code: int) -> int:
    click.echo(f"backlane: {' '.join(message.split())}", err=True)
    return code


@click.group(
    "backlane",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="backlane", prog_name="backlane")
def main() -> None:
    """Asynchronous work that can be trusted.

    Commands that look at a store take --url sqlite:///jobs.db or --app module:attribute,
    else BACKLANE_URL or BACKLANE_APP from the environment. Exit codes: 0 done, 1 failed
    or not found, 2 wrong use.
    """
