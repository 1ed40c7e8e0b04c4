"""`module:attribute` -> the application; and why it cannot be had, in one line."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import ModuleType

from backlane.app import Backlane
from backlane.errors import BacklaneError, nearest
from backlane.worker.birth import CannotLoad


def load(target: str) -> Backlane:
    """Import the application; the attribute is `app` where none is given.

    Raises:
        CannotLoad: with the reason, and the file and line where there is one.
    """
    module_name, _, attribute = target.partition(":")
    attribute = attribute or "app"
    module = _imported(module_name, target)
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise CannotLoad(f"module {module_name!r} has no {attribute!r}{_hint(module, name)}")
        found = getattr(found, name)
    if not isinstance(found, Backlane):
        kind = type(found).__name__
        raise CannotLoad(f"{target!r} is a {kind}, not a Backlane{_hint(module, attribute)}")
    return found


def _hint(module: ModuleType, name: str) -> str:
    applications = [each for each, value in vars(module).items() if isinstance(value, Backlane)]
    if applications:
        return f" (did you mean {module.__name__}:{applications[0]}?)"
    return nearest(name, vars(module))


def _imported(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise CannotLoad(_failure(target, error)) from error
        raise CannotLoad(
            f"no module {error.name!r} for {target!r}; run from the directory that holds it, "
            "or set PYTHONPATH"
        ) from error
    except BaseException as error:  # the application's own code may raise anything, or exit
        raise CannotLoad(_failure(target, error)) from error


def _failure(target: str, error: BaseException) -> str:
    """Say an error of the application's own code, with the place where it was raised."""
    kind = "" if isinstance(error, BacklaneError) else f"{type(error).__name__}: "
    if isinstance(error, SyntaxError):
        place = _at(error.filename, error.lineno)
        return f"importing {target!r} failed with {kind}{error.msg}{place}; correct it there"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and not _is_ours(frame.filename)
    ]
    place = _at(frames[-1].filename, frames[-1].lineno) if frames else ""
    return f"importing {target!r} failed with {kind}{error}{place}; correct it there"


def _at(filename: str | None, line: int | None) -> str:
    return f" ({filename}, line {line})" if filename else ""


def _is_ours(filename: str) -> bool:
    """Say whether it is code of this package, or of the import system that it calls."""
    return filename == importlib.__file__ or Path(filename).is_relative_to(
        Path(__file__).parents[1]
    )
