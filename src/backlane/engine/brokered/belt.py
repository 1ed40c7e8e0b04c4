"""A belt: what this process knows of one queue and lane at the broker.

Its stock are the messages that have arrived and that no claim has taken. Belts are
changed by any thread that claims and by the loop of the broker, so all that is said
here is done under the lock of the depot that has them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from backlane.engine.brokered import pace
from backlane.engine.brokered.patience import Patience
from backlane.engine.brokered.trouble import Notice, Trouble
from backlane.engine.transport import Delivery
from backlane.model.job import Lane
from backlane.model.queue import Kind

SKEW_MS = 2_000  # what one offer's messages and the next one's may overtake each other


class Load(NamedTuple):
    """A message that has arrived."""

    delivery: Delivery
    at_ms: int  # when it was offered, by the store's clock
    arrived: float


class Belt:
    """One queue and lane. Times are those of `time.monotonic` unless they say otherwise."""

    __slots__ = (
        "_extent",
        "_held",
        "_settled",
        "_sightings",
        "asked",
        "asked_at",
        "down_since",
        "has_answered",
        "has_more",
        "is_claimed",
        "kind",
        "lane",
        "listened_at",
        "looked_at",
        "name",
        "not_before",
        "number_published",
        "queue",
        "refusals",
        "slots",
        "speed",
        "stock",
        "taken",
        "trouble",
        "under_way",
        "void_to_ms",
        "zero_at",
    )

    def __init__(
        self,
        way: tuple[str, str, Lane],
        kind: Kind,
        patience: Patience,
        extent: pace.Extent,
        *,
        is_ordered: bool = True,
    ) -> None:
        self.name, self.queue, self.lane = way  # the first as the broker calls it
        self.kind = kind
        self.stock: dict[bytes, Load] = {}  # in the order of their arrival
        # Of claims:
        self.asked = self.slots = 0
        self.asked_at = -math.inf
        self.is_claimed = False  # by this process, lately
        self.speed = pace.Speed()
        # Of the relay:
        self.has_more = False  # jobs wait behind a full window
        self.looked_at = -math.inf
        self.taken = 0  # leased since
        self.under_way = 0  # calls of publish
        self.not_before = -math.inf  # of the next look: messages were refused
        self.refusals = 0
        self.number_published = 0
        self.trouble = Trouble(Notice(f"the queue {self.name}"))  # it refuses messages
        # Of the pump:
        self.down_since: float | None = None
        self.has_answered = False
        # Of what has been lost:
        self.zero_at: float | None = None  # the broker was seen to have none
        self.listened_at = -math.inf  # anew, in doubt
        self.void_to_ms: int | None = None  # by the store's clock
        self._extent = extent
        self._held = patience.held
        self._settled = patience.settled if is_ordered else patience.unordered
        self._sightings: deque[tuple[float, int]] = deque()

    # -- what is wanted --

    def ask(self, number: int, now: float) -> None:
        """A claim asks for so many."""
        self.asked, self.asked_at = number, now
        self.slots = max(number, self.slots)
        self.is_claimed = True

    def is_wanted(self, now: float) -> bool:
        return now - self.asked_at < self._held

    def room(self, now: float) -> int:
        """How many more messages to have in hand."""
        asked = self.asked if now - self.asked_at < pace.ASKED_SECONDS else 0
        return self._extent.stock(asked, self.speed.rate(now)) - len(self.stock)

    def window(self, now: float) -> int:
        return self._extent.window(self.slots, self.speed.rate(now))

    def is_low(self, now: float) -> bool:
        """Whether the pump should bring more before long."""
        return self.room(now) * 2 >= len(self.stock)

    def wants_look(self, window: int) -> bool:
        """Whether so much was taken that the window should be filled again."""
        return self.has_more and (self.taken * 4 >= window or not self.stock)

    # -- what arrives --

    def arrive(self, loads: Iterable[tuple[bytes, Load]], now: float) -> list[Delivery]:
        """Put messages into the stock; return those that it has already."""
        doubles: list[Delivery] = []
        newest = -1
        for job, load in loads:
            newest = max(newest, load.at_ms)
            if job in self.stock:
                doubles.append(load.delivery)
            else:
                self.stock[job] = load
        if newest >= 0:
            self.zero_at = None
            self._sight(newest, now)
        return doubles

    def take(self, number: int) -> list[tuple[bytes, Load]]:
        """Take up to so many, those that came first."""
        stock = self.stock
        if len(stock) <= number:
            self.stock = {}
            return list(stock.items())
        taken = []
        for job in stock:
            taken.append((job, stock[job]))
            if len(taken) >= number:
                break
        for job, _ in taken:
            del stock[job]
        return taken

    def put_back(self, loads: Iterable[tuple[bytes, Load]]) -> list[Delivery]:
        """Put what was taken back to the head; return what came again meanwhile."""
        back = dict(loads)
        doubles = [load.delivery for job, load in self.stock.items() if job in back]
        self.stock = {**back, **{job: it for job, it in self.stock.items() if job not in back}}
        return doubles

    def stale(self, now: float) -> list[Delivery]:
        """Take out what has been in hand for too long."""
        if not self.stock:
            return []
        old = [job for job, load in self.stock.items() if now - load.arrived > self._held]
        return [self.stock.pop(job).delivery for job in old]

    def emptied(self) -> list[Delivery]:
        """Take everything out."""
        loads, self.stock = self.stock, {}
        return [load.delivery for load in loads.values()]

    # -- what was lost --

    def void_ms(self, now: float) -> int | None:
        """Return the time before which offers are lost that are still open, if known.

        The broker is a line: where a message has arrived, those offered before it have
        too, or will never. Somebody may have one in hand, but not for longer than a while.
        """
        void = self.void_to_ms
        while len(self._sightings) > 1 and now - self._sightings[1][0] >= self._settled:
            self._sightings.popleft()
        if self._sightings and now - self._sightings[0][0] >= self._settled:
            void = max(void or 0, self._sightings[0][1] - SKEW_MS)
        if void is not None and self.stock:
            void = min(void, next(iter(self.stock.values())).at_ms)
        return void

    def _sight(self, at_ms: int, now: float) -> None:
        """Remember the newest offer that has arrived; one a second is enough."""
        if not self._sightings or now - self._sightings[-1][0] >= 1.0:
            self._sightings.append((now, at_ms))
