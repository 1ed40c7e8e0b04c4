"""Reloading: what happens when Python files change, and how that is seen.

`watchfiles` tells of changes where it is installed; else the files are looked at
twice a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click

LOOK_SECONDS = 0.5
# Never the project's own code, and often tens of thousands of files.
IGNORED = frozenset({"__pycache__", "site-packages", "node_modules", "venv"})


class Reloader:
    """Keeps children running, and starts them again on change.

    Args:
        commands: the command line of each child, by what people call it.
        directories: where changes count.
        grace: seconds that a child has to end; it is killed soon after.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], directories: Sequence[Path], grace: float
    ) -> None:
        self._commands, self._directories, self._grace = commands, directories, grace
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._is_stopping = False

    def run(self) -> None:
        """Run until SIGINT or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        watched = ", ".join(os.path.relpath(each) for each in self._directories)
        click.echo(f"backlane: watching {watched} for changes; Ctrl-C stops", err=True)
        self._start()
        for changed in changes(self._directories):
            if self._is_stopping:
                break
            if changed:
                click.echo(f"backlane: {_named(changed)} changed; starting again", err=True)
                self._stop()
                self._start()
            self._tell_end()
        self._stop()

    def _on_signal(self, *_: object) -> None:
        # Children are in sessions of their own, so that they hear of each Ctrl-C once:
        # a second signal means at once to them.
        if self._is_stopping:
            for child in self._children.values():
                child.send_signal(signal.SIGTERM)
        self._is_stopping = True

    def _start(self) -> None:
        self._children = {
            name: subprocess.Popen(command, start_new_session=True)  # noqa: S603
            for name, command in self._commands.items()
        }

    def _tell_end(self) -> None:
        for name, child in list(self._children.items()):
            if child.poll() is None:
                continue
            click.echo(
                f"backlane: the {name} ended with status {child.returncode}; "
                "it is started again when a file changes",
                err=True,
            )
            del self._children[name]

    def _stop(self) -> None:
        for child in self._children.values():
            child.terminate()
        ends = time.monotonic() + self._grace + 5
        for child in self._children.values():
            try:
                child.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self._children = {}


def hang_up_on_change(directories: Sequence[Path]) -> None:
    """Send this process SIGHUP whenever Python files change, from a thread."""

    def watch() -> None:
        for changed in changes(directories):
            if changed:
                os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=watch, name="backlane-reload", daemon=True).start()


def _named(changed: set[str]) -> str:
    first = os.path.relpath(min(changed))
    return first if len(changed) == 1 else f"{first} and {len(changed) - 1} more"


def changes(directories: Sequence[Path]) -> Iterator[set[str]]:
    """Yield the Python files that changed, or nothing about twice a second."""
    if find_spec("watchfiles"):
        try:
            yield from _told(directories)
        except OSError as error:  # the system has no watches left for so many directories
            click.echo(f"backlane: {error}; looking twice a second instead", err=True)
    yield from _looked(directories)


def _told(directories: Sequence[Path]) -> Iterator[set[str]]:
    from watchfiles import Change, watch

    def counts(_: Change, path: str) -> bool:
        return _is_source(path)

    found = watch(
        *directories,
        watch_filter=counts,
        yield_on_timeout=True,
        rust_timeout=int(LOOK_SECONDS * 1000),
        raise_interrupt=False,
    )
    for changed in found:
        yield {path for _, path in changed}


def _looked(directories: Sequence[Path]) -> Iterator[set[str]]:
    before = _seen(directories)
    while True:
        time.sleep(LOOK_SECONDS)
        now = _seen(directories)
        yield {path for path, _ in before.items() ^ now.items()}
        before = now


def _seen(directories: Sequence[Path]) -> dict[str, int]:
    """Return each Python file with the time of its last change."""
    seen: dict[str, int] = {}
    for directory in directories:
        for folder, folders, names in os.walk(directory):
            folders[:] = [each for each in folders if each not in IGNORED and each[0] != "."]
            for name in names:
                path = Path(folder, name)
                if name.endswith(".py"):
                    with suppress(OSError):  # deleted meanwhile: the next look tells
                        seen[str(path)] = path.stat().st_mtime_ns
    return seen


def _is_source(path: str) -> bool:
    parts = Path(path).parts
    return path.endswith(".py") and not any(part in IGNORED for part in parts)
