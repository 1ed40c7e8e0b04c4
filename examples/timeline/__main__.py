"""`python -m examples.timeline`: the site and its worker, in one process, until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
from pathlib import Path

import uvicorn
from examples.timeline.web import live, make


class Server(uvicorn.Server):
    """Ends streams of events first: a server would wait for them as long as their jobs last."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        live.stop()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until told to stop; the exit code is 0 whether by Ctrl-C or SIGTERM."""
    asked = _arguments()
    os.chdir(asked.directory)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    with socket.create_server((asked.host, asked.port)) as listening:
        host, port = listening.getsockname()[:2]
        print(f"http://{host}:{port}", flush=True)
        # uvicorn raises the signal that ended it again, which would be the end of us too.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(make(), log_level="warning", timeout_graceful_shutdown=5)
        Server(config).run(sockets=[listening])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.timeline", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--directory", type=Path, default=Path(), help="where timeline.db is kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
