"""A plan under way in an event loop, carried on by the replies it waits for.

A task of its own would do the same three turns of the loop later: one to begin, one to
tell that it has ended, one for the shield that keeps a caller's end from ending it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Course(Generic[T]):
    """Runs a coroutine at once up to what it first waits for, and goes on behind that.

    Args:
        running: awaits nothing but futures of the running loop.
        ended: called with this course when there is nothing more to do.
    """

    __slots__ = ("_ended", "_running", "loop", "outcome")

    def __init__(
        self, running: Coroutine[Any, Any, T], ended: Callable[[Course[T]], object]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[T] = self.loop.create_future()  # the caller's, to cancel
        self._running = running
        self._ended = ended

    def go_on(self, _: asyncio.Future[Any] | None = None) -> None:
        """Run to what is waited for next, or to the end."""
        try:
            waited: asyncio.Future[Any] = self._running.send(None)
        except StopIteration as done:
            if not self.outcome.done():
                self.outcome.set_result(done.value)
        except asyncio.CancelledError:  # what it waited for was: the loop is about to end
            self.outcome.cancel()
        except Exception as error:  # noqa: BLE001 - the caller's, whatever it is
            if not self.outcome.done():
                self.outcome.set_exception(error)
        else:
            waited._asyncio_future_blocking = False  # taken over, as a task says it
            waited.add_done_callback(self.go_on)
            return
        self._ended(self)
