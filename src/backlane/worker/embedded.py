"""The embedded worker: a worker within a process of yours.

    async with Worker(app):          # async jobs run in your loop
        ...
    with Worker(app):                # async jobs run in a loop and thread of its own
        ...

The dispatcher has a thread and a loop of its own, so a blocked loop of yours costs no
lease. Jobs of `runs_in="process"` run in real child processes, which import the
application by its name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backlane.app import Backlane
from backlane.errors import BadOption, WrongUse
from backlane.model.job import Lane
from backlane.model.queue import checked_name
from backlane.options import checked_items
from backlane.worker.channel import (
    Frame,
    Hello,
    MemoryChannel,
)
from backlane.worker.executor import SharedExecutor, hello, new_loop
from backlane.worker.post import Post, places
from backlane.worker.roster import Roster, Staffing
from backlane.worker.session import Session
from backlane.worker.supervisor import check_grace, check_numbers
from backlane.worker.verdict import Stop

log = logging.getLogger("backlane.worker")


class Worker:
    """Runs an application's jobs in this process, for as long as its block lasts.

    Args:
        queues: what to serve; None means all that the application declares.
        concurrency: the most async and thread jobs at a time.
        exclusive: the most jobs at a time in processes of their own; None is one a core.
        grace: seconds for running jobs when the block ends; then they are given back.
        lease: seconds after which the jobs of a vanished process run again.
        target: the application as `module:attribute`, for child processes; found by
            itself where the application is a global of an imported module.

    Raises:
        BadOption: a value cannot work.
        UnknownQueue: the application does not declare one of `queues`.
        WrongUse: a task runs in processes, and the application cannot be imported.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: Backlane,
        *,
        queues: Iterable[str] | None = None,
        concurrency: int = 50,
        exclusive: int | None = None,
        grace: float = 25.0,
        lease: float = 30.0,
        target: str | None = None,
    ) -> None:
        self._exclusive = os.cpu_count() or 1 if exclusive is None else exclusive
        check_numbers(concurrency=concurrency, exclusive=self._exclusive, lease=lease)
        check_grace(grace)
        if not isinstance(app, Backlane):
            raise BadOption(f"{app!r} is not an application; pass a Backlane")
        named = () if queues is None else tuple(checked_items(queues, "queues", "names"))
        self._app, self._target = app, target
        self._queues = tuple(checked_name(name, "queue") for name in named)
        self._concurrency, self._grace, self._lease_ms = concurrency, grace, round(lease * 1000)
        self._thread: _LoopThread | None = None  # of the dispatcher
        self._own: _LoopThread | None = None  # of the jobs, in a plain `with`
        self._crew: _Crew | None = None

    # -- blocks --

    async def __aenter__(self) -> Self:
        opening = self._open(asyncio.get_running_loop())
        await asyncio.wrap_future(opening)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The jobs end in this very loop, so it must go on meanwhile, even when cancelled.
        closing = asyncio.ensure_future(asyncio.wrap_future(self._close()))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise
        finally:
            self._join()

    def __enter__(self) -> Self:
        self._own = _LoopThread("backlane-jobs")
        try:
            self._open(self._own.loop).result()
        except BaseException:
            self._own.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close().result()
        finally:
            self._join()
            if self._own is not None:
                self._own.end()

    def _open(self, loop: asyncio.AbstractEventLoop) -> Future[None]:
        if self._thread is not None:
            raise WrongUse("this Worker has been started already; make another one")
        said = hello(self._app)
        target = self._target
        if said.has_exclusive and target is None:
            target = _found(self._app)
        self._thread = _LoopThread("backlane-dispatcher")
        opening = self._thread.submit(self._start(said, target or "", loop))
        opening.add_done_callback(self._undo_if_failed)
        return opening

    def _undo_if_failed(self, opening: Future[None]) -> None:
        if opening.exception() is not None and self._thread is not None:
            self._thread.end_soon()

    def _close(self) -> Future[None]:
        if self._thread is None or self._crew is None:
            raise WrongUse("this Worker was not started")
        return self._thread.submit(self._stop(self._crew))

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.end()

    # -- in the dispatcher's thread --

    async def _start(self, said: Hello, target: str, loop: asyncio.AbstractEventLoop) -> None:
        crew = _Crew(self._app, Staffing(target, 0, self._concurrency, env=_environment()))
        session = Session(
            self._app.engine,
            crew,
            said,
            queues=self._queues,
            lease_ms=self._lease_ms,
            slots=self._concurrency,
            exclusive=self._exclusive if target else 0,
        )
        await session.open(is_wanted=lambda: True)
        await crew.open(session, said, loop)
        session.start()
        self._crew = crew

    async def _stop(self, crew: _Crew) -> None:
        session = crew.session
        if session is None:
            return
        try:
            await session.end(self._grace, asyncio.Event())
        finally:
            await crew.roster.close()
            await session.close()


