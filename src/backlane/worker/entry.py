"""The entry of an executor process: `python -m backlane.worker.entry FD PARENT KIND …`.

Imports the application, tells the supervisor what it is, is given the marks and the
worker's sign of life, then becomes a shared or an exclusive executor. However the
supervisor ends, this process ends too: by the death signal, and by the end of the pipe.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable

from backlane.app import Backlane
from backlane.errors import BacklaneError
from backlane.worker.application import load
from backlane.worker.birth import Birth
from backlane.worker.channel import SocketChannel, Unfit, Unpacker, receive
from backlane.worker.exclusive import ExclusiveExecutor
from backlane.worker.executor import SharedExecutor, hello, new_loop

log = logging.getLogger("backlane.worker")

UNFIT_STATUS = 2
STUCK_STATUS = 70
MOST_DESCRIPTORS = 16
# The default of 5 ms is how long the loop may wait for the interpreter behind one busy
# thread, and with it every async job and every frame; 1 ms costs under 1 % here.
SWITCH_SECONDS = 0.001

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Be an executor until drained, or until the supervisor is gone."""
    birth = Birth.parsed(arguments)
    _end_with(birth.parent)
    _leave_signals_to_the_supervisor()
    os.set_inheritable(birth.descriptor, False)  # noqa: FBT003 - its own signature
    sock = socket.socket(fileno=birth.descriptor)
    channel = SocketChannel(sock)
    try:
        app = load(birth.target)
        channel.send(hello(app))
    except BacklaneError as error:
        channel.send(Unfit(str(error)))
        return UNFIT_STATUS
    _log_somewhere(birth.log_level)
    marks = _welcomed(sock)
    if marks is None:
        return 0
    gc.collect()
    gc.freeze()  # what the application imported need not be traversed again
    if birth.kind == "exclusive":
        ExclusiveExecutor(app, sock, marks).run()
    else:
        sys.setswitchinterval(SWITCH_SECONDS)
        _serve(app, sock, channel, marks, birth.slots)
    app.close()
    return 0


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _leave_signals_to_the_supervisor() -> None:
    """Outlive signals sent to the whole group: the supervisor says when to end.

    Handlers, not SIG_IGN: that would be inherited by programs that jobs start.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)


def _welcomed(sock: socket.socket) -> mmap.mmap | None:
    """Wait for the supervisor's welcome; return the marks, None when it has left.

    What else is passed is the worker's sign of life: held open until this process ends.
    """
    greeting, descriptors, _, _ = socket.recv_fds(sock, 1, MOST_DESCRIPTORS)
    if not greeting:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its own signature
    marks = mmap.mmap(descriptors[0], os.fstat(descriptors[0]).st_size)
    os.close(descriptors[0])
    return marks


def _log_somewhere(level: str) -> None:
    """Log to stderr, unless the application has set logging up itself."""
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=level, format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
        )


def _serve(
    app: Backlane, sock: socket.socket, channel: SocketChannel, marks: mmap.mmap, slots: int
) -> None:
    loop = new_loop()
    asyncio.set_event_loop(loop)
    unpacker = Unpacker()

    async def start() -> Callable[[], None]:
        executor = SharedExecutor(
            app,
            channel,
            slots=slots,
            marks=marks,
            finished=loop.stop,
            end_process=lambda: os._exit(STUCK_STATUS),
        )

        def read() -> None:
            frames = receive(sock, unpacker, wait=False)
            if frames is None:
                os._exit(0)  # the supervisor is gone: what runs here is another's soon
            for frame in frames:
                executor.hear(frame)

        return read

    loop.add_reader(sock, loop.run_until_complete(start()))
    is_serving = True
    while is_serving:
        try:
            loop.run_forever()
            is_serving = False
        except (SystemExit, KeyboardInterrupt):
            # A task that a job left behind raised it; the jobs of others go on.
            log.exception("a background task of a job asked this process to exit; it does not")
    loop.remove_reader(sock)
    loop.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
