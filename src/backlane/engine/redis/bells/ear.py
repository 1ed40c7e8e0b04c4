"""The ear: the one connection by which a process hears for all who wait in it.

A thread keeps the connection: it connects, reconnects with jitter, and asks for a sign
of life. What comes in is read by whoever waits: by the event loop itself while
coroutines wait in it, so that a ring reaches them without a detour, otherwise by the
thread. After a new connection everything rings, for what may have been missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from backlane.engine.redis.bells.bell import Bell, Sleeper, Topic, channel
from backlane.engine.redis.bells.wire import Lost, Wire
from backlane.engine.redis.store.connection import Connection
from backlane.engine.waiter import Waiter

log = logging.getLogger("backlane.redis")

CONFIRM_SECONDS = 0.5  # that a bell waits for its channels; then polling must do
LINGER_SECONDS = 30.0  # a channel stays subscribed: the next wait for it costs nothing
PING_SECONDS = 10.0
SILENT_SECONDS = 25.0  # without an answer to a ping: the connection is dead
DRAIN_SECONDS = 1.0  # what nobody waits for is read all the same, or the server hangs up
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0


class Ear:
    """The bells of one process and engine, and the connection they share.

    Args:
        connect: opens a connection to the server of the namespace; may raise anything.
        prefix: of the channels of the namespace.
    """

    def __init__(self, connect: Callable[[], Connection], prefix: bytes) -> None:
        self._connect = connect
        self._prefix = prefix
        # Re-entered where the garbage collector ends a generator that holds a bell.
        self.mutex = threading.RLock()
        self._bells: tuple[dict[bytes, list[Bell]], ...] = tuple({} for _ in Topic)
        self._wanted: dict[bytes, int] = {}  # bells by channel; 0: nobody's since a while
        self._idle: dict[bytes, float] = {}  # since when
        self._sure: set[bytes] = set()  # channels that the server has confirmed
        self._unsure: dict[bytes, set[Bell]] = {}  # who waits for that
        self._number = 0  # of bells
        self._is_ending = False
        self._wire: Wire | None = None
        self._heard_at = 0.0
        self._loops: dict[asyncio.AbstractEventLoop, list[Any]] = {}  # coroutines, wire
        self._sleepers = 0  # threads that wait
        self._is_watching = False  # the thread has the socket in its poll
        self._poke: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        _ears.add(self)

    # -- subscriptions --

    def hang(self, topics: Sequence[Topic], names: Iterable[bytes]) -> Bell:
        """Make a bell that hears these names."""
        bell = Bell(self, topics)
        with self.mutex:
            self._number += 1
        bell.add(names)
        return bell

    def want(self, bell: Bell, name: bytes) -> None:
        """Hand rings for a name on to a bell."""
        with self.mutex:
            for topic in bell.topics:
                self._bells[topic].setdefault(name, []).append(bell)
                one = self._prefix + channel(topic, name)
                self._wanted[one] = self._wanted.get(one, 0) + 1
                self._idle.pop(one, None)
                if one in self._sure:
                    continue
                bell.unsure.add(one)
                bell.sure_by = time.monotonic() + CONFIRM_SECONDS
                if one not in self._unsure:
                    self._unsure[one] = set()
                    self._ask((one,))
                self._unsure[one].add(bell)
            self._begin()

    def drop(self, bell: Bell, name: bytes) -> None:
        """No longer hand rings for a name on to a bell."""
        with self.mutex:
            for topic in bell.topics:
                bells = self._bells[topic]
                bells[name].remove(bell)
                if not bells[name]:
                    del bells[name]
                one = self._prefix + channel(topic, name)
                self._wanted[one] -= 1
                if not self._wanted[one]:
                    self._idle[one] = time.monotonic()

    def take_down(self) -> None:
        """One bell less."""
        with self.mutex:
            self._number -= 1
            if self._is_ending and not self._number:
                self._rouse()

    def end(self) -> None:
        """Close the connection as soon as there is no bell."""
        with self.mutex:
            self._is_ending = True
            self._rouse()
            thread = None if self._number else self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CONFIRM_SECONDS)

    @property
    def is_ending(self) -> bool:
        return self._is_ending

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, which would outlive it here.

        Bells that the child has inherited are silent; their waits end by time.
        """
        # Another thread of the parent may have held the lock when it forked.
        self.mutex = threading.RLock()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abandon()
        poke, self._poke = self._poke, None
        for end in poke or ():
            with contextlib.suppress(OSError):
                os.close(end)
        self._loops = {}
        self._thread, self._is_ending = None, True
        for bells in self._bells:
            for bell in {bell for named in bells.values() for bell in named}:
                bell.hush()

    def _ask(self, channels: Iterable[bytes]) -> None:
        if self._wire is not None:
            try:
                self._wire.subscribe(channels)
            except Lost as error:
                self._lose(error)

    # -- hearing --

    def take_in(self) -> None:
        """Hand on all rings that have come."""
        with self.mutex:
            if self._wire is None:
                return
            try:
                messages = self._wire.take_in()
                if messages:
                    self._heard_at = time.monotonic()
                for message in messages:
                    self._hand_on(message)
            except Lost as error:
                self._lose(error)

    def _hand_on(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == b"smessage":
            self._ring(message[1][len(self._prefix) :][:1], message[2])
        elif kind == b"ssubscribe":
            self._sure.add(message[1])
            for bell in self._unsure.pop(message[1], ()):
                bell.unsure.discard(message[1])
                bell.rung.ring(None)
        elif kind == b"sunsubscribe" and message[1] in self._wanted:
            # Not by our wish (then it is forgotten before): its slot went to another node.
            raise Lost("the server moved the namespace elsewhere")

    def _ring(self, letter: bytes, payload: bytes) -> None:
        if letter == b"q":
            for bell in tuple(self._bells[Topic.QUEUES].get(payload, ())):
                bell.rung.ring(payload)
            return
        bells = self._bells[Topic.STARTS if letter == b"s" else Topic.JOBS]
        if not bells:
            return
        for start in range(0, len(payload), 16):
            name = payload[start : start + 16]
            for bell in tuple(bells.get(name, ())):
                bell.rung.ring(name)

    def _lose(self, error: Exception | None) -> None:
        """The connection has ended: by an error, so that the thread opens another, or by us."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if error is not None:
            log.info("the connection for wake-ups was lost (%s); polling goes on meanwhile", error)
        self._sure.clear()
        for loop, held in list(self._loops.items()):
            if held[1] is wire:
                # By its own thread, and before the number of the socket is used again.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._let_go, loop, wire)
        if all(held[1] is not wire for held in self._loops.values()):
            wire.close()
        self._rouse()

    def _let_go(self, loop: asyncio.AbstractEventLoop, wire: Wire) -> None:
        """No longer read a wire in this loop; the last one closes it."""
        with self.mutex:
            held = self._loops.get(loop)
            if held is not None and held[1] is wire:
                held[1] = None
                loop.remove_reader(wire.number)
            if wire is not self._wire and all(it[1] is not wire for it in self._loops.values()):
                wire.close()

    # -- waiting --

    def wait(self, bell: Bell, seconds: float) -> None:
        """Let this thread wait until the bell rings."""
        sleeper = Sleeper()
        with self.mutex:
            if not bell.rung.begin(sleeper):
                return
            self._sleepers += 1
            if not self._is_watching:
                self._rouse()
        try:
            sleeper.sleep(seconds)
        finally:
            with self.mutex:
                self._sleepers -= 1
                bell.rung.end(sleeper)

    async def await_ring(self, bell: Bell, seconds: float) -> None:
        """Suspend the coroutine until the bell rings."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop)
        with self.mutex:
            if not bell.rung.begin(waiter):
                return
            self._enter(loop)
        timer = loop.call_later(seconds, waiter.set)
        try:
            await waiter.future
        finally:
            timer.cancel()
            with self.mutex:
                bell.rung.end(waiter)
            if not loop.is_closed():
                # In the next turn: who waits again by then keeps the socket in the loop's poll.
                loop.call_soon(self._leave, loop)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        held = self._loops.setdefault(loop, [0, None])
        held[0] += 1
        if held[1] is None and self._wire is not None:
            held[1] = self._wire
            loop.add_reader(self._wire.number, self.take_in)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with self.mutex:
            held = self._loops.get(loop)
            if held is None:  # abandoned, in a forked child
                return
            held[0] -= 1
            if not held[0]:
                if held[1] is not None:
                    self._let_go(loop, held[1])
                del self._loops[loop]

    # -- the thread --

    def _begin(self) -> None:
        if self._thread is None and not self._is_ending:
            self._poke = os.pipe()
            for end in self._poke:
                os.set_blocking(end, False)
            self._thread = threading.Thread(target=self._run, name="backlane-ear", daemon=True)
            self._thread.start()

    def _rouse(self) -> None:
        if self._poke is not None:
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._poke[1], b".")

    def _run(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while not (self._is_ending and not self._number):
            if self._wire is not None:
                if self._sure:  # a server that refuses each subscription is not asked at once
                    retry = FIRST_RETRY_SECONDS
                self._watch()
            elif not self._open():
                self._poll(None, retry * random.uniform(0.5, 1.5))  # noqa: S311 - spread
                retry = min(LAST_RETRY_SECONDS, retry * 2)
        with self.mutex:
            self._lose(None)
            self._thread = None
            poke, self._poke = self._poke, None
        for end in poke or ():
            os.close(end)

    def _open(self) -> bool:
        """Connect and subscribe; False if that cannot be done now."""
        try:
            wire = Wire(self._connect())
        except Exception as error:  # noqa: BLE001 - whatever it is, polling goes on
            log.debug("no connection for wake-ups (%r); polling goes on", error)
            return False
        with self.mutex:
            self._wire, self._heard_at = wire, time.monotonic()
            for one in self._idle:
                del self._wanted[one]
            self._idle.clear()
            self._unsure = {one: set() for one in self._wanted}
            for topic in Topic:
                for name, bells in self._bells[topic].items():
                    one = self._prefix + channel(topic, name)
                    self._unsure[one].update(bells)
                    for bell in bells:
                        bell.unsure.add(one)
            if self._wanted:
                self._ask(tuple(self._wanted))
        return self._wire is not None

    def _watch(self) -> None:
        """Wait for messages once, and see to the connection."""
        with self.mutex:
            self._forget_closed_loops()
            wire = self._wire
            is_needed = self._sleepers > 0 or not any(held[1] for held in self._loops.values())
            self._is_watching = is_needed and wire is not None
        self._poll(wire if self._is_watching else None, DRAIN_SECONDS)
        self._is_watching = False
        self.take_in()
        with self.mutex:
            self._see_to_wire()

    def _poll(self, wire: Wire | None, seconds: float) -> None:
        """Wait for the socket or a poke; `poll`, for `select` ends at descriptor 1,023."""
        if self._poke is None:
            return
        poll = select.poll()
        poll.register(self._poke[0], select.POLLIN)
        if wire is not None:
            poll.register(wire.number, select.POLLIN)
        poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._poke[0], 4_096)

    def _see_to_wire(self) -> None:
        wire, now = self._wire, time.monotonic()
        if wire is None:
            return
        try:
            if now - self._heard_at > SILENT_SECONDS:
                raise Lost(f"silent for {SILENT_SECONDS:.0f} s")
            if now - self._heard_at > PING_SECONDS:
                wire.ping()
            old = [one for one, since in self._idle.items() if now - since > LINGER_SECONDS]
            for one in old:
                del self._idle[one], self._wanted[one]
                self._sure.discard(one)
                self._unsure.pop(one, None)
            if old:
                wire.unsubscribe(old)
        except Lost as error:
            self._lose(error)

    def _forget_closed_loops(self) -> None:
        """A loop that was closed while coroutines waited in it reads nothing any more."""
        for loop in [loop for loop in self._loops if loop.is_closed()]:
            wire = self._loops.pop(loop)[1]
            if wire is not None and wire is not self._wire:
                wire.close()


_ears: weakref.WeakSet[Ear] = weakref.WeakSet()  # of this process


def _abandon_what_is_the_parents() -> None:
    for ear in tuple(_ears):
        ear.abandon()
    _ears.clear()


os.register_at_fork(after_in_child=_abandon_what_is_the_parents)
