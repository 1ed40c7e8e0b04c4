"""Bad command lines: one clear line, an exit status, and never a traceback."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from click.testing import CliRunner
from tests.bad_input.book import Bad, World

from backlane import BacklaneError
from backlane.cli import main

STORE = ("--url", "sqlite:///jobs.db")
NOTHING = "00000000-0000-7000-8000-000000000000"

LINES: list[tuple[str, ...]] = [
    ("nosuch",),
    ("jobs", "nosuch"),
    ("jobs", "list", "--nosuch"),
    ("jobs", "list"),
    ("jobs", "list", "--url", "jobs.db"),
    ("jobs", "list", "--url", "sqlight:///jobs.db"),
    ("jobs", "list", "--url", "sqlite:///missing/jobs.db"),
    ("jobs", "list", "--url", "sqlite:///text.db"),
    ("jobs", "list", "--app", "nosuch:app"),
    ("jobs", "list", "--app", "broken:app"),
    ("jobs", "list", "--app", "broken"),
    ("jobs", "list", *STORE, "--state", "lost"),
    ("jobs", "list", *STORE, "--reason", "tired"),
    ("jobs", "list", *STORE, "--limit", "0"),
    ("jobs", "list", *STORE, "--limit", "many"),
    ("jobs", "list", *STORE, "--after", "here"),
    ("jobs", "show", *STORE),
    ("jobs", "show", "x", *STORE),
    ("jobs", "show", NOTHING, *STORE),
    ("jobs", "cancel", "x", *STORE),
    ("jobs", "cancel", NOTHING, *STORE),
    ("jobs", "retry", NOTHING, *STORE),
    ("jobs", "delete", "x", "-y", *STORE),
    ("queues", "pause", *STORE),
    ("queues", "pause", "nosuch", *STORE),
    ("queues", "tune", "nosuch", "--max-jobs", "0", *STORE),
    ("queues", "tune", "nosuch", "--max-bytes", "much", *STORE),
    ("queues", "tune", "nosuch", "--max-jobs", "5", *STORE),
    ("queues", "tune", "nosuch", "--max-wait", "soon", *STORE),
    ("queues", "tune", "nosuch", "--max-wait", "0", *STORE),
    ("queues", "tune", "nosuch", "--max-wait", "nan", *STORE),
    ("queues", "tune", "nosuch", "--group-share", "0", *STORE),
    ("queues", "tune", "nosuch", "--group-share", "1.1", *STORE),
    ("queues", "show", *STORE),
    ("queues", "show", "nosuch", *STORE),
    ("dead", "redrive", *STORE),
    ("dead", "redrive", "x", *STORE),
    ("enqueue",),
    ("enqueue", "nosuch:app", "good"),
    ("enqueue", "broken:app", "good"),
    ("enqueue", "shop:nosuch", "good"),
    ("enqueue", "shop:app", "godo"),
    ("enqueue", "shop:app", "good"),
    ("enqueue", "shop:app", "good", "y=1"),
    ("enqueue", "shop:app", "good", "x=text"),
    ("enqueue", "shop:app", "good", "x=1", "--priority", "10"),
    ("enqueue", "shop:app", "good", "x=1", "--delay", "-1"),
    ("enqueue", "shop:app", "good", "x=1", "--on-full", "block"),
    ("enqueue", "shop:app", "good", "x=1", "--on-full-timeout", "-1"),
    ("enqueue", "shop:app", "good", "x=1", "--delay", "soon"),
    ("enqueue", "shop:app", "good", "x=1", "--queue", "a b"),
    ("enqueue", "shop:app", "good", "x=1", "--id", "x"),
    ("worker",),
    ("worker", "nosuch:app"),
    ("worker", "broken:app"),
    ("worker", "shop:app", "--processes", "0"),
    ("worker", "shop:app", "--concurrency", "0"),
    ("worker", "shop:app", "--concurrency", "many"),
    ("worker", "shop:app", "--grace", "-1"),
    ("worker", "shop:app", "--log-level", "loud"),
    ("worker", "shop:app", "--queues", "nosuch"),
    ("migrate", "--url", "sqlite:///text.db"),
    ("migrate", "--url", "sqlite:///missing/jobs.db"),
]

SHOP = """
from backlane import Backlane, Queue
app = Backlane("sqlite:///jobs.db", queues=[Queue("mail")])
@app.task(name="good")
def good(x: int) -> int:
    return x
"""


class SaidNo(BacklaneError):
    """A command ended with an error; the message is what it printed."""


def cases() -> Iterator[Bad]:
    """Yield every case of this file."""
    for line in LINES:
        yield Bad(f"backlane {' '.join(line)}", _running(line), SaidNo)


def _ran(line: tuple[str, ...]) -> tuple[int, str]:
    """Return exit status and output; a worker gets a process, for it starts some itself."""
    if line[:1] == ("worker",):
        command = [sys.executable, "-m", "backlane", *line]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return ended.returncode, ended.stdout + ended.stderr
    done = CliRunner().invoke(main, list(line))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@contextlib.contextmanager
def _nothing_stays_imported() -> Iterator[None]:
    """Forget the applications of this folder: other tests call theirs by the same names."""
    path = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in ("shop", "broken"):
            sys.modules.pop(name, None)


def _running(line: tuple[str, ...]) -> Callable[[World], object]:
    def call(world: World) -> object:
        (world.folder / "shop.py").write_text(SHOP)
        (world.folder / "broken.py").write_text("import nosuch_module_of_theirs\n")
        (world.folder / "text.db").write_text("a text\n" * 1_000)
        with contextlib.chdir(world.folder), _nothing_stays_imported():
            for name in ("BACKLANE_URL", "BACKLANE_APP"):
                os.environ.pop(name, None)
            status, said = _ran(line)
        assert "Traceback" not in said, said
        if status == 0:
            return said
        assert status in (1, 2), said
        assert said.count("\n") <= 1, said
        raise SaidNo(" ".join(said.split()))

    return call
