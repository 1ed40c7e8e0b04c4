"""The application that a command line names, imported as the current directory has it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from backlane.app import Backlane
from backlane.worker.application import load as imported
from backlane.worker.birth import CannotLoad


class NoApplication(click.ClickException):
    """The application that the command line names cannot be had."""

    exit_code = 2


def load(target: str) -> Backlane:
    """Import the application that `module:attribute` names.

    The current directory is searched first, as `python -m` does.

    Raises:
        UsageError: the target is not spelt `module:attribute`.
        NoApplication: with the reason, and the file and line where there is one.
    """
    check(target)
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return imported(target)
    except CannotLoad as error:
        raise NoApplication(str(error)) from error


def check(target: str) -> None:
    """Refuse what is not spelt `module:attribute`.

    Raises:
        UsageError: with the spelling that was probably meant.
    """
    module, colon, attribute = target.partition(":")
    if module.endswith(".py") or "/" in module:
        meant = module.removesuffix(".py").strip("./").replace("/", ".")
        hint = f"{meant}:{attribute or 'app'}"
        raise click.UsageError(f"{target!r} is a path; name the module: {hint}")
    if not all(part.isidentifier() for part in module.split(".")) or (colon and not attribute):
        raise click.UsageError(f"{target!r} is no application; use module:attribute, as jobs:app")
