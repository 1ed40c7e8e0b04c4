"""A server's process: started with a folder of its own, and ended with ours."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_START = 30.0
PR_SET_PDEATHSIG = 1

living: list[Process] = []


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def humble_user() -> str | None:
    """Return whom a server runs as that refuses to be root; None when we are not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def folder_of(user: str | None, prefix: str) -> Path:
    """Make a folder that belongs to a user; its name is short, for the sake of sockets."""
    made = Path(tempfile.mkdtemp(prefix=f"bl-{prefix}-"))
    if user is not None:
        shutil.chown(made, user)
    return made


@dataclass(slots=True, kw_only=True)
class Process:
    """A process that can be ended, killed and started again on the same folder."""

    command: Sequence[str]
    folder: Path
    ready: Callable[[], bool]
    user: str | None = None
    orderly: signal.Signals = signal.SIGTERM
    group: bool = True  # SIGKILL takes what it has forked too
    longest_start: float = LONGEST_START
    popen: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def pid(self) -> int:
        assert self.popen is not None, "it does not run"
        return self.popen.pid

    def start(self) -> None:
        """Start, and return when it serves."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )
        if self not in living:
            living.append(self)
        limit = time.monotonic() + self.longest_start
        while not self.ready():
            if self.popen.poll() is not None or time.monotonic() > limit:
                said = self.log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"{self.command[0]} did not start:\n{said}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End it as an operator does, and wait."""
        self.signal(self.orderly)
        assert self.popen is not None
        self.popen.wait(LONGEST_START)

    def kill(self) -> None:
        """SIGKILL it, and what it has forked."""
        assert self.popen is not None
        with contextlib.suppress(ProcessLookupError):
            if self.group:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
        self.popen.wait(LONGEST_START)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def remove(self) -> None:
        """End it, however it stands, and leave nothing behind."""
        if self.popen is not None:
            self.kill()
        if self in living:
            living.remove(self)
        shutil.rmtree(self.folder, ignore_errors=True)


def _end_with_us() -> None:
    """Ask Linux for an end when the thread that started it ends, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


@atexit.register
def _end_all() -> None:
    while living:
        living[0].remove()
