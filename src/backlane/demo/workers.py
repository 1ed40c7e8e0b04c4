"""Worker processes in a directory of their own: how one starts, dies and is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 10.0  # for a worker told to stop that has nothing left to do


class WorkerProcess:
    """One worker: a supervisor and its executors, in a process group of their own.

    Args:
        command: what starts it.
        directory: where it runs, finds its application, and keeps its log.
        name: of the worker, and of its log.
    """

    def __init__(self, command: Sequence[str], directory: Path, name: str) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def group(self) -> int:
        """Its process group, under which it starts functions."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL supervisor and executors at once, as a lost machine would be."""
        with suppress(ProcessLookupError):  # it has ended by itself, which `ended` tells
            os.killpg(self.group, signal.SIGKILL)
        self._process.wait()

    def ended(self) -> str | None:
        """Say how it ended, if it has, with the last line that it logged."""
        code = self._process.poll()
        if code is None:
            return None
        lines = self._log.read_text(errors="replace").splitlines()
        return f"{self.name} ended by itself, status {code}: {lines[-1] if lines else 'no word'}"

    def ask_to_stop(self) -> None:
        """Ask it to end once what it runs is done."""
        self._process.terminate()

    def stop(self) -> None:
        """Ask it to end, and see to it that it does."""
        self.ask_to_stop()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
