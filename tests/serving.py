"""Real servers on real sockets, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from werkzeug.serving import make_server


def listening(port: int = 0) -> socket.socket:
    """Return a socket that listens on a port of this machine, a free one unless given."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(512)
    return made


def address(of: socket.socket) -> str:
    host, port = of.getsockname()[:2]
    return f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn in a thread, without signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def served(asgi: Any, port: int = 0) -> Iterator[str]:
    """Serve an ASGI application with uvicorn; its address is the block's value."""
    with listening(port) as door:
        config = uvicorn.Config(asgi, log_level="critical", timeout_graceful_shutdown=1)
        server = Server(config)
        thread = threading.Thread(target=server.run, args=([door],), daemon=True)
        thread.start()
        ends = time.monotonic() + 10
        while not server.started:
            if not thread.is_alive() or time.monotonic() > ends:
                raise AssertionError("the server did not start")
            time.sleep(0.005)
        try:
            yield address(door)
        finally:
            server.should_exit = True
            thread.join(10)


@contextlib.contextmanager
def served_wsgi(wsgi: Any) -> Iterator[str]:
    """Serve a WSGI application with werkzeug's threaded server."""
    server = make_server("127.0.0.1", 0, wsgi, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
