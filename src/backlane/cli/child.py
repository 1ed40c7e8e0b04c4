"""A command that ends with the process that started it: `python -m backlane.cli.child …`.

What starts workers for a person (`run`, `demo`, `bench`) may be killed with no chance to
stop them; they would then run on, unseen. So its workers look after it themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from backlane.cli.root import main

LOOK_SECONDS = 1.0


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return what starts `backlane` with these arguments as a child of this process."""
    return [sys.executable, "-m", "backlane.cli.child", str(os.getpid()), *arguments]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    watched = int(sys.argv[1])
    threading.Thread(target=_watch, args=(watched,), name="backlane-parent", daemon=True).start()
    main(sys.argv[2:])
