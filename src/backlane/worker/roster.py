"""The roster: the executor processes of one worker, from hiring to their end.

Shared executors are kept at their number: one that dies is replaced at once; when they
die at their start, one after the other, later and later. Exclusive ones are started
when they are needed. A replacement serves before the one it replaces leaves, so a
reload or a recycling costs no slot.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backlane.model.job import Lane
from backlane.worker.birth import Birth, CannotLoad, Process
from backlane.worker.channel import Failing, Frame, Hello, Unfit
from backlane.worker.dispatcher import Dispatcher
from backlane.worker.post import Phase, Post, places

log = logging.getLogger("backlane.worker")

EARLY_DEATHS = 3  # in a row: one or two may have been killed by whoever kills
AGAIN_FIRST_SECONDS = 0.5
AGAIN_LONGEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Staffing:
    """Which executors a worker has."""

    target: str  # "module:attribute"
    processes: int = 1
    concurrency: int = 50
    log_level: str = "INFO"
    env: Mapping[str, str] | None = None


class Member:
    """One executor process: hired, said hello, was welcomed, left."""

    def __init__(self, roster: Roster, name: str, lane: Lane, staffing: Staffing) -> None:
        shared = lane is Lane.SHARED
        slots = staffing.concurrency if shared else 1
        self.marks_fd = _memory(places(slots))
        self.marks = mmap.mmap(self.marks_fd, places(slots))
        self.post = Post(name, lane, slots, self.marks)
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self.is_welcome = False
        self.is_on_trial = False  # its death is the business of whoever tries it
        self._roster = roster
        self.process = Process(
            lambda descriptor: Birth(
                descriptor=descriptor,
                parent=os.getpid(),
                kind="shared" if shared else "exclusive",
                slots=slots,
                target=staffing.target,
                log_level=staffing.log_level,
            ),
            staffing.env,
            lambda frame: roster.heard(self, frame),
            lambda how: roster.gone(self, how),
        )

    def welcome(self, descriptors: tuple[int, ...]) -> None:
        self.is_welcome = True
        self.process.welcome((self.marks_fd, *descriptors))
        os.close(self.marks_fd)
        self.post.open(self.process.channel)


class Roster:
    """Starts, replaces and ends the processes of one worker."""

    def __init__(self, staffing: Staffing) -> None:
        self._staffing = staffing
        self.members: list[Member] = []
        self.deaf: frozenset[str] = frozenset()  # tasks that cannot hear a request to stop
        self.told: Callable[[Hello], None] = lambda _: None  # hears of each application loaded
        self._dispatcher: Dispatcher | None = None
        self._descriptors: tuple[int, ...] = ()
        self._number = 0
        self._early_deaths = 0
        self._is_ending = False
        self._is_reloading = self._is_stale = False
        self._changes: set[asyncio.Future[None]] = set()

    @property
    def concurrency(self) -> int:
        return self._staffing.concurrency

    # -- the beginning --

    async def first(self) -> Hello:
        """Start the first executor and return what it says of the application.

        Raises:
            CannotLoad: the application cannot be imported, or takes the process down.
        """
        member = self._hire(Lane.SHARED)
        member.is_on_trial = True
        hello = await member.hello
        member.is_on_trial = False
        return hello

    def open(self, dispatcher: Dispatcher, descriptors: tuple[int, ...], hello: Hello) -> None:
        """Let the executors serve, and start the others."""
        self._dispatcher, self._descriptors = dispatcher, descriptors
        self._learn(hello)
        for member in self.members:
            dispatcher.posts.all.append(member.post)
            if member.hello.done() and not member.is_welcome:
                self._welcome(member)
        while len(self.members) < self._staffing.processes:
            self._hire(Lane.SHARED)
        if hello.has_exclusive:
            self._hire(Lane.EXCLUSIVE)  # warm: the first such job need not wait for an import

    def hire(self) -> Post:
        """Start one more exclusive executor."""
        return self._hire(Lane.EXCLUSIVE).post

    def _hire(self, lane: Lane) -> Member:
        self._number += 1
        member = Member(self, f"{lane.name.lower()}-{self._number}", lane, self._staffing)
        member.hello.add_done_callback(_retrieved)
        self.members.append(member)
        if self._dispatcher is not None:
            self._dispatcher.posts.all.append(member.post)
        return member

    def _welcome(self, member: Member) -> None:
        self._early_deaths = 0
        member.welcome(self._descriptors)
        if self._dispatcher is not None:
            self._dispatcher.look_now()

    def _learn(self, hello: Hello) -> None:
        self.deaf = hello.deaf
        self.told(hello)
        if self._dispatcher is not None:
            self._dispatcher.posts.is_observed = hello.observed
            self._dispatcher.posts.expects_exclusive = hello.has_exclusive

    # -- what executors say --

    def heard(self, member: Member, frame: Frame) -> None:
        match frame:
            case Hello():
                if not member.hello.done():
                    member.hello.set_result(frame)
                if self._dispatcher is not None:
                    self._welcome(member)
            case Unfit():
                if not member.hello.done():
                    member.hello.set_exception(CannotLoad(frame.text))
            case Failing():
                self.replace(member.post, frame.why)
            case _ if self._dispatcher is not None:
                self._dispatcher.hear(member.post, frame)

    def gone(self, member: Member, how: str) -> None:
        """A process has ended: settle what it held, and replace it if it should be there."""
        post = member.post
        was_leaving = post.phase is Phase.LEAVING
        last = post.die(how)
        self.members.remove(member)
        if not member.is_welcome:
            os.close(member.marks_fd)
        if not member.hello.done():
            text = f"an executor ended before it had imported the application: {how}"
            member.hello.set_exception(CannotLoad(text))
        if self._dispatcher is not None:
            self._dispatcher.posts.all.remove(post)
            self._dispatcher.take_dead(last)
        if self._is_ending or was_leaving:
            return
        if member.is_on_trial:
            if self._dispatcher is not None:
                self._hire_later(post.lane)  # does so only if the one it was to replace is gone too
            return
        log.warning("executor %s is gone: %s; it held %d jobs", post.name, how, len(last))
        if not member.is_welcome:
            self._early_deaths += 1
            self._say_unfit(member)
        self._hire_later(post.lane)

    def _say_unfit(self, member: Member) -> None:
        error = member.hello.exception()
        if error is not None:
            log.error("%s", error)

    def _hire_later(self, lane: Lane) -> None:
        """Replace a dead executor: at once, unless they die one after the other at their start."""
        seconds = 0.0
        if self._early_deaths >= EARLY_DEATHS:
            longer = AGAIN_FIRST_SECONDS * 2 ** min(self._early_deaths - EARLY_DEATHS, 10)
            seconds = min(AGAIN_LONGEST_SECONDS, longer)
            log.warning("executors die at their start; the next one starts in %.1f s", seconds)
        if lane is Lane.SHARED:
            asyncio.get_running_loop().call_later(seconds, self._hire_if_short)
        elif self._dispatcher is not None:
            self._dispatcher.posts.no_exclusive_until = time.monotonic() + seconds

    def _hire_if_short(self) -> None:
        staying = sum(
            member.post.lane is Lane.SHARED and member.post.phase is not Phase.LEAVING
            for member in self.members
        )
        if not self._is_ending and staying < self._staffing.processes:
            self._hire(Lane.SHARED)

    # -- change --

    def reload(self) -> None:
        """Replace all executors, one by one, by ones that import the application anew."""
        if self._is_ending or self._dispatcher is None:
            return
        self._is_stale = True  # also when it changed once more during a reload
        if not self._is_reloading:
            self._is_reloading = True
            self._keep(asyncio.ensure_future(self._reload()))

    def replace(self, post: Post, why: str) -> None:
        """Start a fresh executor, then let this one leave."""
        for member in self.members:
            if member.post is post and not post.is_being_replaced and not self._is_ending:
                post.is_being_replaced = True
                log.info("executor %s is recycled: %s", post.name, why)
                if post.lane is Lane.EXCLUSIVE:
                    post.leave()
                else:
                    self._keep(asyncio.ensure_future(self._replace(member)))

    def kill(self, post: Post) -> None:
        """End an executor's process now; what it held was given its verdict before."""
        for member in self.members:
            if member.post is post:
                if post.phase is not Phase.LEAVING:
                    post.phase = Phase.LEAVING
                    self._hire_later(post.lane)
                member.process.kill()

    async def _reload(self) -> None:
        try:
            while self._is_stale:
                self._is_stale = False
                await self._replace_all()
        except CannotLoad as error:
            log.error("reload failed, the executors of before go on: %s", error)
        finally:
            self._is_reloading = False

    async def _replace_all(self) -> None:
        started = time.monotonic()
        old = [each for each in self.members if each.post.phase is not Phase.LEAVING]
        for member in old:
            if member.post.lane is Lane.SHARED:
                await self._replace(member)
        for member in old:
            if member.post.lane is Lane.EXCLUSIVE:
                member.post.leave()
        log.info("reloaded in %.1f s", time.monotonic() - started)

    async def _replace(self, member: Member) -> None:
        fresh = self._hire(member.post.lane)
        fresh.is_on_trial = True
        try:
            self._learn(await fresh.hello)
        except CannotLoad as error:
            member.post.is_being_replaced = False
            if self._is_reloading:
                raise
            log.error("no fresh executor, the one of before goes on: %s", error)
        else:
            fresh.is_on_trial = False
            member.post.leave()

    def _keep(self, change: asyncio.Future[None]) -> None:
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)

    # -- the end --

    def leave(self) -> None:
        """Have all executors finish what they run, and hire no more."""
        self._is_ending = True
        for member in self.members:
            member.post.leave()
            if not member.is_welcome:
                member.process.kill()

    def kill_all(self) -> None:
        self._is_ending = True
        for member in self.members:
            member.process.kill()

    async def close(self) -> None:
        """Kill whatever is left and see its end."""
        self.kill_all()
        for change in self._changes:
            change.cancel()
        while self.members:  # noqa: ASYNC110 - a killed process ends within milliseconds
            await asyncio.sleep(0.005)


def _memory(size: int) -> int:
    """Return a descriptor of `size` zero bytes that processes can share."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("backlane-marks", os.MFD_CLOEXEC)
    else:
        name = f"/backlane-{os.urandom(12).hex()}"
        descriptor = os.open("/tmp" + name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # noqa: S108
        os.unlink("/tmp" + name)  # noqa: S108, PTH108 - it needs no name, only memory
    os.ftruncate(descriptor, size)
    return descriptor


def _retrieved(hello: asyncio.Future[Hello]) -> None:
    """See the error, so that asyncio does not warn of one that nobody awaited."""
    if not hello.cancelled():
        hello.exception()
