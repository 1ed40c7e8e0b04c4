"""The book of bad input: each entry is a call that must be refused, and how.

An entry names the errors that a user may be told with. A plain `TypeError` is allowed
only where a function is called with arguments that it does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backlane import Backlane, BacklaneError, Task


@dataclass(frozen=True, slots=True)
class World:
    """What a bad call is made in: a working application and a folder of its own."""

    app: Backlane
    good: Task[[int], int, int]
    folder: Path


@dataclass(frozen=True, slots=True)
class Bad:
    """A call that must be refused: what is wrong, the call, and the errors it may raise."""

    what: str
    call: Callable[[World], object]
    error: type[Exception] | tuple[type[Exception], ...]

    @property
    def name(self) -> str:
        """What is wrong, without addresses: each process gives a test the same name."""
        return ADDRESS.sub("", self.what)


ADDRESS = re.compile(r" at 0x[0-9a-f]*")

# What a message must hold besides the complaint: a clause that begins with what to do.
REMEDY = re.compile(
    r"[;:,.(—] ?(?:it was not, )?(?:or |and |then )?"
    r"(use|pass|give|add|annotate|define|move|raise|retry|wait|enqueue|send|delete|declare|"
    r"leave|make|start|run|name|did you mean|cancel|redrive|read|upgrade|restore|check|choose|"
    r"ask|open|close|copy|free|encode|correct|wrap|say|point|install|set|store|stop|recover|write|"
    r"see|call|its parameters are|expected a UUID)\b"
    r"|Try '"
)


def refusal(bad: Bad, world: World) -> str:
    """Make the call and return what it was refused with; fail if it was not, or badly."""
    try:
        result = bad.call(world)
    except bad.error as error:
        return checked(error)
    except BaseException as error:
        raise AssertionError(f"{bad.what}: raised {type(error).__name__}: {error}") from error
    raise AssertionError(f"{bad.what}: was accepted, and gave {result!r}")


def checked(error: Exception) -> str:
    """Return the message of a refusal; fail if it is not ours, long, or says not what to do."""
    said = str(error)
    assert isinstance(error, (BacklaneError, TypeError)), f"{error!r} is no error of ours"
    assert REMEDY.search(said), f"no remedy in: {said}"
    assert "\n" not in said.strip(), f"more than a line: {said}"
    assert len(said) < 2_000, f"too long to read: {said}"
    return said
