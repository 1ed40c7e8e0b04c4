"""Births: how a supervisor starts an executor's process, and learns of its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backlane.errors import BacklaneError
from backlane.worker.channel import Heard, LoopChannel

ENTRY = "backlane.worker.entry"
POLL_SECONDS = 0.02  # where the system has no descriptor that tells of a process's end


@dataclass(frozen=True, slots=True)
class Birth:
    """What a supervisor tells an executor on its command line."""

    descriptor: int
    parent: int
    kind: str  # "shared" | "exclusive"
    slots: int
    target: str  # "module:attribute"
    log_level: str = "INFO"

    def arguments(self) -> list[str]:
        return [
            str(self.descriptor),
            str(self.parent),
            self.kind,
            str(self.slots),
            self.target,
            self.log_level,
        ]

    @classmethod
    def parsed(cls, arguments: list[str]) -> Birth:
        descriptor, parent, kind, slots, target, log_level = arguments
        return cls(int(descriptor), int(parent), kind, int(slots), target, log_level)


class CannotLoad(BacklaneError):
    """The application could not be imported; the message says which part and why."""


class Process:
    """A running executor process and the channel to it.

    Made in the thread that lives as long as the worker: the kernel ends the process
    when that thread ends.

    Args:
        gone: called once with how the process ended, when all it sent was heard.
    """

    def __init__(
        self,
        arguments: Callable[[int], Birth],
        env: Mapping[str, str] | None,
        heard: Heard,
        gone: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = gone
        ours, theirs = socket.socketpair()
        with theirs:
            birth = arguments(theirs.fileno())
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", ENTRY, *birth.arguments()],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=env,
            )
        self._sock = ours
        self.pid = self._popen.pid
        self.channel = LoopChannel(ours, heard, self._silent)
        self._pidfd = _pidfd(self.pid)
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._ended)
        else:
            self._loop.call_later(POLL_SECONDS, self._poll)

    def welcome(self, descriptors: Sequence[int]) -> None:
        """Pass on the marks and the worker's sign of life; the executor starts to serve."""
        try:
            socket.send_fds(self._sock, [b"!"], list(descriptors))
        except OSError:  # it died meanwhile, which its end tells
            return

    def kill(self) -> None:
        """End the process at once, whatever it runs."""
        self._popen.kill()

    def _silent(self) -> None:
        """Its end of the pipe is closed: the process ends, or has to be made to."""
        self._loop.call_later(5.0, self._popen.kill)

    def _poll(self) -> None:
        if self._popen.poll() is None:
            self._loop.call_later(POLL_SECONDS, self._poll)
        else:
            self._ended()

    def _ended(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        status = self._popen.wait()
        self.channel.read_rest()
        self._told(_how(status))


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _how(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"its process was killed by signal {-status} ({name})"