class _Crew:
    """The executors of an embedded worker: one in this process, exclusive ones as children."""

    def __init__(self, app: Backlane, staffing: Staffing) -> None:
        self._app = app
        self.roster = Roster(staffing)
        self.session: Session | None = None
        self._local: Post | None = None

    @property
    def deaf(self) -> frozenset[str]:
        return self.roster.deaf

    async def open(self, session: Session, said: Hello, loop: asyncio.AbstractEventLoop) -> None:
        """Make the executor of this process, whose async jobs run in `loop`."""
        self.session, dispatcher = session, session.dispatcher
        slots = self.roster.concurrency
        marks = bytearray(places(slots))
        self._local = post = Post("embedded", Lane.SHARED, slots, marks)
        here = asyncio.get_running_loop()
        back = MemoryChannel(here, self._heard)

        def finished() -> None:
            here.call_soon_threadsafe(self._gone)

        async def make() -> SharedExecutor:
            return SharedExecutor(
                self._app,
                back,
                slots=slots,
                marks=marks,
                finished=finished,
                end_process=None,
            )

        made = asyncio.run_coroutine_threadsafe(make(), loop)
        executor = await asyncio.wrap_future(made)
        dispatcher.posts.all.append(post)
        self.roster.open(dispatcher, session.descriptors, said)
        post.open(MemoryChannel(loop, executor.hear))

    def _heard(self, frame: Frame) -> None:
        if self.session is not None and self._local is not None:
            self.session.dispatcher.hear(self._local, frame)

    def _gone(self) -> None:
        """All that ran here has ended."""
        if self.session is not None and self._local is not None:
            dispatcher = self.session.dispatcher
            dispatcher.take_dead(self._local.die("drained"))
            dispatcher.posts.all.remove(self._local)

    # -- what a session asks --

    def hire(self) -> Post:
        return self.roster.hire()

    def leave(self) -> None:
        self.roster.leave()
        if self._local is not None:
            self._local.leave()

    def kill(self, post: Post) -> None:
        self.roster.kill(post)

    def kill_all(self) -> None:
        """Kill the children; here, nothing can be killed: cancel, and raise the flag."""
        self.roster.kill_all()
        if self._local is not None:
            self._local.halt(list(self._local.held), Stop.LEAVING)


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def submit(self, running: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(running, self.loop)

    def end_soon(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def end(self) -> None:
        if self._thread.is_alive():
            self.end_soon()
            self._thread.join()


def _found(app: Backlane) -> str:
    """Return `module:attribute` of an application that is a global of an imported module.

    Raises:
        WrongUse: there is none that a child process could import.
    """
    for name, module in list(sys.modules.items()):
        if name == "__main__":
            continue
        for attribute, value in list(vars(module).items()):
            if value is app:
                return f"{name}:{attribute}"
    raise WrongUse(
        "a task runs in processes of its own, and they must be able to import the application: "
        "make it a global of a module that is imported by name (not of the script itself) and "
        "pass Worker(app, target='module:attribute'), or give the task runs_in='thread'"
    )


def _environment() -> dict[str, str]:
    """Return an environment in which children import what this process can."""
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    return {**os.environ, "PYTHONPATH": path}
