"""`module:attribute` -> the application; and why it could not be imported, in one line."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

import click

from backlane.app import Backlane
from backlane.errors import BacklaneError, nearest


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
    module_name, attribute = split(target)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _imported(module_name)
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            known = [each for each, value in vars(module).items() if isinstance(value, Backlane)]
            hint = nearest(name, vars(found) if hasattr(found, "__dict__") else ())
            there = f"; its applications: {', '.join(known)}" if known else hint
            raise NoApplication(f"module {module_name!r} has no {attribute!r}{there}")
        found = getattr(found, name)
    if not isinstance(found, Backlane):
        raise NoApplication(f"{target!r} is a {type(found).__name__}, not a Backlane application")
    return found


def split(target: str) -> tuple[str, str]:
    """Return module and attribute of a target; the attribute is `app` if none is given."""
    module, colon, attribute = target.partition(":")
    if module.endswith(".py") or "/" in module:
        shown = module.removesuffix(".py").strip("./").replace("/", ".")
        raise click.UsageError(
            f"{target!r} is a path; name the module: {shown}:{attribute or 'app'}"
        )
    if not all(part.isidentifier() for part in module.split(".")) or (colon and not attribute):
        raise click.UsageError(
            f"{target!r} is no application; use module:attribute, as in jobs:app"
        )
    return module, attribute or "app"


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NoApplication(
                f"no module {error.name!r} in {Path.cwd()} or on Python's path"
            ) from error
        raise NoApplication(f"cannot import {name!r}: {_reason(error)}") from error
    except SystemExit as error:
        raise NoApplication(f"cannot import {name!r}: it exits when imported") from error
    except Exception as error:  # the application's own code: whatever it raises is its author's
        raise NoApplication(f"cannot import {name!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say an import error in one line, with the place in the application's own code."""
    kind = "" if isinstance(error, BacklaneError) else f"{type(error).__name__}: "
    if isinstance(error, SyntaxError):
        return f"{kind}{error.msg} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not _is_ours(frame.filename)
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{kind}{error}{place}"


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parent.parent)
