"""Which files the demonstration indexes."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

# Inside the standard library's directory, but none of it.
_INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Found:
    """The Python files below a directory, and what could not be looked at."""

    root: Path
    paths: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def standard_library() -> Found:
    """Find every Python file of the running interpreter's standard library."""
    return find(Path(sysconfig.get_path("stdlib")), without=_INSTALLED)


def find(root: Path, *, without: frozenset[str] = frozenset()) -> Found:
    """Find every Python file below `root`, in order; links to directories are not followed."""
    found = Found(root.absolute())

    def unreadable(error: OSError) -> None:
        found.skipped.append(f"{error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(found.root, onerror=unreadable):
        folders[:] = sorted(each for each in folders if each not in without)
        for name in sorted(names):
            path = Path(folder, name)
            if not name.endswith(".py") or not path.is_file():
                continue
            if _is_text(str(path)):
                found.paths.append(str(path))
            else:
                found.skipped.append(f"{str(path)!r}: its name is not text")
    return found


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
